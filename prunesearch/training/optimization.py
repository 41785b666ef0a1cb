"""Optimisers and learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from prunesearch.training.recipe import Recipe


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """What an optimiser takes: weights of two or more dimensions decay, biases and BatchNorm do not.

    Source: He et al., CVPR Workshops 2019, arXiv:1812.01187, section 3.1.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(groups: Iterable[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser for parameter groups; each remembers its peak rate as `peak`."""
    filled = [{"lr": recipe.lr, **group} for group in groups if group["params"]]
    peaked = [{**group, "peak": group["lr"]} for group in filled]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(peaked, lr=recipe.lr, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(peaked, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group to a share of its peak rate; a group without one keeps its own."""
    for group in optimizer.param_groups:
        if "peak" in group:
            group["lr"] = group["peak"] * share


def rate(recipe: Recipe, progress: float) -> float:
    """Share of the peak rate when `progress`, in [0, 1], of all steps are done."""
    if progress < recipe.warmup:
        return (progress + 1e-8) / recipe.warmup
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup)))
