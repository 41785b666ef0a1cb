"""Write the measured tables of the documentation anew from the committed results.

    python benchmarks/tables.py           # rewrite
    python benchmarks/tables.py --check   # only say whether something is out of date (exit status 1)

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and comes from `benchmarks/results/NAME.json`, or from
the cells in the folder `NAME`, through its function in `TABLES` (`FOLDERS` has tables of several folders); `<!-- table:
NAME of ROW -->` takes what concerns one row through that in `EXCERPTS`. The functions are in `tabulated`. Nothing
between the marks is typed by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tabulated import (
    coverage,
    criteria,
    demo,
    detectors,
    evaluator,
    fidelity,
    generated,
    gpu,
    halving,
    latency,
    methods,
    natural,
    papers,
    pilot,
    policies,
    policies_cifar10,
    pruningnet,
    racing,
    recovery,
    recovery_tasks,
    searchers,
    studies,
    training,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "actors": policies.actors,
    "coverage": coverage.table,
    "criteria": criteria.table,
    "demo": demo.table,
    "demo_budget": demo.budgets,
    "detector_speed": detectors.speed,
    "detectors_unet": detectors.table,
    "detectors_yolo": detectors.table,
    "dynamic_speed": training.dynamic_speed,
    "evaluator": evaluator.table,
    "latency": latency.table,
    "faults": studies.faults,
    "fidelity": fidelity.table,
    "fidelity_camvid": fidelity.table,
    "fidelity_bccd": fidelity.table,
    "finetune": training.finetune,
    "generated": generated.table,
    "gpu": gpu.table,
    "halving": halving.table,
    "methods": methods.tables,
    "natural": natural.table,
    "papers": papers.papers,
    "pilot": pilot.table,
    "policies": policies.policies,
    "policies_cifar10": policies_cifar10.table,
    "pruningnet": pruningnet.table,
    "racing": racing.table,
    "racing_networks": racing.tables,
    "recovery": recovery.tables,
    "recovery_summary": recovery.summary,
    "recovery_tasks": recovery_tasks.table,
    "recovery_tasks_yolo": recovery_tasks.table,
    "scoring_speed": evaluator.speed,
    "searchers": searchers.table,
    "studies": studies.studies,
    "trace_speed": coverage.speed,
    "training_methods": training.training_methods,
}
FOLDERS: Mapping[str, str] = {
    "methods": "methods_*",
    "racing_networks": "racing_*_[0-9]*",
    "recovery": "recovery_*_[0-9]*",
    "recovery_summary": "recovery_*_[0-9]*",
}
"""Of tables that come from several folders of cells: what the names of these look like."""

MISSING: Mapping[str, str] = {
    "gpu": "**Nothing here has been measured on a GPU yet.** All of it ran on CPUs, and on a simulated device that "
    "refuses tensors of another device.",
    "detectors_unet": "",
    "detectors_yolo": "",
    "recovery_tasks": "",
    "recovery_tasks_yolo": "",
}
"""What stands in place of tables without results, where that is more than that they were not measured."""

EXCERPTS: Mapping[str, Callable[[Mapping[str, Any], str], str]] = {
    "criteria": criteria.excerpt,
    "detectors_yolo": detectors.excerpt,
    "searchers": searchers.excerpt,
}


def measured(name: str) -> Mapping[str, Any] | None:
    """Results from their file, or cells from the files of their folder or folders; None if there are none."""
    file, folder = RESULTS / f"{name}.json", RESULTS / name
    if file.exists():
        return json.loads(file.read_text())
    if name in FOLDERS:
        folders = (each for each in sorted(RESULTS.glob(FOLDERS[name])) if each.is_dir())
        return {each.name.partition("_")[2]: {"cells": cells_in(each)} for each in folders} or None
    cells = cells_in(folder)
    return {"cells": cells} if cells else None


def cells_in(folder: Path) -> dict[str, Any]:
    """Those that were measured, by name."""
    return {cell.stem: json.loads(cell.read_text()) for cell in sorted(folder.glob("*.json"))}


def render(text: str) -> str:
    """Return a page with every table between its marks written anew."""

    def replace(match: re.Match[str]) -> str:
        name, row = match[1], match[2]
        result = measured(name)
        if result is None:
            table = MISSING.get(name, "Not measured yet.")
        else:
            table = TABLES[name](result) if row is None else EXCERPTS[name](result, row)
        return f"<!-- table: {name}{'' if row is None else f' of {row}'} -->\n\n{table}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+)(?: of (\w+))? -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main() -> int:
    """Rewrite every page, or check them."""
    stale = [page for page in PAGES if render(page.read_text()) != page.read_text()]
    if "--check" in sys.argv:
        for page in stale:
            sys.stderr.write(f"{page.name} is out of date; run: make readme\n")
        return 1 if stale else 0
    for page in stale:
        page.write_text(render(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
