"""The table of racing.py: what searches are worth on images that they did not see, and what they take."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from racing import ARMS

from tabulated.summaries import network_of, software, unmeasured


def table(result: Mapping[str, Any]) -> str:
    """A line per arm and number of structures, the quickest first."""
    arms: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for cell in result["cells"].values():
        for row in cell["rows"]:
            arms.setdefault((cell["arm"].removesuffix("-long"), row["evaluations"]), []).append({**cell, **row})
    lines = [
        "| search | structures | loss on unseen images | accuracy | images scored | MACs | CPU-seconds | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (arm, structures), rows in sorted(arms.items(), key=lambda item: _cpu_seconds(item[1])):
        loss, accuracy = (_spread([row[kind] for row in rows]) for kind in ("loss", "accuracy"))
        images = statistics.mean(row["images scored"] for row in rows)
        macs = statistics.mean(row["macs"] / row["facts"]["full macs"] for row in rows)
        taken = f"{images:,.0f} | {macs:.1%} | {_cpu_seconds(rows):.0f} | {len(rows)}"
        lines.append(f"| {arm} | {structures} | {loss} | {accuracy} | {taken} |")
    measured = {cell["arm"] for cell in result["cells"].values()}
    return "\n".join([*lines, "", _note(next(iter(arms.values()))[0], list(map(len, arms.values())), measured)])


def _cpu_seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    return statistics.mean(row["seconds"]["cpu"] for row in rows)


def _spread(values: Sequence[float]) -> str:
    """Median, lowest and highest; of one value that alone."""
    around = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.3f}{around}"


def _over(counts: Sequence[int]) -> str:
    if max(counts) == 1:
        return "one seed"
    few = "" if min(counts) == max(counts) else f"{min(counts)} to "
    return f"median (lowest to highest) of {few}{max(counts)} seeds"


def _note(cell: Mapping[str, Any], counts: Sequence[int], measured: Collection[str]) -> str:
    facts = cell["facts"]
    missing = unmeasured(arm for arm in ARMS if arm not in measured)
    return (
        f"Loss and accuracy: {_over(counts)}. A public ResNet-20 adapted to CIFAR-10 as JPEG "
        f"images, limit {facts['limit']} of {facts['full macs']:,}; unpruned loss {cell['unpruned loss']:.3f}. "
        f"Searched on {facts['search images']:,} images, judged on {facts['unseen images']:,} others that no search "
        "saw, with inherited weights and statistics of the images searched on. A name ends in the images that score "
        "each structure, or in `race` where only the best see all. Uniform widths go in large steps, and are not "
        "filled up to the limit here. CPU-seconds of the search in one thread, beside other work. "
        f"{network_of(facts)} {software(facts)}{missing}"
    )
