"""Write the measured tables of the documentation anew from the committed results.

    python benchmarks/tables.py           # rewrite
    python benchmarks/tables.py --check   # only say whether something is out of date (exit status 1)

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and comes from `benchmarks/results/NAME.json`, or from
the cells in the folder `NAME`, through its function in `TABLES` (`SOURCES` has other files); `<!-- table: NAME of ROW
-->` takes what concerns one row through that in `EXCERPTS`. The functions are in `tabulated`. Nothing between the marks
is typed by hand.
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
    evaluator,
    evidence,
    fidelity,
    gpu,
    latency,
    natural,
    papers,
    policies,
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
    "dynamic_speed": training.dynamic_speed,
    "end_to_end": evidence.end_to_end,
    "evaluator": evaluator.table,
    "evidence": evidence.evidence,
    "latency": latency.table,
    "faults": studies.faults,
    "fidelity": fidelity.table,
    "fidelity_camvid": fidelity.table,
    "fidelity_bccd": fidelity.table,
    "finetune": training.finetune,
    "gpu": gpu.table,
    "natural": natural.table,
    "papers": papers.papers,
    "policies": policies.policies,
    "pruningnet": pruningnet.table,
    "racing": racing.table,
    "recovery_resnet20_50": recovery.table,
    "recovery_tasks": recovery_tasks.table,
    "searchers": searchers.table,
    "studies": studies.studies,
    "trace_speed": coverage.speed,
    "training_methods": training.training_methods,
}
SOURCES: Mapping[str, str] = {"evidence": "end_to_end"}
"""Results of tables that do not have their own."""

MISSING: Mapping[str, str] = {
    "gpu": "**Nothing here has been measured on a GPU yet.** All of it ran on CPUs, and on a simulated device that "
    "refuses tensors of another device."
}
"""What stands in place of tables without results, where that is more than that they were not measured."""

EXCERPTS: Mapping[str, Callable[[Mapping[str, Any], str], str]] = {
    "criteria": criteria.excerpt,
    "searchers": searchers.excerpt,
}


def measured(name: str) -> Mapping[str, Any] | None:
    """Results from their file, or a cell from each file of their folder; None if there are none."""
    file, folder = RESULTS / f"{name}.json", RESULTS / name
    if file.exists():
        return json.loads(file.read_text())
    cells = {cell.stem: json.loads(cell.read_text()) for cell in sorted(folder.glob("*.json"))}
    return {"cells": cells} if cells else None


def render(text: str) -> str:
    """Return a page with every table between its marks written anew."""

    def replace(match: re.Match[str]) -> str:
        name, row = match[1], match[2]
        result = measured(SOURCES.get(name, name))
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
