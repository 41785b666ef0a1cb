"""Cells of a benchmark, an arm and a number each (`ARM.NUMBER`), every one a file of its own that is measured once."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks
import torch

import prunesearch as ps


@dataclass(frozen=True)
class Grid:
    """The cells of a benchmark: each of its arms with each of some numbers.

    Attributes:
        arms: By name.
        numbers: Seeds, or shares.
        named: What the name of a single cell looks like, for messages.
    """

    arms: Collection[str]
    numbers: Sequence[int]
    named: str

    def chosen(self, names: Sequence[str]) -> list[str]:
        """All cells of arms, and single ones, number by number.

        Raises:
            SystemExit: There is neither an arm nor a cell of a name.
        """
        cells = [f"{arm}.{number}" for number in self.numbers for arm in self.arms]
        unknown = [name for name in names if name not in self.arms and name not in cells]
        if unknown:
            raise SystemExit(f"Expected arms ({', '.join(self.arms)}) or {self.named}, got {unknown[0]}.")
        return [cell for cell in cells if cell in names or cell.rpartition(".")[0] in names]


def conditions(**packages: str) -> dict[str, Any]:
    """On what machine, and with what, a cell is measured."""
    return {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {"prunesearch": ps.__version__, "torch": torch.__version__, **packages},
    }


def seconds_of_all(seconds: float, done: int, wanted: int) -> float:
    """Of a training that may have gone on where it was killed: what all its steps took, by those that ran now."""
    return seconds / max(1, done) * wanted


def stored(cell: str, out: Path, facts: Mapping[str, Any], same: Sequence[str]) -> Mapping[str, Any] | None:
    """A cell as its file has it; None if it is empty.

    Args:
        cell: Which.
        out: Folder of the files.
        facts: What cells are measured on and with now.
        same: Those of the facts that the cells of one folder must share.

    Raises:
        SystemExit: It was measured with other facts.
    """
    file = out / f"{cell}.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    other = [name for name in same if found["facts"][name] != facts[name]]
    if other:
        raise SystemExit(f"{file.name} was measured with another {' and '.join(other)}; give another --out.")
    return found


def fill(
    cells: Sequence[str],
    out: Path,
    facts: Mapping[str, Any],
    same: Sequence[str],
    measure: Callable[[str, int], tuple[Mapping[str, Any], str]],
) -> None:
    """Measure all cells that are empty.

    Args:
        cells: Which.
        out: Folder of their files, made if it is not there.
        facts: What they are measured on and with.
        same: Those of the facts that the cells of one folder must share.
        measure: Of an arm and a number, what was found, and what to print of it.

    Raises:
        SystemExit: A cell that is there was measured with other facts.
    """
    out.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        if stored(cell, out, facts, same) is not None:
            continue
        arm, _, number = cell.rpartition(".")
        found, says = measure(arm, int(number))
        tasks.save({"arm": arm, **found, "facts": facts}, out / f"{cell}.json")
        print(f"{cell}: {says}", flush=True)
