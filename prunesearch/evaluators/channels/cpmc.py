"""Channels that matter little to the filter that makes them and to the layers that read them go first."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from prunesearch.evaluators.channels.criterion import ScoringCriterion
from prunesearch.evaluators.channels.slices import put_stand_ins, saved, slices, stand_in_notes, stand_ins
from prunesearch.models.devices import fetched
from prunesearch.models.network import Network
from prunesearch.models.roles import weights
from prunesearch.ranges import number
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples


class CPMCCriterion(ScoringCriterion):
    """Importance of a channel: the mean magnitude of all weights that disappear with it, over powers of what it costs.

    Those are its filters and, in every reader, the slice that reads it (*weight dependency*). Each of the three
    criteria is divided by its largest value over all groups; costs are at full width.

    Source: Yan et al., Channel pruning via multi-criteria based on weight dependency, arXiv:2011.03240, of which only
    the abstract could be had: weight dependency, and computational cost and parameter quantity as the other two
    criteria after global normalisation, are theirs; the mean, and the product of powers, are ours. Inside a group all
    channels cost the same, so the order there is that of the weights alone; between groups costs count.

    Args:
        seed: Not used; every criterion takes one.
        macs_power: How much a channel's share of the MACs speaks against it.
        params_power: Likewise, its share of the parameters.

    Raises:
        TypeError: A power is no number.
        ValueError: A power is below 0 or infinite.
    """

    def __init__(self, *, seed: int = 0, macs_power: float = 0.25, params_power: float = 0.25) -> None:
        super().__init__(seed=seed)
        self._macs_power = number("macs_power", macs_power, "[0, inf)")
        self._params_power = number("params_power", params_power, "[0, inf)")

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """Value of the weights, over powers of costs."""
        values = mean_magnitudes(network)
        macs, params = (saved(network, resource) for resource in ("macs", "params"))
        against = (macs / macs.max()) ** self._macs_power * (params / params.max()) ** self._params_power
        scores = np.zeros(network.unit_count)
        for units, cost in zip(network.units, against, strict=True):
            scores[units] = values[units] / cost
        return scores / max(values[units].max() for units in network.units)

    def notes(self, network: Network) -> tuple[str, ...]:
        """Groups that no weight is known to produce or to read."""
        return weightless_notes(network, range(len(network.units)))


def mean_magnitudes(network: Network) -> FloatArray:
    """(units,) mean magnitude of the weights that disappear with each unit."""
    total, count = np.zeros(network.unit_count), np.zeros(network.unit_count)
    parameters = weights(network)
    instead = {group: role for group, role in stand_ins(network).items() if role != "reads"}
    parts = [part for part in slices(network) if part.role in ("produces", "reads") and part.name in parameters]
    sums = fetched([part.of(parameters[part.name]).abs().sum(dim=1) for part in parts])
    for part, summed in zip(parts, sums, strict=True):
        np.add.at(total, part.units, summed.numpy())
        np.add.at(count, part.units, parameters[part.name].numel() // len(part.units))
    means = total / np.maximum(count, 1)
    put_stand_ins(means, network, instead, lambda values: values.abs().mean(dim=1), relative=False)
    return means


def weightless_notes(network: Network, groups: Collection[int]) -> tuple[str, ...]:
    """What to know of those of some groups that no weight is known to produce or to read."""
    if not groups:
        return ()
    instead = stand_ins(network)
    return stand_in_notes(network, [group for group in groups if instead.get(group, "reads") != "reads"])
