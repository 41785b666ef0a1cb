"""Channels whose filters have small weights go first."""

from __future__ import annotations

import numpy as np

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

    def __init__(self, *, seed: int = 0) -> None:
        del seed

    def rank(self, network: Network) -> NestedRanking:
        """Order the units of every group by norm."""
        importance = np.zeros(network.unit_count)
        parameters = dict(network.model.named_parameters())
        for cut in network.cuts:
            parameter = parameters.get(cut.tensor)
            if cut.dim == 0 and parameter is not None and parameter.dim() > 1:
                norms = parameter.detach().abs().flatten(1).sum(1).double().cpu().numpy()
                scale = float(norms.mean()) or 1.0
                np.add.at(importance, cut.units, norms / scale)
        return NestedRanking.by_importance([importance[units] for units in network.units])
