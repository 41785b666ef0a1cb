"""The proof that slimming is right: a slimmed network against the full one with the removed channels masked."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunesearch.models.count import count
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import kept_units, slim

if TYPE_CHECKING:
    from prunesearch.models.network import Network


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        structures: How many random structures were built.
        largest_difference: Largest absolute difference of any output, slimmed against masked.
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
    """
    rng = np.random.default_rng([seed, n])
    difference = scale = 0.0
    exact = True
    for row in network.space.sample(rng, n):
        structure = network.space.check(row.tolist())
        ranking = NestedRanking.by_importance([rng.random(len(units)) for units in network.units])
        slimmed = slim(network, structure, ranking).eval()
        full = masked(network, kept_units(network, structure, ranking)).eval()
        with torch.no_grad():
            pairs = list(zip(_tensors(slimmed(*network.example_inputs)), _tensors(full(*network.example_inputs))))
        difference = max(difference, *(float((a - b).abs().max()) for a, b in pairs))
        scale = max(scale, *(float(b.abs().max()) for _, b in pairs))
        exact &= count(slimmed, network.example_inputs) == network.space.cost(structure)
    return Verification(n, difference, scale, exact)


def masked(network: Network, kept: npt.NDArray[np.bool_]) -> nn.Module:
    """A full-width copy of the network in which removed channels are zeroed where a layer reads them."""
    model = copy.deepcopy(network.model)
    for read in network.reads:
        mask = torch.from_numpy(kept[read.units])
        model.get_submodule(read.module).register_forward_pre_hook(_masking(mask, read.dim))
    return model


def _masking(mask: Tensor, dim: int) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shape = [1] * inputs[0].dim()
        shape[dim] = len(mask)
        return (inputs[0] * mask.to(inputs[0]).view(shape), *inputs[1:])

    return hook


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output
    return [tensor for item in items for tensor in _tensors(item)] if isinstance(items, (tuple, list)) else []
