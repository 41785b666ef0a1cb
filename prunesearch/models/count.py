"""Counting a built network with hooks: the independent witness of the costs that a space predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from prunesearch.models.undisturbed import undisturbed
from prunesearch.structure import Cost

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def count(model: nn.Module, example_inputs: Tensor | Sequence[Tensor]) -> Cost:
    """Run the model once and count what it costs per image.

    One multiply-accumulate counts once; convolutions (transposed ones too) and linear layers only, bias free.
    Parameters are all of the model's, each tensor once. Mode, hooks and gradients of the model are left as they were.

    Args:
        model: Any module.
        example_inputs: A batch (n, ...), or the tuple of positional inputs.

    Returns:
        MACs of one image, and parameters.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    params = sum(parameter.numel() for parameter in model.parameters())
    return Cost(macs=sum(count_layers(model, inputs).values()), params=params)


def positions_of_one_image(positions: int, n: int) -> int:
    """Of the positions that a layer works on for a batch of `n`, those of one image.

    What does not divide is no batch: such as a table of relative positions, the same for every image, counts whole. One
    that happens to divide counts as its share of a batch of `n`; with n = 1 nothing can be mistaken.
    """
    return positions // n if positions % n == 0 else positions


def count_layers(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """MACs of one image of each layer that runs, as `count` counts them."""
    n = len(inputs[0])
    macs: dict[str, int] = {}
    names = {module: name for name, module in model.named_modules()}

    def add(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if isinstance(module, nn.Linear):
            positions = output.numel() // module.out_features
            found = positions_of_one_image(positions, n) * module.out_features * module.in_features
        elif isinstance(module, _CONVOLUTIONS):
            positions = output.numel() // module.out_channels
            pairs = module.out_channels * module.in_channels // module.groups
            found = positions_of_one_image(positions, n) * pairs * math.prod(module.kernel_size)
        elif isinstance(module, _TRANSPOSED):
            (source,) = (*args, *kwargs.values())[:1]
            positions = source.numel() // module.in_channels
            pairs = module.in_channels * module.out_channels // module.groups
            found = positions_of_one_image(positions, n) * pairs * math.prod(module.kernel_size)
        else:
            return
        macs[names[module]] = macs.get(names[module], 0) + found

    modes = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_hook(add, with_kwargs=True) for module in model.modules()]
    try:
        with undisturbed(inputs) as copies:
            model.eval()(*copies)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return macs
