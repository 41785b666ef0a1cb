"""Channels whose filters are near the middle of all go first: the others can stand in for them."""

from __future__ import annotations

from prunesearch.evaluators.channels.criterion import FilterCriterion
from prunesearch.evaluators.channels.slices import distances, filter_scores
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples


class FPGMCriterion(FilterCriterion):
    """Importance of a channel: the summed distance of its filter to the other filters of the layer.

    Source: He et al., Filter pruning via geometric median, CVPR 2019, arXiv:1811.00250, equation 7. Several producers
    count as in `l1`.

    Args:
        seed: Not used; every criterion takes one.
    """

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """Distances, each relative to the mean of its layer."""
        return filter_scores(network, distances)
