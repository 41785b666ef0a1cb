"""Losses and similarities that a forward computes itself, as the operators that they consist of, which have rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def can_be_followed(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether what stands in `SPELT_OUT` does the same with these arguments of torch's function."""
    if function in (F.cosine_similarity, F.pairwise_distance):
        return True
    others = {name for name, value in kwargs.items() if value is not None} - {"input", "target", "reduction"}
    return len(args) <= 2 and not others and kwargs.get("reduction", "mean") in _REDUCTIONS


def _squared(input: Tensor, target: Tensor, *, reduction: str = "mean", **_: None) -> Tensor:
    return _REDUCTIONS[reduction]((input - target) ** 2)


def _absolute(input: Tensor, target: Tensor, *, reduction: str = "mean", **_: None) -> Tensor:
    return _REDUCTIONS[reduction]((input - target).abs())


def _cosine(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    one, other = (x.square().sum(dim, keepdim=True).clamp_min(eps * eps).sqrt() for x in (x1, x2))
    return ((x1 / one) * (x2 / other)).sum(dim)


def _distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    return (x1 - x2 + eps).norm(p, -1, keepdim)


_REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda each: each,
    "mean": lambda each: each.mean(),
    "sum": lambda each: each.sum(),
}
SPELT_OUT: Mapping[Any, Callable[..., Tensor]] = {
    F.mse_loss: _squared,
    F.l1_loss: _absolute,
    F.cosine_similarity: _cosine,
    F.pairwise_distance: _distance,
}
"""By torch's function, one that gives the same."""
