"""Multiply-accumulates of one image, each counted once: exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from prunesearch.resources.resource import Subject, space_of
from prunesearch.structure import FloatArray, IntArray, Space


@dataclass(frozen=True)
class MACs:
    """Multiply-accumulates of convolutions, linear layers and matrix products."""

    name = "macs"
    unit = "MACs"
    is_count = True
    basis = ""

    def meter(self, subject: Subject) -> MACsMeter:
        """Counts by the space alone; see `Resource`."""
        return MACsMeter(space_of(subject))


@dataclass(frozen=True)
class MACsMeter:
    """Counts the MACs of a space's structures."""

    space: Space

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) exact counts; see `Meter`."""
        return self.space.macs(structures)

    def costs_with(self, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> npt.NDArray[Any]:
        """(m,) exact counts; see `Meter`."""
        return self.space.costs_with("macs", structure, groups, widths)

    def quadratic(self) -> FloatArray:
        """Exact; see `Space.quadratic`."""
        return self.space.quadratic("macs")
