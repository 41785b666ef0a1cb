"""The table of recovery.py: who ends with the most accurate network after a short finetuning, and what it takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import over_seeds, percent

_REFERENCE = "fastnas"
_SHOWN = {
    "ours": "**ours**: the default search, the unpruned network as teacher",
    "ours-longer": "**ours**, trained for longer",
    "ours-untaught": "the default search, no teacher",
    "fastnas": "ModelOpt FastNAS",
    "fastnas-taught": "ModelOpt FastNAS, with the teacher",
    "uniform": "uniform, L1",
    "uniform-taught": "uniform, L1, with the teacher",
    "global-l1": "L1, one order over all layers",
    "scratch": "uniform structure from scratch",
}


def table(result: Mapping[str, Any]) -> str:
    """A line per arm, the most accurate first; its distance from FastNAS is of equal seeds."""
    arms: dict[str, dict[int, Mapping[str, Any]]] = {}
    for cell in result["cells"].values():
        arms.setdefault(cell["arm"], {})[cell["seed"]] = cell
    lines = [
        "| | epochs | before | test accuracy | beside FastNAS | MACs | CPU-seconds: search | training | all | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rows = {arm: [cell["row"] for cell in cells.values()] for arm, cells in arms.items()}
    for arm in sorted(arms, key=lambda arm: -statistics.mean(row["test"]["accuracy"] for row in rows[arm])):
        found, some = rows[arm], next(iter(arms[arm].values()))
        before = percent([row["before"]["accuracy"] for row in found])
        macs = statistics.mean(row["macs"] for row in found) / some["facts"]["full macs"]
        search, training = (statistics.mean(row["seconds"][part] for row in found) for part in ("search", "training"))
        accuracy = percent([row["test"]["accuracy"] for row in found], digits=2)
        taken = f"{search:.0f} | {training:.0f} | {search + training:.0f} | {len(found)}"
        epochs = found[0]["epochs"]
        lines.append(
            f"| {_SHOWN[arm]} | {epochs} | {'' if arm == 'scratch' else before} | {accuracy} | "
            f"{_beside(arms[arm], arms.get(_REFERENCE, {}))} | {macs:.1%} | {taken} |"
        )
    facts = next(iter(result["cells"].values()))["facts"]
    spread = over_seeds([len(found) for found in rows.values()], "standard deviation")
    note = (
        f"{spread.capitalize()}; of the difference, its standard error. Unpruned: "
        f"{facts['unpruned']['accuracy']:.2%}, {facts['full macs']:,} MACs; limit {facts['limit']}. Searched on "
        f"{facts['search images']:,} images, trained on {facts['train images']:,}, judged on "
        f"{facts['test images']:,} test images; *before* is the accuracy on unseen training images after pruning. "
        f"CPU-seconds of one thread, beside other work. {facts['machine']}, prunesearch "
        f"{facts['versions']['prunesearch']}, torch {facts['versions']['torch']}."
    )
    return "\n".join([*lines, "", note])


def _beside(cells: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]) -> str:
    """Mean difference of the test accuracy in points over the seeds of both; cells of a seed are of one network."""
    both = sorted(set(cells) & set(others))
    if not both or cells is others:
        return ""
    differences = []
    for seed in both:
        mine, theirs = cells[seed], others[seed]
        if mine["facts"]["network"] != theirs["facts"]["network"]:
            raise ValueError(f"Cells of {mine['arm']} and {theirs['arm']} with seed {seed} are of other networks.")
        differences.append(100 * (mine["row"]["test"]["accuracy"] - theirs["row"]["test"]["accuracy"]))
    return f"{statistics.mean(differences):+.2f}{_error(differences)}"


def _error(values: Sequence[float]) -> str:
    return f" ± {statistics.stdev(values) / math.sqrt(len(values)):.2f}" if len(values) > 1 else ""
