"""Millijoules of one forward, predicted from a few structures whose energy was measured where the machine tells it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunesearch.files import write_text
from prunesearch.registry import resolve
from prunesearch.resources.resource import Subject, Traced, space_of
from prunesearch.structure import FloatArray, IntArray, Space, Structure


@dataclass(frozen=True)
class EnergyTable:
    """What a few structures of one network took, each for one forward.

    Attributes:
        groups: (name, width) of each group of the network, by which it is known again.
        structures: What was measured.
        millijoules: Of each.
        processor: Where.
        batch_size: Images per forward.

    Raises:
        ValueError: There is not one energy above 0 for each structure, or a structure has not one width per group.
    """

    groups: tuple[tuple[str, int], ...]
    structures: tuple[Structure, ...]
    millijoules: tuple[float, ...]
    processor: str
    batch_size: int

    def __post_init__(self) -> None:
        found, wanted = len(self.millijoules), len(self.structures)
        if found != wanted or found == 0:
            raise ValueError(f"Expected one energy for each structure, got {found} for {wanted}.")
        if any(len(structure) != len(self.groups) for structure in self.structures):
            raise ValueError(f"Expected structures of {len(self.groups)} widths, one for each group.")
        wrong = next((value for value in self.millijoules if not 0 < value < math.inf), None)
        if wrong is not None:
            raise ValueError(f"Expected millijoules as finite numbers above 0, got {wrong}. Measure again.")

    @staticmethod
    def measure(
        network: Traced,
        *,
        file: str | Path | None = None,
        structures: int = 8,
        batch_size: int = 1,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> EnergyTable:
        """Measure structures of a network from the narrowest to the full one, by the processor's own counters.

        Linux only, where `/sys/class/powercap` tells what the processor's packages take (RAPL). All that runs on the
        machine is counted, so nothing else should.

        Args:
            network: A traced network.
            file: Where the table is kept; one that is there is read, and nothing is measured.
            structures: How many to measure, at least 4.
            batch_size: Images per forward.
            on_progress: Called with the numbers of structures done and wanted.

        Raises:
            ValueError: The machine does not tell its energy, or not to this user.
        """
        measure = resolve({"measure": "prunesearch.evaluators.energy:measure"}, "measure", "function")
        place = None if file is None else Path(file)
        if place is not None and place.exists():
            return EnergyTable.load(place)
        table: EnergyTable = measure(network, structures=structures, batch_size=batch_size, on_progress=on_progress)
        if place is not None:
            write_text(place, json.dumps(asdict(table), indent=1))
        return table

    @staticmethod
    def load(file: str | Path) -> EnergyTable:
        """Read the file of `measure`.

        Raises:
            ValueError: It is none.
        """
        try:
            plain = json.loads(Path(file).read_text())
            return EnergyTable(
                groups=tuple((str(name), int(width)) for name, width in plain["groups"]),
                structures=tuple(tuple(map(int, structure)) for structure in plain["structures"]),
                millijoules=tuple(map(float, plain["millijoules"])),
                processor=str(plain["processor"]),
                batch_size=int(plain["batch_size"]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no energy table of EnergyTable.measure(network, file=...): {error}") from error

    @property
    def fingerprint(self) -> str:
        """Hash of everything in the table."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Energy:
    """What one forward takes, by an energy table.

    Attributes:
        table: The table, or the path of its file.

    Raises:
        ValueError: There is no table.
    """

    table: EnergyTable

    name = "energy_mj"
    unit = "mJ"
    is_count = False

    def __post_init__(self) -> None:
        if isinstance(self.table, (str, Path)):
            object.__setattr__(self, "table", EnergyTable.load(self.table))
        if not isinstance(self.table, EnergyTable):
            raise ValueError(
                "Expected energy_mj and table together, got no table of energies. A table may be the path of its file, "
                "which EnergyTable.measure(network, file=...) makes where the machine tells its energy."
            )

    @property
    def basis(self) -> str:
        """What predictions are made from, in words."""
        return f"energy table {self.table.fingerprint}"

    def meter(self, subject: Subject) -> EnergyMeter:
        """Predicts by the table; see `Resource`.

        Raises:
            ValueError: The table is of another network.
        """
        space = space_of(subject)
        known = tuple((group.name, group.width) for group in space.groups)
        if known != self.table.groups:
            raise ValueError("The energy table was measured for another network: its groups of channels are others.")
        return EnergyMeter(self.table, space)


class EnergyMeter:
    """Energy as a non-negative sum: a constant, so much per MAC, and so much per parameter.

    Fitted to the relative errors of what was measured.
    """

    def __init__(self, table: EnergyTable, space: Space) -> None:
        self._space = space
        measured = np.array(table.millijoules)
        features = self._features(np.array(table.structures, dtype=np.int64))
        self._coefficients = _non_negative(features / measured[:, None])
        errors = features @ self._coefficients / measured - 1.0
        freedom = max(1, len(measured) - int((self._coefficients > 0).sum()))
        self.relative_error = float(np.sqrt((errors**2).sum() / freedom))

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) millijoules; see `Meter`."""
        found: FloatArray = self._features(np.asarray(structures, dtype=np.int64)) @ self._coefficients
        return found

    def costs_with(self, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> npt.NDArray[Any]:
        """(m,) millijoules; see `Meter`."""
        macs, params = (self._space.costs_with(name, structure, groups, widths) for name in ("macs", "params"))
        found: FloatArray = _features(macs, params) @ self._coefficients
        return found

    def quadratic(self) -> FloatArray:
        """Exact for what is predicted; see `Meter`."""
        matrix = self._coefficients[1] * self._space.quadratic("macs")
        matrix += self._coefficients[2] * self._space.quadratic("params")
        matrix[0, 0] += self._coefficients[0]
        return matrix

    def _features(self, structures: npt.NDArray[np.int64]) -> FloatArray:
        return _features(self._space.macs(structures), self._space.params(structures))


def _features(macs: IntArray, params: IntArray) -> FloatArray:
    """(p, 3) what an energy is a sum of."""
    return np.stack([np.ones(len(macs)), macs.astype(np.float64), params.astype(np.float64)], axis=1)


def _non_negative(features: FloatArray) -> FloatArray:
    """Coefficients >= 0 whose sum is nearest to one for each row: the best of all subsets of the columns."""
    best, least = np.zeros(features.shape[1]), np.inf
    for subset in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        scale = np.abs(features[:, subset]).max(axis=0)
        found = np.linalg.lstsq(features[:, subset] / scale, np.ones(len(features)), rcond=None)[0] / scale
        error = float(((features[:, subset] @ found - 1.0) ** 2).sum())
        if (found >= 0).all() and error < least - 1e-12:
            best, least = np.zeros(features.shape[1]), error
            best[subset] = found
    return best
