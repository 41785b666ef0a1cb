"""The proof that slimming is right: a slimmed network against the full one with the removed channels masked."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunesearch.models.count import count
from prunesearch.models.nested import tensors_in
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import kept_units, slim
from prunesearch.models.undisturbed import undisturbed

if TYPE_CHECKING:
    from prunesearch.models.network import Network


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        structures: How many random structures were built.
        largest_difference: Largest absolute difference of any output, slimmed against masked; NaN if an output is.
        scale: Largest absolute output of the masked networks, to judge the difference by.
        costs_exact: Whether every predicted cost equalled the one counted on the built network.
    """

    structures: int
    largest_difference: float
    scale: float
    costs_exact: bool


def verify(network: Network, n: int = 10, seed: int = 0) -> Verification:
    """Build `n` random structures, with random channels, and compare each with the masked full network.

    Run in eval mode on the example inputs; about 1e-6 of the scale is float32 rounding.

    Raises:
        TypeError: The network returns something in which we find no tensor to compare.
    """
    rng = np.random.default_rng([seed, n])
    difference = scale = 0.0
    exact = True
    for row in network.space.sample(rng, n):
        structure = network.space.check(row.tolist())
        ranking = NestedRanking.by_importance([rng.random(len(units)) for units in network.units])
        slimmed = slim(network, structure, ranking)
        ours = _outputs(slimmed, network.example_inputs)
        theirs = _outputs(masked(network, kept_units(network, structure, ranking)), network.example_inputs)
        difference = float(np.maximum(difference, float((ours - theirs).abs().max())))  # unlike max, keeps a NaN
        scale = float(np.maximum(scale, float(theirs.abs().max())))
        exact &= count(slimmed, network.example_inputs) == network.space.cost(structure)
    return Verification(n, difference, scale, exact)


def masked(network: Network, kept: npt.NDArray[np.bool_]) -> nn.Module:
    """A full-width copy of the network in which no layer sees the removed channels.

    They are zeroed where a layer reads them; a LayerNorm or GroupNorm, to which zeros are values like others, takes its
    mean and variance over the channels that stay.
    """
    model = copy.deepcopy(network.model)
    for read in network.reads:
        module, stays = model.get_submodule(read.module), torch.from_numpy(kept[read.units])
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            module.register_forward_hook(_normalising(stays, read.dim))
        else:
            module.register_forward_pre_hook(_masking(~stays, read.dim))
    return model


def _normalising(stays: Tensor, dim: int) -> Any:
    """Replace what a norm returns by the definition, over the channels that stay."""

    def hook(norm: nn.LayerNorm | nn.GroupNorm, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        x = inputs[0].movedim(dim, 1)
        groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else 1
        some = x[:, stays].reshape(len(x), groups, -1, *x.shape[2:])
        dims = tuple(range(2, some.dim())) if isinstance(norm, nn.GroupNorm) else (2,)
        mean = some.mean(dims, keepdim=True).repeat_interleave(x.shape[1] // groups, 1).flatten(1, 2)
        variance = some.var(dims, correction=0, keepdim=True)
        variance = variance.repeat_interleave(x.shape[1] // groups, 1).flatten(1, 2)
        shape = (1, -1, *[1] * (x.dim() - 2))
        y = (x - mean) / (variance + norm.eps).sqrt()
        y = y if norm.weight is None else y * norm.weight.view(shape)
        y = y if norm.bias is None else y + norm.bias.view(shape)
        return y.movedim(1, dim)

    return hook


def _masking(removed: Tensor, dim: int) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shape = [1] * inputs[0].dim()
        shape[dim] = len(removed)
        return (inputs[0].masked_fill(removed.to(inputs[0].device).view(shape), 0), *inputs[1:])

    return hook


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """Every number the model returns, in one row."""
    with undisturbed(inputs) as copies:
        output = model.eval()(*copies)
    tensors = list(tensors_in(output))
    if not tensors:
        raise TypeError(f"Expected a network that returns tensors, got {type(output).__name__}.")
    return torch.cat([tensor.flatten().cpu().double() for tensor in tensors])
