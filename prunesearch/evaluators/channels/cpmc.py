"""Channels that matter little to the filter that makes them and to the layers that read them go first."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from prunesearch.evaluators.channels.slices import per_group, slices
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.weights import WeightSource
from prunesearch.structure import FloatArray


def unit_scores(weights: WeightSource, evaluator: Evaluator, images: Tensor) -> tuple[FloatArray, ...]:
    """Per group, (units,) `CPMCCriterion.global_scores` of the traced network, as `search.global_order` wants them.

    Args:
        weights: Of the traced network.
        evaluator: Not used; every kind of evidence takes one.
        images: Not used, either.
    """
    del evaluator, images
    return tuple(CPMCCriterion().global_scores(weights.network))


class CPMCCriterion:
    """Importance of a channel: the mean magnitude of all weights that disappear with it.

    Those are its filters and, in every consumer, the slice that reads it (*weight dependency*).

    Source: Yan et al., Channel pruning via multi-criteria based on weight dependency, arXiv:2011.03240, of which only
    the abstract could be had: weight dependency, and computational cost and parameter quantity as the other two
    criteria after global normalisation, are theirs; the mean, and the product of powers in `global_scores`, are ours.
    Inside a group all channels cost the same, so the order here is that of the weights alone.

    Args:
        seed: Not used; every criterion takes one.
        macs_power: How much a channel's share of the MACs speaks against it in `global_scores`.
        params_power: Likewise, its share of the parameters.
    """

    needs = "nothing"

    def __init__(self, *, seed: int = 0, macs_power: float = 0.25, params_power: float = 0.25) -> None:
        del seed
        self._macs_power, self._params_power = macs_power, params_power

    def rank(self, network: Network, images: Tensor | None = None, labels: Tensor | None = None) -> NestedRanking:
        """Order the units of every group by the weights that go with them."""
        return NestedRanking.by_importance(per_group(network, self._values(network)))

    def global_scores(self, network: Network) -> list[FloatArray]:
        """Per group, (units,) scores that can be compared between groups: value, over powers of what a unit costs.

        Each criterion is divided by its largest value over all groups; costs are at full width.
        """
        space = network.space
        values = self._values(network)
        full = np.array(space.full)
        less = np.array(
            [full - np.eye(len(full), dtype=np.int64)[g] * group.unit for g, group in enumerate(space.groups)]
        )
        macs = (space.macs([full]) - space.macs(less)).astype(np.float64)
        params = (space.params([full]) - space.params(less)).astype(np.float64)
        against = (macs / macs.max()) ** self._macs_power * (params / params.max()) ** self._params_power
        largest = max(float(values[units].max()) for units in network.units)
        return [values[units] / largest / cost for units, cost in zip(network.units, against, strict=True)]

    def _values(self, network: Network) -> FloatArray:
        """(units,) mean magnitude of the weights that disappear with each unit."""
        total, count = np.zeros(network.unit_count), np.zeros(network.unit_count)
        parameters = dict(network.model.named_parameters())
        for part in slices(network):
            if part.role in ("produces", "reads"):
                weights = part.of(parameters[part.name]).abs()
                np.add.at(total, part.units, weights.sum(dim=1).numpy())
                np.add.at(count, part.units, weights.shape[1])
        return total / np.maximum(count, 1)
