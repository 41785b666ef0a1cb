"""Milliseconds of one forward, predicted from a table of measured layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from prunesearch.latency_model import LatencyModel
from prunesearch.latency_table import LatencyTable
from prunesearch.resources.resource import Subject, space_of
from prunesearch.structure import FloatArray, IntArray


@dataclass(frozen=True)
class Latency:
    """What one forward takes, by a latency table.

    Attributes:
        table: The table, or the path of its file.

    Raises:
        ValueError: There is no table.
    """

    table: LatencyTable

    name = "latency_ms"
    unit = "ms"
    is_count = False

    def __post_init__(self) -> None:
        if isinstance(self.table, (str, Path)):
            object.__setattr__(self, "table", LatencyTable.load(self.table))
        if not isinstance(self.table, LatencyTable):
            raise ValueError(
                "Expected latency_ms and table together, got no table. A table may be the path of its file, which "
                "LatencyTable.measure(network, file=...), or prunesearch latency, makes."
            )

    @property
    def basis(self) -> str:
        """What predictions are made from, in words."""
        return f"table {self.table.fingerprint}"

    def meter(self, subject: Subject) -> LatencyMeter:
        """Predicts by the table; see `Resource`."""
        return LatencyMeter(LatencyModel(self.table, space_of(subject)))


@dataclass(frozen=True)
class LatencyMeter:
    """Predicts the latency of a space's structures."""

    model: LatencyModel

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) milliseconds; see `Meter`."""
        return self.model.predict(structures)

    def costs_with(self, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> npt.NDArray[Any]:
        """(m,) milliseconds; see `Meter`."""
        return self.model.predict_with(structure, groups, widths)

    def quadratic(self) -> FloatArray:
        """An approximation; see `LatencyModel.quadratic`."""
        return self.model.quadratic()

    @property
    def relative_error(self) -> float:
        """As the table expects of itself."""
        return self.model.relative_error

    @property
    def remark(self) -> str:
        """What no pruning saves."""
        return f"No choice of widths can save {self.model.fixed_ms:.3g} ms of it."

    @property
    def verifier(self) -> str:
        """Winners are timed where the table was measured on this machine."""
        return "" if self.model.table.is_remote else "latency"
