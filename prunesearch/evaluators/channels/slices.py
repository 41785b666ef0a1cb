"""Where the weights of each unit are: the filters that produce it, and what its next layers read it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from prunesearch.models.devices import fetched, in_float64
from prunesearch.models.network import Network
from prunesearch.models.operators.kind import Role
from prunesearch.models.roles import role_of
from prunesearch.structure import FloatArray, IntArray


@dataclass(frozen=True)
class Slice:
    """A parameter seen from the channels of one of its dimensions.

    Attributes:
        name: Qualified name of the parameter.
        dim: The dimension.
        units: (c,) unit of each channel.
        role: What the parameter does with these channels.
    """

    name: str
    dim: int
    units: IntArray
    role: Role

    def of(self, parameter: Tensor) -> Tensor:
        """(c, rest) values of each channel, of the parameter or something of its shape, where that is.

        In float64: of channels that are nearly alike the same ones are to stay on every device, and sums in float32
        differ by more than such channels do.
        """
        return in_float64(parameter.detach().movedim(self.dim, 0).reshape(parameter.shape[self.dim], -1))


def slices(network: Network) -> list[Slice]:
    """Every narrowed dimension of every parameter."""
    parameters = dict(network.model.named_parameters())
    return [
        Slice(cut.tensor, cut.dim, cut.units, role_of(network, cut.tensor, cut.dim))
        for cut in network.cuts
        if cut.tensor in parameters
    ]


def unit_scores(
    network: Network, role: Role, score: Callable[[Tensor], Tensor], *, relative: bool = True
) -> FloatArray:
    """(units,) sums over the weights of one role of what `score` says of their (c, rest) channels.

    Args:
        network: A traced network.
        role: Which weights count.
        score: From (c, rest) weights to (c,) scores.
        relative: Divide the scores of each weight by their mean, so that none dominates by scale.
    """
    total = np.zeros(network.unit_count)
    parameters = dict(network.model.named_parameters())
    parts = [part for part in slices(network) if part.role == role]
    found = fetched([score(part.of(parameters[part.name])) for part in parts])
    for part, scores in zip(parts, (each.numpy() for each in found), strict=True):
        np.add.at(total, part.units, scores / ((float(scores.mean()) or 1.0) if relative else 1.0))
    return total


def saved(network: Network, resource: Literal["macs", "params"]) -> FloatArray:
    """(g,) what one unit less of each group saves of a resource, at full width."""
    cost, full = getattr(network.space, resource), np.array(network.space.full)
    one_less = full - np.diag([group.unit for group in network.space.groups])
    return (cost([full]) - cost(one_less)).astype(np.float64)


def distances(filters: Tensor) -> Tensor:
    """(c,) sum of the Euclidean distances of each of (c, rest) filters to all of them."""
    return torch.cdist(filters, filters).sum(dim=1)
