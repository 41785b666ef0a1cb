"""One class per image: pairs of images and class indices, networks that return logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from prunesearch.models.nested import Batch, size_of
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.logits import check_labels, class_logits, main_and_auxiliary
from prunesearch.tasks.outputs import described, main_output
from prunesearch.tasks.task import Task, first_of, second_of

_OF_ONE, _OF_SEVERAL = 0.4, 0.3


def classification() -> Task:
    """Batches are (images, labels), with (n,) class indices; networks return (n, classes) logits, or (n, 1) of two.

    Scored by cross-entropy, judged by accuracy. In training mode there may be logits of auxiliary heads, too.
    """
    return Task(
        inputs=first_of,
        loss=cross_entropy,
        metric=accuracy,
        predictions=predicted_class,
        targets=second_of,
        distil=soft_label_loss,
        agreement=same_class,
        strata=second_of,
        training_loss=loss_on_labels,
        check=check,
        targets_have_positions=False,
        name="classification",
    )


def labelled(images: Batch, labels: Tensor) -> Examples:
    """Images, or several inputs, with (n,) class indices, as examples.

    Raises:
        ValueError: There is not one label per image, a class index.
    """
    if not isinstance(labels, Tensor) or labels.dim() != 1:
        got = f"shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise ValueError(f"Expected labels as (n,) class indices, got {got}. Of one-hot ones take the argmax.")
    if len(labels) != size_of(images):
        raise ValueError(f"Expected one label per image ({size_of(images)}), got {len(labels)}.")
    return Examples((images, labels), classification())


def cross_entropy(outputs: Any, batch: Batch) -> Tensor:
    """(n,) cross-entropies of logits with labels."""
    return F.cross_entropy(_logits(outputs), batch[1], reduction="none")


def accuracy(outputs: Any, batch: Batch) -> Tensor:
    """(n,) whether the class is right, 1 or 0."""
    return (_logits(outputs).argmax(1) == batch[1]).float()


def predicted_class(outputs: Any) -> Tensor:
    """(n,) class indices."""
    return _logits(outputs).argmax(1)


def same_class(outputs: Any, reference: Any) -> Tensor:
    """(n,) whether two networks name the same class, 1 or 0."""
    return (predicted_class(outputs) == predicted_class(reference)).float()


def soft_label_loss(outputs: Any, teacher: Any, temperature: float) -> Tensor:
    """(n,) divergences of logits from a teacher's, softened; times temperature^2, so that gradients keep size.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    soft = F.log_softmax(_logits(teacher) / temperature, dim=1)
    guess = F.log_softmax(_logits(outputs) / temperature, dim=1)
    return temperature**2 * F.kl_div(guess, soft, reduction="none", log_target=True).sum(1)


def loss_on_labels(returned: Any, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of what a network returned (`tasks.logits`); that of auxiliary heads is added.

    Raises:
        ValueError: It returned something else than logits.
    """
    main, auxiliary = main_and_auxiliary(returned)
    loss = F.cross_entropy(main, batch[1], label_smoothing=label_smoothing)
    return loss + auxiliary_loss(auxiliary, batch[1], label_smoothing)


def auxiliary_loss(auxiliary: Sequence[Tensor], labels: Tensor, label_smoothing: float = 0.0) -> Tensor | float:
    """What auxiliary heads add to the loss: 0.4 of the cross-entropy of a single one, 0.3 of each of several.

    Source: 0.3 is that of GoogLeNet, which has two (Szegedy et al., CVPR 2015, arXiv:1409.4842, section 5); 0.4 that of
    torchvision's Inception v3, which has one, in PyTorch's tutorial "Finetuning torchvision models".
    """
    share = _OF_ONE if len(auxiliary) == 1 else _OF_SEVERAL
    losses = [F.cross_entropy(logits, labels, label_smoothing=label_smoothing) for logits in auxiliary]
    return share * sum(losses)


def check(outputs: Any, batch: Batch) -> None:
    """Make sure that a network returns logits, and that labels are classes of it.

    Raises:
        ValueError: They are not.
    """
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        raise ValueError(
            f"Expected a classifier that returns (n, classes) logits in eval mode; it returned {described(outputs)}. "
            "For another kind of network give Data(task=...), such as ps.tasks.segmentation()."
        )
    check_labels(batch[1], outputs.shape[1])


def _logits(outputs: Any) -> Tensor:
    return class_logits(main_output(outputs))
