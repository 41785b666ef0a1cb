"""Why the scores of a search may mean nothing: checks that cost a few forwards, answered in sentences."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prunesearch.evaluators.accuracy import AccuracyEvaluator, top1
from prunesearch.evaluators.batchnorm import batch_norms, in_eval_mode
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.models.finite import first_not_finite
from prunesearch.models.nested import Batch, called, parts_of, taken
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure

_TRIED = 64


def check_finite(model: nn.Module, *images: Batch) -> None:
    """Refuse what can only give scores that are no numbers.

    A tensor that is not finite does no harm where the outputs are finite all the same, such as a mask of `-inf`.

    Args:
        model: The network; it is only read.
        *images: (n, ...) images, or several inputs, each; the network is run on 64 of the first.

    Raises:
        ValueError: An image, or what the network returns, has a NaN or an infinity; the message has the number of the
            image, or the name of the first parameter or buffer that has one.
    """
    for name, some in (part for batch in images for part in parts_of(batch).items()):
        if not isinstance(some, Tensor):
            continue
        broken = (~torch.isfinite(some)).unsqueeze(-1).flatten(1).any(1).nonzero()
        if len(broken):
            where = f" in the input {name}" if name else ""
            raise ValueError(
                f"Expected images of finite numbers; {len(broken)} of {len(some)} have a NaN or an infinity{where}, "
                f"the first of them at index {int(broken[0])}. Take them out, or mend how they are normalised."
            )
    with in_eval_mode(model), torch.inference_mode():
        outputs = called(model, taken(images[0], slice(_TRIED)))
    if torch.isfinite(outputs).all():
        return
    tensor = first_not_finite(model)
    if tensor is not None:
        raise ValueError(
            f"The tensor {tensor} of the network has a NaN or an infinity, and so have its outputs. Load finite "
            "weights."
        )
    raise ValueError(
        "What the network returns is not finite, although its tensors and the images are: numbers on the way are too "
        f"large for {outputs.dtype}. Normalise the images as in training, or search in torch.float32."
    )


def diagnose(
    weights: WeightSource, images: Batch, labels: Tensor, best: Structure, accuracy: Evaluator | None = None
) -> tuple[str, ...]:
    """What a user should know of a finished search.

    A network is at chance if it is not better, by three standard errors, than always naming the most frequent class.

    Args:
        weights: Where the weights of a structure come from.
        images: (n, ...) images that scored the structures.
        labels: (n,) their classes.
        best: The best structure.
        accuracy: Scores by accuracy as the search did; by default with the statistics of the very images.
    """
    model = weights.network.model
    notes = []
    if not batch_norms(model):
        notes.append("The network has no BatchNorm that keeps statistics, so there was nothing to re-estimate.")
    chance = float(torch.bincount(labels).max()) / len(labels)
    limit = chance + 3 * math.sqrt(chance * (1 - chance) / len(labels))
    full = weights.network.space.full
    unpruned = top1(model, images, labels) if _has_the_models_weights(weights) else None
    if unpruned is not None and unpruned <= limit:
        notes.append(
            f"The unpruned network classifies {unpruned:.1%} of the images correctly, and chance is {chance:.1%}: "
            "scores mean nothing. Are its weights trained, the images normalised as in training, the labels those of "
            "training?"
        )
        return tuple(notes)
    accuracy = accuracy or AccuracyEvaluator(weights, images, labels, metric="accuracy")
    there, found = accuracy.score([full, best])
    if unpruned is not None and there <= limit:
        notes.append(
            f"With re-estimated BatchNorm statistics the unpruned network falls from {unpruned:.1%} to {there:.1%}, "
            'which is chance: scores mean nothing. Score on more images, or with evaluator="adaptive_bn", which '
            "estimates statistics from all calibration images."
        )
    elif found <= limit:
        notes.append(
            f"The best structure classifies {found:.1%} of the images correctly, and chance is {chance:.1%}: at this "
            "budget scores without training say little. Try a looser budget, or finetune several of the best."
        )
    return tuple(notes)


def _has_the_models_weights(weights: WeightSource) -> bool:
    """Whether the unpruned network is the traced model itself; that of generated weights is another."""
    full, model = weights.network.space.full, weights.network.model
    return all(torch.equal(weights.values(name, full), values) for name, values in model.named_parameters())
