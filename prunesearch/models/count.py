"""Counting a built network with hooks: the independent witness of the costs that a space predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.structure import Cost


def count(model: nn.Module, example_inputs: Tensor | Sequence[Tensor]) -> Cost:
    """Run the model once and count what it costs per image.

    One multiply-accumulate counts once; convolutions and linear layers only, bias free. Parameters are all of the
    model's, each tensor once. Mode, hooks and gradients of the model are left as they were.

    Args:
        model: Any module.
        example_inputs: A batch (n, ...), or the tuple of positional inputs.

    Returns:
        MACs of one image, and parameters.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    total = 0

    def add(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            total += output.numel() * module.in_channels // module.groups * math.prod(module.kernel_size)

    modes = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_hook(add) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    params = sum(parameter.numel() for parameter in model.parameters())
    return Cost(macs=total // len(inputs[0]), params=params)
