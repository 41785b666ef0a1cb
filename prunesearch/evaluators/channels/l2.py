"""Channels whose filters have a small Euclidean norm go first."""

from __future__ import annotations

from prunesearch.evaluators.channels.criterion import FilterCriterion
from prunesearch.evaluators.channels.slices import filter_scores
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples


class L2Criterion(FilterCriterion):
    """Importance of a channel: the L2 norm of the filter that produces it.

    Source: He et al., Soft filter pruning, IJCAI 2018, arXiv:1808.06866, equation 2 with p = 2. Several producers count
    as in `l1`.

    Args:
        seed: Not used; every criterion takes one.
    """

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """Norms, each relative to the mean of its layer."""
        return filter_scores(network, lambda filters: filters.norm(dim=1))
