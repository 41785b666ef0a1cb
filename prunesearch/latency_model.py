"""Predicting the latency of structures, one or millions, from a latency table: interpolation and a calibrated sum.

A structure's time is the sum of its blocks' times, each interpolated between the nearest widths that were measured, put
right by what a few whole networks took: their layers run warm in each other's caches, or wait for weights from memory.
"""

from __future__ import annotations

import itertools
from functools import cached_property

import numpy as np
import numpy.typing as npt

from prunesearch.latency_table import LatencyTable
from prunesearch.latency_times import Layer
from prunesearch.structure import FloatArray, IntArray, Space

ALIGNMENTS = (16, 8)
"""Widths that are multiples of these take fast paths of processors; interpolation does not mix them with others."""

_LEAST = 0.1  # of the sum of the layers
_ROWS_AT_ONCE = 8192
_PRIOR = np.array([1.0, 0.0, 0.0])  # the plain sum
_DEPARTURE = 0.1  # by how much of the latency each term of the calibration is expected to depart from it
_NOISE = 0.03  # of one whole network's measurement, at least


def alignment(width: int) -> int:
    """The largest of `ALIGNMENTS` that divides a width, or 1."""
    return next((step for step in ALIGNMENTS if width % step == 0), 1)


class LatencyModel:
    """Predicts milliseconds per forward of the structures of one space.

    Args:
        table: Complete, and of this space's network.
        space: The space.

    Attributes:
        coefficients: (3,) of the calibration: total = [sum of blocks, 1, million parameters] @ coefficients.
        relative_error: Standard deviation of measured / predicted - 1, by leaving out each calibration network in turn;
            NaN without such networks.

    Raises:
        ValueError: The table is not complete or of another network.
    """

    def __init__(self, table: LatencyTable, space: Space) -> None:
        table.check(space)
        self.table = table
        self._space = space
        self._unit = np.array([group.unit for group in space.groups], dtype=np.int64)
        self._blocks = _Blocks(table, len(space.groups))
        timed = [(built.structure, built.timing) for built in table.networks if built.timing is not None]
        structures = np.array([s for s, _ in timed], dtype=np.int64).reshape(len(timed), len(self._unit))
        self.coefficients, self.relative_error = _calibrated(
            self._features(structures),
            np.array([timing.ms for _, timing in timed]),
            np.array([(timing.high - timing.low) / (2 * timing.ms) for _, timing in timed]),
        )

    def predict(self, structures: npt.ArrayLike) -> FloatArray:
        """(p,) milliseconds of (p, g) structures; widths are not checked.

        Never less than a tenth of the sum of the layers: networks timed on a busy machine can calibrate it below zero.
        """
        array = np.asarray(structures, dtype=np.int64)
        return np.concatenate([np.zeros(0), *(self._calibrate(self._features(array[rows])) for rows in _parts(array))])

    def predict_with(self, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> FloatArray:
        """(m,) `predict` of a structure in each of which one group, the m-th of `groups`, has another width.

        Only the blocks of that group are looked up.

        Args:
            structure: (g,) what they all are otherwise.
            groups: (m,) indices of groups.
            widths: (m,) the width of each; not checked.
        """
        units, changed = np.asarray(structure, dtype=np.int64) // self._unit, widths // self._unit[groups]
        params = self._space.costs_with("params", structure, groups, widths)
        found = [np.zeros(0)]
        for rows in _parts(groups):
            sums = self._blocks.times_with(units, groups[rows], changed[rows]).sum(axis=1)
            found.append(self._calibrate(_features(sums, params[rows])))
        return np.concatenate(found)

    def blocks(self, structure: tuple[int, ...]) -> dict[str, float]:
        """Milliseconds of each block of one structure as measured on its own, in the order the network runs."""
        (times,) = self._blocks.times(np.array([structure]) // self._unit)
        return {use.place: float(ms) for use, ms in zip(self.table.uses, times, strict=True)}

    @cached_property
    def fixed_ms(self) -> float:
        """Milliseconds that no choice of widths saves: blocks that nothing prunes, and the calibration's constant."""
        fixed = [use.layer for use in self.table.uses if not use.widths]
        unpruned = sum(float(_milliseconds(self.table.layers[layer]).sum()) for layer in fixed)
        return max(0.0, self.table.correction * float(self.coefficients @ [unpruned, 1.0, 0.0]))

    def quadratic(self) -> FloatArray:
        """(1 + g, 1 + g) matrix A, non-negative, with latency about [1, x] A [1, x], x the kept fractions.

        For methods that need a formula. Each block is fitted by non-negative constant, linear and bilinear terms; never
        more than the prediction at the narrowest structure, so that what can be met stays so.
        """
        full = np.array([group.units for group in self._space.groups], dtype=np.float64)
        form = np.zeros((len(full) + 1, len(full) + 1))
        for use in self.table.uses:
            layer = self.table.layers[use.layer]
            grid = np.array(list(itertools.product(*layer.axes)), dtype=np.float64).reshape(len(layer.timings), -1)
            sides = [np.eye(1, len(full) + 1)[0]]  # the constant 1, then each axis as a linear form of [1, x]
            for width in use.widths:
                side = np.zeros(len(full) + 1)
                for group, per_unit in width.terms:
                    side[group + 1] = per_unit * full[group]
                sides.append(side)
            pairs = [(0, i) for i in range(len(sides))] + ([(1, 2)] if len(sides) == 3 else [])
            columns = np.concatenate([np.ones((len(grid), 1)), grid], axis=1)
            features = np.stack([columns[:, i] * columns[:, j] for i, j in pairs], axis=1)
            for weight, (i, j) in zip(_non_negative(features, _milliseconds(layer)), pairs, strict=True):
                form += weight * np.outer(sides[i], sides[j])
        lowest = np.concatenate([[1.0], np.array(self._space.minimum) / np.array(self._space.full)])
        scale = self.table.correction * max(float(self.coefficients[0]), 0.0)
        reachable = float(self.predict([self._space.minimum])[0])
        at_lowest = float(lowest @ form @ lowest)
        return form * min(scale, reachable / at_lowest) if at_lowest > 0 else form

    def _features(self, structures: IntArray) -> FloatArray:
        return _features(self._blocks.times(structures // self._unit).sum(axis=1), self._space.params(structures))

    def _calibrate(self, features: FloatArray) -> FloatArray:
        calibrated: FloatArray = np.maximum(features @ self.coefficients, _LEAST * features[:, 0])
        return self.table.correction * calibrated


class _Blocks:
    """Every block's times as one array, and where between the measured widths any width lies."""

    def __init__(self, table: LatencyTable, groups: int) -> None:
        layers = [table.layers[use.layer] for use in table.uses]
        sizes = np.array([len(layer.timings) for layer in layers], dtype=np.int64)
        self._offsets = np.cumsum(sizes) - sizes
        self._flat = np.concatenate([_milliseconds(layer) for layer in layers])
        self._strides = np.array([len(layer.axes[1]) if len(layer.axes) == 2 else 1 for layer in layers])
        self._weights = np.zeros((2, groups, len(layers)), dtype=np.int64)
        for column, use in enumerate(table.uses):
            for axis, width in enumerate(use.widths):
                for group, per_unit in width.terms:
                    self._weights[axis, group, column] = per_unit
        self._lookups = [_lookup([layer.axes[axis : axis + 1] for layer in layers]) for axis in range(2)]

    def times(self, units: IntArray) -> FloatArray:
        """(p, blocks) milliseconds for (p, g) kept units, interpolated between four corners; never negative."""
        return self._of(units, np.arange(len(self._offsets)))

    def times_with(self, units: IntArray, groups: IntArray, changed: IntArray) -> FloatArray:
        """(m, blocks) the same of (g,) units of which one, that of the m-th of `groups`, is `changed` to another."""
        times = np.repeat(self.times(units[None]), len(groups), axis=0)
        for group in np.unique(groups):
            rows, blocks = np.flatnonzero(groups == group), np.flatnonzero(self._weights[:, group].any(axis=0))
            several = np.repeat(units[None], len(rows), axis=0)
            several[:, group] = changed[rows]
            times[rows[:, None], blocks] = self._of(several, blocks)
        return times

    def _of(self, units: IntArray, blocks: IntArray) -> FloatArray:
        """(p, blocks) `times` of some blocks."""
        found = []
        for (low, high, share), weights in zip(self._lookups, self._weights, strict=True):
            widths = np.minimum(units @ weights[:, blocks], low.shape[1] - 1)
            found.append((low[blocks, widths], high[blocks, widths], share[blocks, widths]))
        (low, high, far), (left, right, aside) = found
        offsets, strides = self._offsets[blocks], self._strides[blocks]
        low, high = offsets + low * strides, offsets + high * strides
        near_side = self._flat[low + left] * (1 - aside) + self._flat[low + right] * aside
        far_side = self._flat[high + left] * (1 - aside) + self._flat[high + right] * aside
        times: FloatArray = np.maximum(near_side * (1 - far) + far_side * far, 0.0)
        return times


def _parts(rows: IntArray) -> list[slice]:
    """Few enough at once."""
    return [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(rows), _ROWS_AT_ONCE)]


def _features(sums: FloatArray, params: IntArray) -> FloatArray:
    """(p, 3) what a calibrated latency is a sum of."""
    return np.stack([sums, np.ones(len(sums)), params / 1e6], axis=1)


def _calibrated(features: FloatArray, measured: FloatArray, spread: FloatArray) -> tuple[FloatArray, float]:
    """Coefficients by ridge regression of relative errors toward the plain sum, and the error to expect.

    Networks count the less the wider their own relative `spread` (half of what is between the quartiles). The error is
    that of each network predicted from the others (leave-one-out, in closed form).
    """
    if len(measured) == 0:
        return _PRIOR.copy(), float("nan")
    shares, weights = features / measured[:, None], np.maximum(spread, _NOISE) ** -2
    typical = np.maximum(np.abs(shares).mean(axis=0), 1e-12)
    gram = (shares.T * weights) @ shares + np.diag((typical / _DEPARTURE) ** 2)
    coefficients = _PRIOR + np.linalg.solve(gram, (shares.T * weights) @ (1.0 - shares @ _PRIOR))
    leverage = np.einsum("ij,ji->i", shares, np.linalg.solve(gram, shares.T * weights))
    residuals = (shares @ coefficients - 1.0) / (1.0 - leverage)
    return coefficients, float(np.sqrt(np.mean(residuals**2)))


def _non_negative(features: FloatArray, target: FloatArray) -> FloatArray:
    """Least squares of relative errors with non-negative coefficients: the best of all subsets of the few columns."""
    shares = features / target[:, None]
    best, least = np.zeros(features.shape[1]), float(len(target))
    for size in range(1, features.shape[1] + 1):
        for subset in itertools.combinations(range(features.shape[1]), size):
            found = np.linalg.lstsq(shares[:, subset], np.ones(len(target)), rcond=None)[0]
            error = float(((shares[:, subset] @ found - 1.0) ** 2).sum())
            if (found >= 0).all() and error < least:
                best, least = np.zeros(features.shape[1]), error
                best[list(subset)] = found
    return best


def _milliseconds(layer: Layer) -> FloatArray:
    return np.array([timing.ms for timing in layer.timings if timing is not None])


def _lookup(grids: list[tuple[tuple[int, ...], ...]]) -> tuple[IntArray, IntArray, FloatArray]:
    """(blocks, widest + 1) for every width: the positions in the grid that it lies between, and how far along.

    Beyond the outermost widths of its alignment a straight line goes on. A block without this axis has position 0.
    """
    widest = max((grid[0][-1] for grid in grids if grid), default=0)
    low, high = (np.zeros((len(grids), widest + 1), dtype=np.int64) for _ in range(2))
    share = np.zeros((len(grids), widest + 1))
    for row, grid in enumerate(grids):
        if grid:
            for widths, positions in _by_alignment(grid[0], widest):
                at = np.array(grid[0])[positions]
                cell = np.clip(np.searchsorted(at, widths, side="right") - 1, 0, max(len(at) - 2, 0))
                after = np.minimum(cell + 1, len(at) - 1)
                low[row, widths], high[row, widths] = positions[cell], positions[after]
                share[row, widths] = (widths - at[cell]) / np.maximum(at[after] - at[cell], 1) * (after > cell)
    return low, high, share


def _by_alignment(grid: tuple[int, ...], widest: int) -> list[tuple[IntArray, IntArray]]:
    """Pairs (widths, positions in the grid to interpolate between); one for all if an alignment was measured once."""
    measured = np.array([alignment(width) for width in grid])
    if (np.unique(measured, return_counts=True)[1] < 2).any():
        return [(np.arange(widest + 1), np.arange(len(grid)))]
    wanted = np.array([alignment(width) for width in range(widest + 1)])
    wanted[~np.isin(wanted, measured)] = measured.min()
    return [(np.flatnonzero(wanted == kind), np.flatnonzero(measured == kind)) for kind in np.unique(measured)]
