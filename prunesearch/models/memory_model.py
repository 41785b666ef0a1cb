"""Peak memory of any structure of a network, from following its forward at a few widths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from prunesearch.models.copying import without_data
from prunesearch.models.following import that_has_run
from prunesearch.models.network import Network
from prunesearch.models.peak_memory import bytes_over_time
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import slim
from prunesearch.structure import FloatArray, IntArray, Structure

_ROWS_AT_ONCE = 4096


class MemoryModel:
    """Predicts the peak memory of the structures of one network, exactly as `predicted_peak_bytes` of each built one.

    What is alive after each operator grows by so many bytes per unit of each group. So the forward is followed once at
    the narrowest structure and once for each group that is widened alone; the peak of another structure is the largest
    of the sums. That this is so is checked at two structures more.

    Args:
        network: A traced network; its model is only read.

    Raises:
        ValueError: Its tensors do not grow evenly with the widths.
        TraceError: The forward cannot run without its weights.
    """

    def __init__(self, network: Network) -> None:
        self._space = network.space
        self._network = replace(network, model=without_data(that_has_run(network.model, network.inputs, network.way)))
        self._ranking = NestedRanking.by_importance([np.zeros(len(units)) for units in network.units])
        self._unit = np.array([group.unit for group in self._space.groups], dtype=np.int64)
        least, full = self._space.minimum, self._space.full
        parameters, _, _ = self._bytes(least)
        self._least = np.array(least, dtype=np.int64) // self._unit
        self._parameter = parameters // self._space.cost(least).params  # bytes of each
        self._base = self._followed(least)
        self._slopes = np.stack([self._slope(index) for index in range(len(full))], axis=1)  # (1 + operators, g)
        for structure in (full, self._space.check(self._space.from_indices([self._space.choices // 2])[0])):
            if not np.array_equal(self._linear(np.array([structure]))[0], self._followed(structure)):
                raise ValueError(self._refusal())

    @property
    def basis(self) -> str:
        """What bytes depend on besides the network, in words."""
        return f"{self._network.inputs.images} images"

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) bytes of (p, g) structures."""
        array = np.asarray(structures, dtype=np.int64)
        found = np.empty(len(array), dtype=np.int64)
        for start in range(0, len(array), _ROWS_AT_ONCE):
            rows = array[start : start + _ROWS_AT_ONCE]
            linear = self._linear(rows)
            weights = self._parameter * self._space.params(rows) + linear[:, 0]
            found[start : start + _ROWS_AT_ONCE] = weights + linear[:, 1:].max(axis=1, initial=0)
        return found

    def quadratic(self) -> FloatArray:
        """(1 + g, 1 + g) matrix A, non-negative, with cost about [1, x] A [1, x], x the kept fractions.

        Weights and buffers are exact. Of the tensors it has those that are alive where the network at full width has
        most, so it is exact there, and no more than the cost elsewhere.
        """
        most = 1 + int(self._linear(np.array([self._space.full]))[0, 1:].argmax())
        slopes = self._slopes[0] + self._slopes[most]
        units = np.array([group.units for group in self._space.groups])
        matrix = self._parameter * self._space.quadratic("params")
        matrix[0, 1:] += slopes * units
        matrix[0, 0] += self._base[0] + self._base[most] - slopes @ self._least
        return np.maximum(matrix, 0.0)

    def costs_with(self, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> npt.NDArray[Any]:
        """(m,) bytes of a structure in each of which one group has another width; see `Meter`."""
        whole = np.asarray(structure, dtype=np.int64)
        base, more = self._linear(whole[None])[0], (widths - whole[groups]) // self._unit[groups]
        found = self._parameter * self._space.costs_with("params", structure, groups, widths)
        for group in np.unique(groups):
            rows = groups == group
            linear = base[:, None] + self._slopes[:, group, None] * more[rows]
            found[rows] += linear[0] + linear[1:].max(axis=0, initial=0)
        return found

    def _linear(self, structures: IntArray) -> IntArray:
        """(p, 1 + operators) bytes of buffers, and of what is alive after each operator."""
        found: IntArray = self._base + (structures // self._unit - self._least) @ self._slopes.T
        return found

    def _slope(self, index: int) -> IntArray:
        """(1 + operators,) by how much the bytes grow per unit of one group."""
        least, full = self._space.minimum, self._space.full
        units = (full[index] - least[index]) // self._space.groups[index].unit
        if units == 0:
            return np.zeros(len(self._base), dtype=np.int64)
        structure = (*least[:index], full[index], *least[index + 1 :])
        found = self._followed(structure)
        if found.shape != self._base.shape or ((found - self._base) % units).any():
            raise ValueError(self._refusal())
        slope: IntArray = (found - self._base) // units
        return slope

    def _followed(self, structure: Structure) -> IntArray:
        """(1 + operators,) bytes of the network of one structure, but for those of its parameters; as `_linear`."""
        parameters, buffers, alive = self._bytes(structure)
        rest = parameters - self._parameter * self._space.cost(structure).params  # of parameters of several types
        return np.array([buffers + rest, *alive], dtype=np.int64)

    def _bytes(self, structure: Structure) -> tuple[int, int, list[int]]:
        """What the network of one structure takes; see `bytes_over_time`."""
        model = slim(self._network, structure, self._ranking).eval()
        return bytes_over_time(model, self._network.inputs)

    def _refusal(self) -> str:
        return (
            f"The peak memory of {type(self._network.model).__name__} cannot be predicted for all structures: what its "
            "tensors take does not grow evenly with the widths. Limit macs or params instead."
        )
