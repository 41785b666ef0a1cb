"""Cells of a benchmark, an arm and a number each (`ARM.NUMBER`), every one a file of its own that is measured once."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import tasks


def chosen(names: Sequence[str], arms: Container[str], cells: Sequence[str], expected: str) -> list[str]:
    """All cells of arms, and single ones, in the order of `cells`.

    Args:
        names: Of arms or cells.
        arms: All there are.
        cells: All there are.
        expected: What names may be, for the message.

    Raises:
        SystemExit: There is neither an arm nor a cell of a name.
    """
    unknown = [name for name in names if name not in arms and name not in cells]
    if unknown:
        raise SystemExit(f"Expected {expected}, got {unknown[0]}.")
    return [cell for cell in cells if cell in names or cell.rpartition(".")[0] in names]


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
        arm, _, number = cell.rpartition(".")
        file = out / f"{cell}.json"
        if file.exists():
            stored = json.loads(file.read_text())["facts"]
            other = [name for name in same if stored[name] != facts[name]]
            if other:
                raise SystemExit(f"{file.name} was measured with another {' and '.join(other)}; give another --out.")
            continue
        found, says = measure(arm, int(number))
        tasks.save({"arm": arm, **found, "facts": facts}, file)
        print(f"{cell}: {says}", flush=True)
