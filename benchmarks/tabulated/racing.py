"""The table of racing.py: what searches are worth on images that they did not see, and what they take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import over_seeds


def table(result: Mapping[str, Any]) -> str:
    """A line per arm, the quickest first."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for cell in result["cells"].values():
        arms.setdefault(cell["arm"], []).append(cell)
    lines = [
        "| search | loss on unseen images | accuracy | structures | MACs | CPU-seconds | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for arm, cells in sorted(arms.items(), key=lambda row: _cpu_seconds(row[1])):
        loss, accuracy = (_spread([cell[kind] for cell in cells]) for kind in ("loss", "accuracy"))
        structures = statistics.mean(cell["evaluations"] for cell in cells)
        macs = statistics.mean(cell["macs"] / cell["facts"]["full macs"] for cell in cells)
        taken = f"{structures:.0f} | {macs:.1%} | {_cpu_seconds(cells):.0f} | {len(cells)}"
        lines.append(f"| {arm} | {loss} | {accuracy} | {taken} |")
    return "\n".join([*lines, "", _note(next(iter(result["cells"].values())), list(map(len, arms.values())))])


def _cpu_seconds(cells: Sequence[Mapping[str, Any]]) -> float:
    return statistics.mean(cell["seconds"]["cpu"] for cell in cells)


def _spread(values: Sequence[float]) -> str:
    """Mean and standard error; of one value no error."""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{error}"


def _note(cell: Mapping[str, Any], counts: Sequence[int]) -> str:
    facts = cell["facts"]
    return (
        f"Loss and accuracy: {over_seeds(counts, 'standard error')}. A public ResNet-20 adapted to CIFAR-10 as JPEG "
        f"images, limit {facts['limit']} of {facts['full macs']:,}; unpruned loss {cell['unpruned loss']:.3f}. "
        f"Searched on {facts['search images']:,} images, judged on {facts['unseen images']:,} others that no search "
        "saw, with inherited weights and statistics of the images searched on. A name ends in structures x images that "
        "score each. CPU-seconds of the search in one thread, beside other work. "
        f"{facts['machine']}, prunesearch {facts['versions']['prunesearch']}, torch {facts['versions']['torch']}."
    )
