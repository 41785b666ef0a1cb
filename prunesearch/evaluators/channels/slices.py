"""Where the weights of each unit are: the filters that produce it, and what its next layers read it with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from prunesearch.models.devices import fetched, in_float64
from prunesearch.models.network import Network
from prunesearch.models.operators.kind import Role
from prunesearch.models.roles import role_of, weights
from prunesearch.structure import FloatArray, IntArray

_INSTEAD: tuple[Role, ...] = ("reads", "scales", "other")


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
    """(units,) means over the weights of one role of what `score` says of their (c, rest) channels.

    Means and not sums: units that many layers produce, as those of a residual stream, would else look more important
    than those of one layer, whatever their weights.

    Args:
        network: A traced network.
        role: Which weights count.
        score: From (c, rest) weights to (c,) scores.
        relative: Divide the scores of each weight by their mean, so that none dominates by scale.
    """
    total, count = np.zeros(network.unit_count), np.zeros(network.unit_count)
    tensors = weights(network)
    parts = [part for part in slices(network) if part.role == role and part.name in tensors]
    found = fetched([score(part.of(tensors[part.name])) for part in parts])
    for part, scores in zip(parts, (each.numpy() for each in found), strict=True):
        np.add.at(total, part.units, scores / ((float(scores.mean()) or 1.0) if relative else 1.0))
        np.add.at(count, part.units, 1)
    return total / np.maximum(count, 1)


def filter_scores(network: Network, score: Callable[[Tensor], Tensor]) -> FloatArray:
    """(units,) the same of the weights that produce each unit; of groups that have none, of others (`stand_ins`)."""
    total = unit_scores(network, "produces", score)
    put_stand_ins(total, network, stand_ins(network), score)
    return total


def put_stand_ins(
    total: FloatArray,
    network: Network,
    instead: Mapping[int, Role],
    score: Callable[[Tensor], Tensor],
    *,
    relative: bool = True,
) -> None:
    """Put into (units,) scores, in place, those of some groups by the role that stands in for what produces them."""
    for role in set(instead.values()):
        scores = unit_scores(network, role, score, relative=relative)
        for units in (network.units[group] for group, its_role in instead.items() if its_role == role):
            total[units] = scores[units]


def stand_ins(network: Network) -> Mapping[int, Role]:
    """By group that no weight is known to produce, the role of the parameters that it is ranked by instead.

    Raises:
        ValueError: No parameter at all has the channels of one.
    """
    parts, found = slices(network), dict[int, Role]()
    for group, units in enumerate(network.units):
        roles = {part.role for part in parts if np.isin(units, part.units).any()}
        if not roles:
            raise ValueError(
                "A criterion that looks at weights expects parameters that hold the channels of each group; "
                f"{network.space.groups[group].name} has none. Take a criterion that looks at outputs, such as "
                '"lfe" or "random", or name the layer in trace(ignored_layers=...).'
            )
        if "produces" not in roles:
            found[group] = next(role for role in _INSTEAD if role in roles)
    return found


def stand_in_notes(network: Network, groups: Collection[int]) -> tuple[str, ...]:
    """What to know of groups that are ranked by other parameters than the weights that produce them."""
    if not groups:
        return ()
    names = [network.space.groups[group].name for group in sorted(groups)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"No weight is known to produce the channels of {', '.join(names[:3])}{more}: they are ranked by what else has "
        "them, the weights that read them first of all.",
    )


def saved(network: Network, resource: Literal["macs", "params"]) -> FloatArray:
    """(g,) what one unit less of each group saves of a resource, at full width."""
    cost, full = getattr(network.space, resource), np.array(network.space.full)
    one_less = full - np.diag([group.unit for group in network.space.groups])
    return (cost([full]) - cost(one_less)).astype(np.float64)


def distances(filters: Tensor) -> Tensor:
    """(c,) sum of the Euclidean distances of each of (c, rest) filters to all of them."""
    return torch.cdist(filters, filters).sum(dim=1)
