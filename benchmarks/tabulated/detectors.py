"""The tables of detectors.py: what searches for detectors and segmenters are worth, beside other ways to one limit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tabulated.summaries import over_seeds, percent, software, unmeasured, with_error

Cells = Mapping[int, Mapping[str, Any]]
MARGIN = 0.005
"""How far below the best arm is a tie."""

SHARES, _SEEDS = (70, 50, 30), 3
"""Shares of the MACs and seeds of the benchmark; before all are there, no verdict is given."""

_EXPECTED: Mapping[int, Mapping[str, tuple[float, float]]] = {
    70: {"uniform": (-1.0, 1.0), "resolution": (0.0, math.inf)},
    50: {"sibling": (1.0, math.inf), "scratch": (1.0, math.inf), "resolution": (0.0, math.inf)},
    30: {"uniform": (1.0, math.inf), "resolution": (0.0, math.inf)},
}
"""By share and arm, how many points ours would be ahead: what detectors.py registers beside the best arm."""

_OURS = "ours"
_OF = {"yolo": "A YOLOv8n of ultralytics on blood cells (BCCD)", "unet": "A small U-Net on streets (CamVid)"}
_SHOWN = {
    "base": "unpruned",
    _OURS: "**ours**: the default search, refitted weights",
    "uniform": "uniform, refitted weights",
    "l1-global": "L1, one order over all layers, refitted weights",
    "torch-pruning": "Torch-Pruning, L1 over all layers",
    "resolution": "unpruned, on fewer pixels",
    "sibling": "smaller sibling, from random weights",
    "scratch": "the structure of ours, from random weights",
}


def table(result: Mapping[str, Any], shares: Sequence[int] = SHARES) -> str:
    """A line per share of the MACs and arm; differences are of equal seeds, which have one unpruned network.

    Empty while no arm was measured.

    Args:
        result: The cells.
        shares: Those whose arms are missed where they have none.
    """
    arms: dict[str, dict[int, Mapping[str, Any]]] = {}
    for cell in result["cells"].values():
        arms.setdefault(cell["arm"].replace("-base", "-100-base"), {})[cell["seed"]] = cell
    if all(arm.endswith("-base") for arm in arms):
        return ""
    some = next(iter(result["cells"].values()))
    facts, name = some["facts"], some["arm"].partition("-")[0]
    lines = [
        f"| share of the MACs | | {facts['metric']} | ours ahead by | MACs | epochs "
        "| CPU-seconds: search | training | seeds |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    said = []
    for share in sorted({int(arm.split("-")[1]) for arm in arms}, reverse=True):
        found = {way: arms[arm] for way in _SHOWN if (arm := f"{name}-{share}-{way}") in arms}
        lines += [_line(share, way, cells, found.get(_OURS, {})) for way, cells in found.items()]
        said += _verdicts(share, found)
    counts = [len(cells) for cells in arms.values()]
    spread = over_seeds(counts, "standard deviation").capitalize()
    errors = "; of differences, in points, the standard error" if max(counts) > 1 else "; differences in points"
    height, width = facts["size"]
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    note = (
        f"{_OF[name]} at {height} x {width} pixels. {facts['metric']} in per cent, on test images. "
        f"{spread}{errors}. The unpruned network is trained for {facts['first']} "
        f"epochs, and what is pruned of it for {facts['more']} more; searches score {facts['trials']} structures. "
        f"CPU-seconds of one thread, beside other work. {facts['machine']}, {versions}."
    )
    note += unmeasured(_missing(name, arms, shares))
    return "\n".join([*lines, "", *([" ".join(said), ""] if said else []), note])


def excerpt(result: Mapping[str, Any], share: str) -> str:
    """The same of one share of the MACs."""
    some = {name: cell for name, cell in result["cells"].items() if cell["arm"].split("-")[1] in ("base", share)}
    return table({**result, "cells": some}, (int(share),))


def speed(result: Mapping[str, Any]) -> str:
    """Of detector_speed.py: how long the structures of each search take to be scored."""
    lines = ["| searcher, score | structures | images scored | seconds | CPU-seconds |", "|---|---:|---:|---:|---:|"]
    for way, row in result["rows"].items():
        lines.append(f"| {way} | {row['structures']} | {row['images']:,} | {row['wall']:.0f} | {row['cpu']:.0f} |")
    facts = result["facts"]
    note = (
        f"Searches of a YOLOv8n at {facts['pixels']} pixels and half of its MACs, without tracing and finetuning. "
        f"{facts['threads']} threads. {software(facts)}"
    )
    return "\n".join([*lines, "", note])


def _missing(name: str, arms: Collection[str], shares: Sequence[int]) -> Iterator[str]:
    """Shares of which no arm has a cell, and of others the arms that have none."""
    for share in shares:
        left = [way for way in _SHOWN if way != "base" and f"{name}-{share}-{way}" not in arms]
        if len(left) == len(_SHOWN) - 1:
            yield f"{share}% of the MACs"
        elif left:
            yield f"{share}% ({', '.join(left)})"


def _line(share: int, way: str, cells: Cells, ours: Cells) -> str:
    rows = _reached(cells)
    if not rows:
        return f"| {share}% | {_SHOWN[way]} | fails | | | | | | {len(cells)} |"
    macs = statistics.mean(row["macs"] / row["full macs"] for row in rows)
    taken = " | ".join(
        f"{statistics.mean(row['seconds'][part] for row in rows):.0f}" for part in ("search", "training")
    )
    reached = percent([row["reached"] for row in rows])
    ahead = "" if way in ("base", _OURS) else _ahead(ours, cells)
    return (
        f"| {share}% | {_SHOWN[way]} | {reached} | {ahead} | {macs:.0%} | {rows[0]['epochs']} | {taken} | {len(rows)} |"
    )


def _reached(cells: Cells) -> list[Mapping[str, Any]]:
    return [cell["row"] for cell in cells.values() if "failure" not in cell["row"]]


def _differences(ours: Cells, others: Cells) -> list[float]:
    """Of the seeds of both.

    Raises:
        ValueError: Cells of one seed are of other unpruned networks.
    """
    found = []
    for seed in sorted(set(ours) & set(others)):
        mine, theirs = ours[seed]["row"], others[seed]["row"]
        if mine["network"] != theirs["network"]:
            raise ValueError(
                f"Cells of {ours[seed]['arm']} and {others[seed]['arm']} with seed {seed} are of other networks."
            )
        if "failure" not in theirs:
            found.append(mine["reached"] - theirs["reached"])
    return found


def _ahead(ours: Cells, others: Cells) -> str:
    points = [100 * value for value in _differences(ours, others)]
    return with_error(points, 1) if points else ""


def _verdicts(share: int, found: Mapping[str, Cells]) -> list[str]:
    """Whether the aim is met, once there are all arms with all seeds: it was written down for their means."""
    if any(len(found.get(way, {})) < _SEEDS for way in _SHOWN if way != "base"):
        return []
    others = {way: _differences(found[_OURS], cells) for way, cells in found.items() if way != _OURS}
    means = {way: statistics.mean(values) for way, values in others.items() if values}
    best = min(means, key=lambda way: means[way])
    if means[best] >= 0:
        said = "ours is the best arm"
    elif means[best] >= -MARGIN:
        said = f"ours is tied with the best arm ({best}; margin {100 * MARGIN:.1f} points)"
    else:
        said = f"ours is {-100 * means[best]:.1f} points below the best arm ({best})"
    came = {way: low <= 100 * means[way] <= high for way, (low, high) in _EXPECTED[share].items()}
    told = [
        f"Its distance from {' and '.join(ways)} is {says}."
        for says, is_so in (("as expected", True), ("not as expected", False))
        if (ways := [f"`{way}`" for way, true in came.items() if true is is_so])
    ]
    return [f"At {share}% {said}.", *told]
