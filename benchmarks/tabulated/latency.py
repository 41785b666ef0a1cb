"""The tables of latency.py: predicted against measured, and winners under limits."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import tau


def table(result: Mapping[str, Any]) -> str:
    """How far predicted latencies are from measured ones, then winners under limits on latency and on MACs."""
    lines = [
        "| network, backend | structures | table: error, median and 95th percentile | tau | proportional to MACs | tau "
        "| measured again | tau |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    met = {"median error under 5%": 0, "95th percentile under 10%": 0, "tau at least 0.95": 0}
    for name, row in result["predict"].items():
        one, other = row["rounds"][-2:]
        truth = [statistics.median(times) for times in zip(*row["rounds"], strict=True)]
        cells = [
            f"{_errors(values, known)} | {tau(values, known):.2f}"
            for values, known in ((row["predicted"], truth), (row["by macs"], truth), (one, other))
        ]
        lines.append(f"| {name} | {len(truth)} | {' | '.join(cells)} |")
        median, most = _median_and_most(row["predicted"], truth)
        reached = (median < 0.05, most < 0.1, tau(row["predicted"], truth) >= 0.95)
        met = {aim: n + yes for (aim, n), yes in zip(met.items(), reached, strict=True)}
    facts, rows = result["facts"], list(result["predict"].values())
    low, high = min(row["drift"][0] for row in rows), max(row["drift"][2] for row in rows)
    note = (
        f"One table and one set of structures per row, timed in {len(rows[0]['rounds'])} rounds; the median counts. "
        "Batch size 1, one thread of "
        f"{rows[0]['conditions']['processor']}, torch {facts['torch']}. Between the 5th and the 95th percentile the "
        f"reference kernel took {low:.2f} to {high:.2f} times its median while the tables were measured: the machine "
        "was not at rest."
    )
    aims = "; ".join(f"{aim} in {n} of {len(rows)} rows" for aim, n in met.items())
    note += f" Aims met: {aims}."
    timed = [
        (name, row) for name, row in result["search"].items() if all("ms" in cell for cell in row["cells"].values())
    ]
    return "\n\n".join(["\n".join([*lines, "", note]), *map(_limits, timed)])


def _limits(search: tuple[str, Mapping[str, Any]]) -> str:
    name, row = search
    lines = [
        f"**{name}**, unpruned {row['unpruned ms']:.2f} ms",
        "",
        "| limit on | measured ms | MACs | loss | test accuracy | after a short finetune | seeds | within the limit |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for key, cell in row["cells"].items():
        kinds.setdefault(key.rpartition(" ")[0], []).append(cell)
    for kind, cells in kinds.items():
        columns = ("ms", "macs", "loss", "accuracy", "finetuned")
        means = {what: statistics.mean(cell[what] for cell in cells) for what in columns}
        lines.append(
            f"| {kind} | {means['ms']:.2f} | {means['macs'] / 1e6:.1f} M | {means['loss']:.3f} "
            f"| {means['accuracy']:.2%} | {means['finetuned']:.2%} | {len(cells)} "
            f"| {sum(cell['holds'] for cell in cells)} of {len(cells)} |"
        )
    return "\n".join(lines)


def _errors(values: Sequence[float], truth: Sequence[float]) -> str:
    median, most = _median_and_most(values, truth)
    return f"{median:.1%}, {most:.1%}"


def _median_and_most(values: Sequence[float], truth: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile of relative errors."""
    off = [abs(value / known - 1) for value, known in zip(values, truth, strict=True)]
    return statistics.median(off), statistics.quantiles(off, n=20, method="inclusive")[-1]
