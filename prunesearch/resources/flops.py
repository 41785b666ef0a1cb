"""Floating-point operations: two for each multiply-accumulate, as many papers count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from prunesearch.resources.macs import MACsMeter
from prunesearch.resources.resource import Subject, space_of
from prunesearch.structure import FloatArray, IntArray


@dataclass(frozen=True)
class FLOPs:
    """Twice the MACs; a percentage means the same for both."""

    name = "flops"
    unit = "FLOPs"
    is_count = True
    basis = ""

    def meter(self, subject: Subject) -> FLOPsMeter:
        """Counts by the space alone; see `Resource`."""
        return FLOPsMeter(MACsMeter(space_of(subject)))


@dataclass(frozen=True)
class FLOPsMeter:
    """Counts the FLOPs of a space's structures."""

    macs: MACsMeter

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) exact counts; see `Meter`."""
        found: npt.NDArray[Any] = 2 * self.macs.costs(structures)
        return found

    def costs_with(self, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> npt.NDArray[Any]:
        """(m,) exact counts; see `Meter`."""
        found: npt.NDArray[Any] = 2 * self.macs.costs_with(structure, groups, widths)
        return found

    def quadratic(self) -> FloatArray:
        """Exact; see `Space.quadratic`."""
        return 2 * self.macs.quadratic()
