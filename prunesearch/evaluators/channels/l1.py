"""Channels whose filters have small weights go first."""

from __future__ import annotations

from torch import Tensor

from prunesearch.evaluators.channels.slices import per_group, unit_scores
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking


class L1Criterion:
    """Importance of a channel: the L1 norm of the filter that produces it.

    Source: Li et al., ICLR 2017, arXiv:1608.08710, section 3.1. Where several layers produce the same channels (a
    residual stream), the paper ranks by one of them; here every producer counts, each divided by its mean norm so
    that none dominates by scale.

    Args:
        seed: Not used; every criterion takes one.
    """

    needs = "nothing"

    def __init__(self, *, seed: int = 0) -> None:
        del seed

    def rank(self, network: Network, images: Tensor | None = None, labels: Tensor | None = None) -> NestedRanking:
        """Order the units of every group by norm."""
        norms = unit_scores(network, "produces", lambda filters: filters.abs().sum(dim=1))
        return NestedRanking.by_importance(per_group(network, norms))
