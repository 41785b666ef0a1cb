"""Channels whose filters are near the middle of all go first: the others can stand in for them."""

from __future__ import annotations

from torch import Tensor

from prunesearch.evaluators.channels.slices import distances, per_group, unit_scores
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking


class FPGMCriterion:
    """Importance of a channel: the summed distance of its filter to the other filters of the layer.

    Source: He et al., Filter pruning via geometric median, CVPR 2019, arXiv:1811.00250, equation 7. Several producers
    count as in `l1`.

    Args:
        seed: Not used; every criterion takes one.
    """

    needs = "nothing"

    def __init__(self, *, seed: int = 0) -> None:
        del seed

    def rank(self, network: Network, images: Tensor | None = None, labels: Tensor | None = None) -> NestedRanking:
        """Order the units of every group by distance."""
        return NestedRanking.by_importance(per_group(network, unit_scores(network, "produces", distances)))
