"""Cells of a benchmark, an arm and a number each (`ARM.NUMBER`), every one a file of its own that is measured once."""

from __future__ import annotations

import json
import platform
import time
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


class Clock:
    """CPU-seconds of a training that goes on after a kill, kept in a file after every step.

    Steps that are done again after a kill count again, and so do their seconds.

    Args:
        file: Where they are kept until the training is over.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        kept = json.loads(file.read_text()) if file.exists() else {"seconds": 0.0, "steps": 0}
        self._seconds, self._steps = float(kept["seconds"]), int(kept["steps"])
        self._last = time.process_time()

    def tick(self) -> None:
        """A step is done."""
        now = time.process_time()
        self._seconds, self._steps, self._last = self._seconds + now - self._last, self._steps + 1, now
        tasks.save({"seconds": self._seconds, "steps": self._steps}, self._file)

    def of_all(self, wanted: int) -> float:
        """What so many steps take.

        Raises:
            SystemExit: No step was seen, so nobody knows.
        """
        if not self._steps:
            raise SystemExit(
                f"Expected {self._file.name}, which says how long the training took that is over; it is not there. "
                f"Move what is left of {self._file.stem} away, and train again."
            )
        return self._seconds / self._steps * wanted

    def done(self) -> None:
        """The training is over, and its seconds are written down elsewhere."""
        self._file.unlink(missing_ok=True)


def check_recipe(weights: Path, recipe: object) -> None:
    """Make sure that trained weights are of a recipe, if a note beside them (`.json`) says of which they are.

    Raises:
        SystemExit: They are of another.
    """
    note = weights.with_suffix(".json")
    told = json.loads(note.read_text()).get("recipe") if note.exists() else None
    if told is not None and told != repr(recipe):
        raise SystemExit(
            f"Expected weights of {recipe!r}, but {weights.name} is of {told}. Move it away to train anew."
        )


def stored(cell: str, out: Path, facts: Mapping[str, Any], same: Sequence[str]) -> Mapping[str, Any] | None:
    """A cell as its file has it; None if it is empty.

    Args:
        cell: Which.
        out: Folder of the files.
        facts: What cells are measured on and with now.
        same: Those of the facts that the cells of one folder must share. A cell that is older than a fact lacks it.

    Raises:
        SystemExit: It was measured with other facts.
    """
    file = out / f"{cell}.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    other = [name for name in same if name in found["facts"] and found["facts"][name] != facts[name]]
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
