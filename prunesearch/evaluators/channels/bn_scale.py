"""Channels that BatchNorm scales by little go first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prunesearch.evaluators.channels.criterion import ScoringCriterion
from prunesearch.evaluators.channels.slices import filter_scores, slices, stand_in_notes, stand_ins, unit_scores
from prunesearch.models.network import Network
from prunesearch.models.roles import weights
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples


class BNScaleCriterion(ScoringCriterion):
    """Importance of a channel: the magnitude of the weight of the BatchNorm it runs through.

    Source: Liu et al., Network slimming, ICCV 2017, arXiv:1708.06519, section 3; the sparsity training that the paper
    does beforehand is the user's. Of several BatchNorms the mean counts. A group that runs through none is ranked by
    the L1 norm of its filters relative to the mean of its layer, times the mean scale of the network.

    Args:
        seed: Not used; every criterion takes one.
    """

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """Scales as they are: the paper has one threshold over those of all layers."""
        scaled = _scaled(network)
        scales = unit_scores(network, "scales", lambda each: each.abs().sum(dim=1), relative=False)
        norms = filter_scores(network, lambda filters: filters.abs().sum(dim=1))
        typical = float(scales[scaled].mean()) if scaled.any() else 1.0
        return np.where(scaled, scales, norms * (typical or 1.0))

    def notes(self, network: Network) -> tuple[str, ...]:
        """Groups that run through no BatchNorm, and that no weight is known to produce either."""
        scaled = _scaled(network)
        return stand_in_notes(
            network, [group for group in stand_ins(network) if not scaled[network.units[group]].all()]
        )


def _scaled(network: Network) -> npt.NDArray[np.bool_]:
    """(units,) which run through a BatchNorm."""
    found, tensors = np.zeros(network.unit_count, dtype=bool), weights(network)
    for part in slices(network):
        if part.role == "scales" and part.name in tensors:
            found[part.units] = True
    return found
