"""The tables of racing.py: what searches are worth on images that they did not see, and what they take."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from racing import ARMS, TOLD

from tabulated.recovery import places, title
from tabulated.summaries import network_of, software, unmeasured

RISE = 0.02
"""By how much the loss on unseen images may rise with more structures."""

Rows = Mapping[int, Mapping[str, Any]]
"""What one search measured, by number of structures."""


def table(result: Mapping[str, Any]) -> str:
    """Searches of the public ResNet-20."""
    note = _note(result, "A public ResNet-20 adapted to CIFAR-10 as JPEG images")
    names = (
        "A name ends in the images that score each structure, or in `race` where only the best see all. Uniform widths "
        "go in large steps; only those of `uniform-filled` are filled up to the limit."
    )
    return f"{_lines(result)}\n\n{note} {names}{_missing(result, ARMS)}"


def tables(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Of other networks: for each and its share of the MACs a table, and how often came true what was expected."""
    blocks = []
    for place, result in places(results):
        name = title(*place)
        said = f"{_expected(result)}\n\n{_note(result, name)}{_missing(result, TOLD)}"
        blocks.append(f"**{name}**\n\n{_lines(result)}\n\n{said}")
    return "\n\n".join(blocks)


def _lines(result: Mapping[str, Any]) -> str:
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
    return "\n".join(lines)


def _expected(result: Mapping[str, Any]) -> str:
    """In how many seeds came true what racing.py registers."""
    arms: dict[str, dict[int, Rows]] = {}
    for cell in result["cells"].values():
        arms.setdefault(cell["arm"], {})[cell["seed"]] = {row["evaluations"]: row for row in cell["rows"]}
    ours, uniform, random = (arms.get(name, {}) for name in ("surrogate-race", "uniform-filled", "random-race"))
    below_uniform = [_below(ours[seed][100], uniform[seed][1]) for seed in _both(ours, uniform)]
    as_long = {seed: _as_long(random[seed], ours[seed]) for seed in _both(ours, random)}
    below_random = [_below(ours[seed][100], row) for seed, row in as_long.items() if row is not None]
    steady = [rows[400]["loss"] <= rows[100]["loss"] + RISE for rows in ours.values()]
    return (
        f"The loss after 100 structures of `surrogate-race` is below that of `uniform-filled` "
        f"{_in_seeds(below_uniform)} and below that of `random-race` at equal or more CPU-seconds "
        f"{_in_seeds(below_random)}; after 400 it is at most {RISE} above that after 100 {_in_seeds(steady)}."
    )


def _both(one: Iterable[int], other: Iterable[int]) -> list[int]:
    return sorted(set(one) & set(other))


def _below(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one["loss"] < other["loss"])


def _as_long(rows: Rows, ours: Rows) -> Mapping[str, Any] | None:
    """The first number of structures that took as long as 100 of ours; None if none did."""
    seconds = ours[100]["seconds"]["cpu"]
    return next((row for _, row in sorted(rows.items()) if row["seconds"]["cpu"] >= seconds), None)


def _in_seeds(true: Sequence[bool]) -> str:
    return f"in {sum(true)} of {len(true)} seeds"


def _cpu_seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    return statistics.mean(row["seconds"]["cpu"] for row in rows)


def _spread(values: Sequence[float]) -> str:
    """Median, lowest and highest; of one value that alone."""
    around = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.3f}{around}"


def _note(result: Mapping[str, Any], network: str) -> str:
    cells = list(result["cells"].values())
    facts, seeds = cells[0]["facts"], [cell["arm"] for cell in cells]
    counts = [seeds.count(arm) for arm in set(seeds)]
    few = "" if min(counts) == max(counts) else f"{min(counts)} to "
    over = "one seed" if max(counts) == 1 else f"median (lowest to highest) of {few}{max(counts)} seeds"
    return (
        f"Loss and accuracy: {over}. {network}, limit {facts['limit']} of {facts['full macs']:,}; unpruned loss "
        f"{cells[0]['rows'][0]['unpruned loss']:.3f}. Searched on {facts['search images']:,} images, judged on "
        f"{facts['unseen images']:,} others that no search saw, with inherited weights and statistics of the images "
        f"searched on. CPU-seconds of the search in one thread, beside other work. {network_of(facts)} "
        f"{software(facts)}"
    )


def _missing(result: Mapping[str, Any], arms: Iterable[str]) -> str:
    measured = {cell["arm"] for cell in result["cells"].values()}
    return unmeasured(arm for arm in arms if arm not in measured)
