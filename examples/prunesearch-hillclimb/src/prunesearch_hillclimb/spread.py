"""A channel criterion: filters whose weights differ most stay."""

from __future__ import annotations

from prunesearch.evaluators.channels.criterion import ScoringCriterion
from prunesearch.evaluators.channels.slices import unit_scores
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples


class SpreadCriterion(ScoringCriterion):
    """Importance of a channel: the standard deviation of the weights of the filter that makes it.

    Args:
        seed: Not used; every criterion takes one.
    """

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """Deviations, each relative to the mean of its layer."""
        return unit_scores(network, "produces", lambda filters: filters.std(dim=1, correction=0))
