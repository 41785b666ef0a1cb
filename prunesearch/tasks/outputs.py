"""What networks return, in whatever form: which tensor of it counts, and how far two such answers are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from prunesearch.models.nested import tensors_in

_MAIN = ("out", "logits", "output", "main")
"""What the output that counts is called, where outputs have names."""
_TINY = 1e-12


def named_outputs(returned: Any) -> dict[Any, Any]:
    """What a network returned, by name or number, in order; without what is None."""
    if isinstance(returned, Mapping):
        found = dict(returned)
    elif hasattr(returned, "_asdict"):
        found = returned._asdict()
    elif is_dataclass(returned) and not isinstance(returned, type):
        found = {item.name: getattr(returned, item.name) for item in fields(returned)}
    elif isinstance(returned, (tuple, list)):
        found = dict(enumerate(returned))
    else:
        found = {0: returned}
    return {name: value for name, value in found.items() if value is not None}


def main_name(returned: Any) -> Any:
    """Under which name `named_outputs` has the output that counts; None if none does.

    In a mapping `"out"`, `"logits"`, `"output"` or `"main"`, or the only one; else the first.
    """
    found = named_outputs(returned)
    if isinstance(returned, Mapping):
        return next((name for name in _MAIN if name in found), next(iter(found)) if len(found) == 1 else None)
    return next(iter(found), None)


def main_output(returned: Any) -> Tensor:
    """The tensor that counts of what a network returned.

    Raises:
        ValueError: There is none; the message says what there is.
    """
    if isinstance(returned, Tensor):
        return returned
    found = named_outputs(returned).get(main_name(returned))
    if not isinstance(found, Tensor):
        raise ValueError(
            f'Expected a tensor, alone, as the first of a tuple or as "out" or "logits" of a mapping; the network '
            f"returned {described(returned)}. Give a Task whose functions read it."
        )
    return found


def described(returned: Any) -> str:
    """Shapes, for messages."""
    if isinstance(returned, Tensor):
        return str(tuple(returned.shape))
    inside = [tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for v in named_outputs(returned).values()]
    names = f" {', '.join(map(repr, named_outputs(returned)))}" if isinstance(returned, Mapping) else ""
    return f"a {type(returned).__name__}{names} of {', '.join(map(str, inside)) or 'nothing'}"


def output_distance(outputs: Any, reference: Any, temperature: float = 1.0) -> Tensor:
    """(n,) squared distances of all tensors of two answers, each relative to the variance of the reference's.

    Zero means equal; one is what the mean of the reference would give. The mean over tensors is taken, so that each
    output counts alike, whatever its size and unit.

    Args:
        outputs: Any nest of tensors (n, ...). Tensors of integers do not count.
        reference: Another of the same form.
        temperature: Not used; logits are softened by other tasks.

    Raises:
        ValueError: They are not of the same form.
    """
    del temperature
    pairs = [(a, b) for a, b in _paired(outputs, reference) if b.is_floating_point()]
    distances = []
    for own, wanted in pairs:
        own, wanted = own.float(), wanted.float()
        spread = (wanted - wanted.mean()).square().mean().clamp(min=_TINY)
        distances.append((own - wanted).square().reshape(len(own), -1).mean(1) / spread)
    if not distances:
        raise ValueError(f"Expected outputs with numbers to compare, got {described(outputs)}.")
    return torch.stack(distances).mean(0)


def output_agreement(outputs: Any, reference: Any) -> Tensor:
    """(n,) how far two answers say the same: of (n, classes) the class is the same (1 or 0), else `1 - distance`.

    Raises:
        ValueError: They are not of the same form.
    """
    if isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1 and outputs.is_floating_point():
        ((own, wanted),) = _paired(outputs, reference)
        return (own.argmax(1) == wanted.argmax(1)).float()
    return (1 - output_distance(outputs, reference)).clamp(0, 1)


def _paired(outputs: Any, reference: Any) -> list[tuple[Tensor, Tensor]]:
    """Tensors of the same places. What a network returns besides in training mode, of auxiliary heads, is left out."""
    if isinstance(reference, Tensor) and not isinstance(outputs, Tensor):
        outputs = main_output(outputs)
    elif isinstance(reference, Mapping) and isinstance(outputs, Mapping):
        outputs = {name: outputs.get(name) for name in reference}
    own, wanted = list(tensors_in(outputs)), list(tensors_in(reference))
    if [x.shape for x in own] != [x.shape for x in wanted]:
        raise ValueError(
            f"Expected outputs of the form of the unpruned network's, {described(reference)}; got {described(outputs)}."
        )
    return list(zip(own, wanted, strict=True))
