"""Channels that the others can best stand in for go first: greedy explained variance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from prunesearch.evaluators.channels.criterion import inputs_of
from prunesearch.evaluators.layer_inputs import LayerInputs, layer_inputs
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.structure import FloatArray, IntArray
from prunesearch.tasks.examples import Examples

_JITTER = 1e-8


class CaPCriterion:
    """Adds again and again the channel that explains most of the next layers' outputs that is unexplained so far.

    *Explained* by least squares: the weights of the kept channels may change, as compensation makes them. The order in
    which channels are added is their importance.

    Source: Xie et al., Pruning with compensation, arXiv:2108.13728, and the authors' code (compensation-aware ranking),
    with a downdate in place of inverses that grow, which gives the same order. Departs from it: moments are centred
    (the code's are not, although its formulas are for centred ones), from 16 positions of 256 images; a group that
    several layers read is ranked by the sum of what each is explained of its output's variance.

    Args:
        seed: Decides the positions that are sampled.
        cache: Folder where moments of layers are kept (`evaluators.layer_inputs`).
    """

    needs = "inputs"

    def __init__(self, *, seed: int = 0, cache: str | Path | None = None) -> None:
        self._seed = seed
        self._cache = cache

    def rank(self, network: Network, examples: Examples | None = None) -> NestedRanking:
        """Order the units of every group."""
        readers = list(layer_inputs(network, inputs_of(examples, "cap"), seed=self._seed, cache=self._cache))
        orders = []
        for units in network.units:
            parts = [_Unexplained(reader, units) for reader in readers if np.isin(units, reader.units).any()]
            orders.append(tuple(explained_order(parts, len(units))))
        return NestedRanking(tuple(orders))


def explained_order(parts: list[_Unexplained], units: int) -> list[int]:
    """Greedy order of the units of a group, that which explains most first; of equals the one with the lower index."""
    order: list[int] = []
    while len(order) < units:
        gains = np.sum([part.gains() for part in parts], axis=0) if parts else np.zeros(units)
        gains[order] = -np.inf
        order.append(int(np.argmax(gains)))
        for part in parts:
            part.explain(order[-1])
    return order


class _Unexplained:
    """What one reader's outputs still hold that the channels added so far do not explain."""

    def __init__(self, reader: LayerInputs, units: IntArray) -> None:
        inside, places = reader.channels_of(units)
        inside = inside[np.argsort(places, kind="stable")]  # unit by unit
        columns = (inside[:, None] * reader.taps + np.arange(reader.taps)).reshape(-1)
        self._units = len(units)
        self._residual = reader.covariance[columns][:, columns]
        self._cross = reader.weights[:, columns] @ self._residual
        self._variance = float((reader.cross * reader.weights).sum()) or 1.0
        self._jitter = _JITTER * float(self._residual.diagonal().mean()) + 1e-30

    def gains(self) -> FloatArray:
        """(u,) share of the variance of the outputs that each unit would explain next."""
        n = len(self._residual) // self._units
        blocks = self._residual.reshape(self._units, n, self._units, n)
        own = torch.stack([blocks[u, :, u] for u in range(self._units)]) + self._jitter * torch.eye(n).double()
        cross = self._cross.reshape(-1, self._units, n).permute(1, 2, 0)  # (u, n, outputs)
        return ((cross * torch.linalg.solve(own, cross)).sum((1, 2)) / self._variance).numpy()

    def explain(self, unit: int) -> None:
        """Count a unit's columns as kept."""
        n = len(self._residual) // self._units
        at = slice(unit * n, (unit + 1) * n)
        own = self._residual[at, at] + self._jitter * torch.eye(n).double()
        shares = torch.linalg.solve(own, self._residual[at])
        self._cross.addmm_(self._cross[:, at].clone(), shares, alpha=-1)
        self._residual.addmm_(self._residual[:, at].clone(), shares, alpha=-1)
