"""Attention among the filters of a group, from their weights: what PAAM scores them with (`training.paam`)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from prunesearch.models.coupling import Cut
from prunesearch.models.network import Network
from prunesearch.models.roles import role_of
from prunesearch.structure import IntArray

_LEAK = 0.01
_LOWEST = 1e-3


def leaky_exponential(u: Tensor) -> Tensor:
    """Scores in (0, 1]: e^u up to 0, where it is 1; beyond, 1 with the gradient of a slight slope.

    It never falls below 0.001; gradients pass as if it did.
    """
    below = torch.where(u <= 0, u, 0)  # not clamp, whose gradient at the border, where all scores start, may be 0
    free = torch.where(u <= 0, torch.exp(below), 1 + _LEAK * u)
    return free.clamp(_LOWEST, 1.0).detach() + (
        free - free.detach()
    )  # the clamped value, exactly, with free's gradient


class FilterAttention(nn.Module):
    """Attention among the filters of one group: how each relates to all says how much it matters.

    With queries and keys of h entries, score = f(mean over j of q_i . k_j / sqrt(h) + bias_i). Keys start at zero, so
    all scores start at exactly 1, with gradients to keys and biases. Keys are stored times d sqrt(h), so that a step
    of Adam moves scores about as far through them as through the biases, whatever the size of the layer.

    Args:
        units: Filters, n.
        size: Weights of each, d.
        hidden: h, at most d.
    """

    def __init__(self, units: int, size: int, hidden: int) -> None:
        super().__init__()
        hidden = max(1, min(hidden, size))
        self.query = nn.Parameter(torch.randn(size, hidden) / max(1, size) ** 0.5)
        self.key = nn.Parameter(torch.zeros(size, hidden))
        self.bias = nn.Parameter(torch.zeros(units))

    def forward(self, filters: Tensor) -> Tensor:
        """(n, d) filters -> (n,) u, whose leaky exponential is the score and which orders units as it does."""
        rows = filters - filters.mean(1, keepdim=True)
        rows = rows / (rows.pow(2).mean(1, keepdim=True).sqrt() + 1e-8)
        related = (rows @ self.query) @ (rows @ self.key).mean(0)  # the mean over j taken first
        return related / (self.key.shape[1] * max(1, len(self.key))) + self.bias


def producers(network: Network, units: IntArray) -> list[tuple[Cut, IntArray]]:
    """Weights that produce the channels of some units, and (units, channels of each) where in them."""
    found = []
    for cut in network.cuts:
        if role_of(network, cut.tensor, cut.dim) == "produces":
            order = np.argsort(cut.units, kind="stable")
            inside = order[np.isin(cut.units[order], units)]
            if len(inside):  # every unit of a group has the same number of channels in a tensor
                by_id = inside.reshape(len(units), -1)
                found.append((cut, by_id[np.argsort(np.argsort(units))]))
    return found
