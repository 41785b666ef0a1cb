"""What a classifier returns: logits of each class, or one logit per image; in training perhaps auxiliary ones, too."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from prunesearch.tasks.outputs import described, main_name, named_outputs


def class_logits(logits: Tensor) -> Tensor:
    """(n, classes) logits. One logit per image, (n, 1), stands for two classes: of class 1, with 0 of class 0.

    Their softmax is then the sigmoid of the logit, so that their cross-entropy is the binary cross-entropy with logits,
    and the largest says its sign.
    """
    return F.pad(logits, (1, 0)) if logits.dim() == 2 and logits.shape[1] == 1 else logits


def main_and_auxiliary(returned: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The logits of a network, and those of its auxiliary heads, which some networks add in training mode.

    Args:
        returned: (n, classes) logits; or such and auxiliary ones of the same shape in a tuple, list or dataclass, main
            ones first, or in a mapping, where main ones are called `"out"` or `"logits"`. None is nothing.

    Returns:
        Main and auxiliary logits, each as `class_logits` has them.

    Raises:
        ValueError: It is none of these.
    """
    found, main = named_outputs(returned), main_name(returned)
    shapes = {tuple(value.shape) if isinstance(value, Tensor) else () for value in found.values()}
    if main is None or len(shapes) != 1 or len(shapes.pop()) != 2:
        raise ValueError(
            "Expected (n, classes) logits in training mode, alone or with auxiliary logits of the same shape in a "
            f'tuple, a dataclass or a mapping {{"out": ..., "aux": ...}}; got {described(returned)}.'
        )
    auxiliary = tuple(class_logits(value) for name, value in found.items() if name != main)
    return class_logits(found[main]), auxiliary


def check_labels(labels: Tensor, outputs: int) -> None:
    """Make sure that labels are classes of a network with so many outputs.

    Raises:
        ValueError: One is not; the message has the range of both.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= max(outputs, 2):
        has = f"the network has {outputs} outputs" if outputs > 1 else "the network has one output, for two classes"
        raise ValueError(f"Expected labels from 0 to {max(outputs, 2) - 1}, as {has}; got {low} to {high}.")
