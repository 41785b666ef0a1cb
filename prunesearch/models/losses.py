"""Losses that a forward computes itself, as the operators that they consist of, which have rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def can_be_followed(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether what stands in `SPELT_OUT` does the same with these arguments of torch's function."""
    others = {name for name, value in kwargs.items() if value is not None} - {"input", "target", "reduction"}
    return len(args) <= 2 and not others and kwargs.get("reduction", "mean") in _REDUCTIONS


def _squared(input: Tensor, target: Tensor, *, reduction: str = "mean", **_: None) -> Tensor:
    return _REDUCTIONS[reduction]((input - target) ** 2)


def _absolute(input: Tensor, target: Tensor, *, reduction: str = "mean", **_: None) -> Tensor:
    return _REDUCTIONS[reduction]((input - target).abs())


_REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda each: each,
    "mean": lambda each: each.mean(),
    "sum": lambda each: each.sum(),
}
SPELT_OUT: Mapping[Any, Callable[..., Tensor]] = {F.mse_loss: _squared, F.l1_loss: _absolute}
"""By torch's function, one that gives the same."""
