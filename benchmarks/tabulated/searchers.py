"""The tables of searchers.py: regret on landscapes whose best structure is known, and whole searches."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import over_seeds, quartiles


def table(result: Mapping[str, Any]) -> str:
    """Regret after 50, 100 and 200 evaluations, on landscapes whose best structure is known; then whole searches."""
    facts, blocks = result["facts"], []
    for place, row in result["rows"].items():
        about = row["landscape"]
        lines = [
            "| searcher | regret after 50 | 100 | 200 | a top 0.5% structure in 100 | evaluations | ms per proposal |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for name, cells in row["searchers"].items():
            regrets = [quartiles([cell["regret"][i] for cell in cells]) for i in range(3)]
            hits = sum(cell["top after"] is not None and cell["top after"] <= 100 for cell in cells)
            taken = statistics.median(cell["evaluations"] for cell in cells)
            own = 1e3 * statistics.median(cell["seconds per proposal"] for cell in cells)
            lines.append(f"| {name} | {' | '.join(regrets)} | {hits} of {len(cells)} | {taken:.0f} | {own:.1f} |")
        head = f"**{place}**: {about['within the budget']:,} of {about['structures']:,} structures within the budget"
        blocks.append("\n".join([head, "", *lines]))
    most = max(len(cells) for row in result["rows"].values() for cells in row["searchers"].values())
    seeds = (
        "Median (quartiles) over the seeds; deterministic searchers give the same for all" if most > 1 else "One seed"
    )
    note = (
        f"{seeds}. Tables: every structure "
        f"scored once, {facts['images']} images of {facts['data']}, networks trained for {facts['epochs']} epochs of "
        f"{facts['train_images']:,} images; budgets are shares of the MACs, of the synthetic ones 40%."
    )
    blocks.append(note)
    for network, cells in result.get("searches", {}).items():
        blocks.append(_searches(network, cells))
    return "\n\n".join(blocks)


def excerpt(result: Mapping[str, Any], searcher: str) -> str:
    """One searcher's regret on every landscape, with random structures and the best searcher beside."""
    lines = [
        "| landscape | regret after 50 | 100 | 200 | random, 200 | lowest of all, 200 | seconds per proposal |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for place, row in result["rows"].items():
        for name, cells in row["searchers"].items():
            if name == searcher or name.startswith(f"{searcher}-"):
                at = {other: _median_regret(found, 2) for other, found in row["searchers"].items()}
                best = min(at.values())
                first = [other for other in at if at[other] - best < 5e-4]
                who = first[0] if len(first) == 1 else f"{len(first)} searchers"
                own = statistics.median(cell["seconds per proposal"] for cell in cells)
                regrets = " | ".join(f"{_median_regret(cells, i):.3f}" for i in range(3))
                where = place if name == searcher else f"{place}, `{name}`"
                lines.append(f"| {where} | {regrets} | {at['random']:.3f} | {best:.3f} ({who}) | {own:.3f} |")
    if len(lines) == 2:
        return f"`{searcher}` is not in these measurements yet."
    note = (
        "Medians over the seeds of `python benchmarks/searchers.py`: 0 is the best structure within the budget, 1 no "
        "better than the median one. A searcher that ended before has the regret that it ended with."
    )
    return "\n".join([*lines, "", note])


def _searches(network: str, cells: Mapping[str, Any]) -> str:
    loss = over_seeds([len(runs) for runs in cells.values() if runs], "standard deviation")
    lines = [
        f"**Whole searches of {network}**, all widths, 50% of the MACs: loss of the winner on 2,048 images that had no "
        "part in the search, with statistics re-estimated on them.",
        "",
        f"| searcher | loss, {loss} | seeds | evaluations | seconds |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, runs in cells.items():
        if runs:
            losses = [run["loss"] for run in runs]
            deviation = f" ± {statistics.stdev(losses):.3f}" if len(losses) > 1 else ""
            seconds = statistics.median(run["seconds"] for run in runs)
            taken = statistics.median(run["evaluations"] for run in runs)
            mean = f"{statistics.mean(losses):.3f}{deviation}"
            lines.append(f"| {name} | {mean} | {len(runs)} | {taken:.0f} | {seconds:.0f} |")
    return "\n".join(lines)


def _median_regret(cells: Sequence[Mapping[str, Any]], at: int) -> float:
    return float(statistics.median(cell["regret"][at] for cell in cells))
