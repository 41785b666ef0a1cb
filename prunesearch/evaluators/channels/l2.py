"""Channels whose filters have a small Euclidean norm go first."""

from __future__ import annotations

from torch import Tensor

from prunesearch.evaluators.channels.slices import per_group, unit_scores
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking


class L2Criterion:
    """Importance of a channel: the L2 norm of the filter that produces it.

    Source: He et al., Soft filter pruning, IJCAI 2018, arXiv:1808.06866, equation 2 with p = 2. Several producers count
    as in `l1`.

    Args:
        seed: Not used; every criterion takes one.
    """

    needs = "nothing"

    def __init__(self, *, seed: int = 0) -> None:
        del seed

    def rank(self, network: Network, images: Tensor | None = None, labels: Tensor | None = None) -> NestedRanking:
        """Order the units of every group by norm."""
        norms = unit_scores(network, "produces", lambda filters: filters.norm(dim=1))
        return NestedRanking.by_importance(per_group(network, norms))
