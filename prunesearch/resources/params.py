"""Parameters, every one of the network: exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from prunesearch.resources.resource import Subject, space_of
from prunesearch.structure import FloatArray, IntArray, Space


@dataclass(frozen=True)
class Parameters:
    """Parameters."""

    name = "params"
    unit = "parameters"
    is_count = True
    basis = ""

    def meter(self, subject: Subject) -> ParametersMeter:
        """Counts by the space alone; see `Resource`."""
        return ParametersMeter(space_of(subject))


@dataclass(frozen=True)
class ParametersMeter:
    """Counts the parameters of a space's structures."""

    space: Space

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) exact counts; see `Meter`."""
        return self.space.params(structures)

    def costs_with(self, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> npt.NDArray[Any]:
        """(m,) exact counts; see `Meter`."""
        return self.space.costs_with("params", structure, groups, widths)

    def quadratic(self) -> FloatArray:
        """Exact; see `Space.quadratic`."""
        return self.space.quadratic("params")
