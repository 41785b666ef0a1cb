"""Channels that the others can best stand in for go first: greedy explained variance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunesearch.evaluators.channels.cpmc import mean_magnitudes, weightless_notes
from prunesearch.evaluators.channels.criterion import inputs_of
from prunesearch.evaluators.layer_inputs import LayerInputs, layer_inputs
from prunesearch.evaluators.refitted import solved
from prunesearch.models.devices import placed
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.ranges import whole_number
from prunesearch.structure import FloatArray, IntArray
from prunesearch.tasks.examples import Examples

_JITTER = 1e-8
_STEPS = 256  # of a group; wider ones get several units a step


class CaPCriterion:
    """Adds again and again the channel that explains most of the next layers' outputs that is unexplained so far.

    *Explained* by least squares: the weights of the kept channels may change, as compensation makes them. The order in
    which channels are added is their importance; what each explains is its score, which can be compared between groups.

    Source: Xie et al., Pruning with compensation, arXiv:2108.13728, and the authors' code (compensation-aware ranking),
    with a downdate in place of inverses that grow, which gives the same order. Departs from it: moments are centred
    (the code's are not, although its formulas are for centred ones), from 16 positions of 256 images; a group that
    several layers read is ranked by the sum of what each is explained of its output's variance; where a layer reads
    several groups (behind concatenations and padded shortcuts), each is ranked alone, by what it explains of its own
    contribution to the outputs, where the paper ranks all inputs of a layer together: contributions of other groups,
    which may be alike or cancel it, are not seen, and shares of such layers can exceed 1; of a group of more than 256
    units several are added at a time. Depthwise convolutions do not count: their outputs go with their inputs, and it
    is the layer behind them that misses these. Units that are read by no linear layer or convolution of at most
    `most_columns` inputs are ranked by the mean magnitude of all weights that disappear with them, as in `cpmc`.

    Args:
        seed: Decides the positions that are sampled.
        cache: Folder where moments of layers are kept (`evaluators.layer_inputs`).
        most_columns: Inputs of a layer, times elements of its kernel, above which it is not looked at: 8,192 take half
            a gigabyte.

    Raises:
        ValueError: `most_columns` is below 1.
    """

    needs = "inputs"

    def __init__(self, *, seed: int = 0, cache: str | Path | None = None, most_columns: int = 8192) -> None:
        self._seed = seed
        self._cache = cache
        self._most_columns = whole_number("most_columns", most_columns, at_least=1)

    def rank(self, network: Network, examples: Examples | None = None) -> NestedRanking:
        """Order the units of every group."""
        images = inputs_of(examples, "cap")
        known = [one for one in network.linear_maps if one.loses_inputs and one.columns <= self._most_columns]
        readers = list(layer_inputs(network, images, seed=self._seed, cache=self._cache, of=known))
        read_by = [[reader for reader in readers if np.isin(units, reader.units).any()] for units in network.units]
        unread = [group for group, known_readers in enumerate(read_by) if not known_readers]
        magnitudes = mean_magnitudes(network) if unread else np.zeros(network.unit_count)
        orders, scores = [], []
        for units, its_readers in zip(network.units, read_by, strict=True):
            parts = [_Unexplained(reader, units) for reader in its_readers]
            order, values = greedily_explained(parts, len(units)) if parts else _by_magnitude(magnitudes[units])
            orders.append(tuple(order.tolist()))
            scores.append(values)
        return NestedRanking(tuple(orders), tuple(scores), weightless_notes(network, unread))


def greedily_explained(parts: Sequence[_Unexplained], units: int) -> tuple[IntArray, FloatArray]:
    """(u,) order of the units of a group, that which explains most first, and (u,) what each explains when it is added.

    Two units may explain together what neither does alone. A score is at most that of the unit before, so that scores
    have the same order. Of equals the one with the lower index comes first. All steps are taken where the moments are;
    the program waits for them once.
    """
    left = torch.arange(units, device=parts[0].device)
    added: list[Tensor] = []
    values: list[Tensor] = []
    while len(left):
        gains = _added([part.gains(left) for part in parts])
        at = torch.argsort(-gains, stable=True)
        chosen, others = at.tensor_split([-(-units // _STEPS)])
        values.append(gains[chosen])
        added.append(left[chosen])
        for part in parts:
            part.explain(added[-1])
        left = left[others.sort().values]
    found = torch.stack([torch.cat(added).double(), torch.cat(values)]).cpu().numpy()
    order, scores = found[0].astype(np.int64), np.zeros(units)
    scores[order] = np.minimum.accumulate(found[1])
    return order, scores


def _added(rows: Sequence[Tensor]) -> Tensor:
    """The sum of some rows; on CPUs numpy's, so that scores stay to the last bit what they have been."""
    if rows[0].device.type == "cpu":
        return torch.from_numpy(np.sum([row.numpy() for row in rows], axis=0))
    return torch.stack(list(rows)).sum(0)


def _by_magnitude(magnitudes: FloatArray) -> tuple[IntArray, FloatArray]:
    """The same, by shares of the group's magnitude."""
    shares = magnitudes / (magnitudes.sum() or 1.0)
    return np.argsort(-shares, kind="stable"), shares


class _Unexplained:
    """What one reader's outputs still hold that the units added so far do not explain."""

    def __init__(self, reader: LayerInputs, units: IntArray) -> None:
        inside, places = reader.channels_of(units)
        inside = inside[np.argsort(places, kind="stable")]  # unit by unit
        taken = (inside[:, None] * reader.taps + np.arange(reader.taps)).reshape(-1)
        self._each = len(taken) // len(units)  # columns of a unit
        self.device = reader.covariance.device
        columns = placed(torch.from_numpy(taken), self.device)
        self._residual = reader.covariance[columns][:, columns]
        self._cross = reader.weights[:, columns] @ self._residual
        variance = (reader.cross * reader.weights).sum()
        self._variance = torch.where(variance == 0, 1.0, variance)
        self._jitter = _JITTER * self._residual.diagonal().mean() + 1e-30

    def gains(self, units: Tensor) -> Tensor:
        """(k,) share of the variance of the outputs that each of some units would explain next."""
        at = self._columns(units)
        cross = (
            self._cross[:, at.reshape(-1)].reshape(-1, *at.shape).permute(1, 2, 0)
        )  # (k, columns of a unit, outputs)
        own = self._own(at)
        if self._each == 1:
            return cross.square().sum((1, 2)) / own[:, 0, 0] / self._variance
        return (cross * solved(own, cross)).sum((1, 2)) / self._variance

    def explain(self, units: Tensor) -> None:
        """Count the columns of some units as kept."""
        at = self._columns(units).reshape(-1)
        (own,) = self._own(at[None])
        shares = solved(own, self._residual[at])
        self._cross.addmm_(self._cross[:, at], shares, alpha=-1)
        self._residual.addmm_(self._residual[:, at], shares, alpha=-1)

    def _own(self, at: Tensor) -> Tensor:
        """(k, c, c) what is unexplained of each of (k, c) columns, which can be inverted."""
        diagonal = torch.eye(at.shape[1], dtype=torch.float64, device=self.device)
        return self._residual[at[:, :, None], at[:, None, :]] + self._jitter * diagonal

    def _columns(self, units: Tensor) -> Tensor:
        """(k, columns of a unit) where units are in the matrices."""
        return units[:, None] * self._each + torch.arange(self._each, device=self.device)
