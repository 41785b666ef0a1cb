"""Channels whose filters have small weights go first."""

from __future__ import annotations

from prunesearch.evaluators.channels.criterion import FilterCriterion
from prunesearch.evaluators.channels.slices import filter_scores
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples


class L1Criterion(FilterCriterion):
    """Importance of a channel: the L1 norm of the filter that produces it.

    Source: Li et al., ICLR 2017, arXiv:1608.08710, section 3.1. Where several layers produce the same channels (a
    residual stream), the paper ranks by one of them; here every producer counts: the score is the mean of their
    norms, each divided by its layer's mean norm. So scores are relative to the layer, for the searcher `global`, too.

    Args:
        seed: Not used; every criterion takes one.
    """

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """Norms, each relative to the mean of its layer."""
        return filter_scores(network, lambda filters: filters.abs().sum(dim=1))
