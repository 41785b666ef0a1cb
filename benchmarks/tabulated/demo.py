"""The table of `prunesearch demo`, and what its budget was chosen by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def table(result: Mapping[str, Any]) -> str:
    """The table of `prunesearch demo`: one row per searcher, under the unpruned network."""
    facts, rows = result["facts"], result["rows"]
    full = rows[0]
    lines = [
        "| searcher | evaluations | MACs | parameters | accuracy before | after finetuning | search | per image |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        after = "" if row["accuracy_after"] is None else f"{row['accuracy_after']:.2%}"
        seconds = f"{row['search_seconds']:.1f} s" if row["evaluations"] else ""
        costs = " | ".join(f"{row[cost]:,} ({row[cost] / full[cost]:.1%})" for cost in ("macs", "params"))
        lines.append(
            f"| {row['searcher']} | {row['evaluations'] or ''} | {costs} | {row['accuracy_before']:.2%} | {after} "
            f"| {seconds} | {row['ms_per_image']:.3f} ms |"
        )
    note = (
        f"One run (n = 1, seed {facts['seed']}) of `prunesearch demo`: {facts['model']} on {facts['data']}; budget "
        f"{facts['budget']}; up to {facts['n_trials']} evaluations each (`uniform` has a single structure to propose, "
        f"`evolution` runs with a population of {facts['population']}); "
        f"epochs of finetuning: {facts['finetuning']['epochs']}. One of the {facts['test_images']} test images is "
        f"{1 / facts['test_images']:.2%}, and the standard error of an accuracy of {full['accuracy_before']:.0%} is "
        f"{_error(full['accuracy_before'], facts['test_images']):.1%}. "
        f"{facts['cpu_seconds']:.0f} CPU-seconds on one thread of {facts['processor']}, CPU only, torch "
        f"{facts['torch']}; times per image in batches of {facts['latency_batch_size']}."
    )
    return "\n".join([*lines, "", note])


def _error(share: float, n: int) -> float:
    return math.sqrt(share * (1 - share) / n)


def budgets(result: Mapping[str, Any]) -> str:
    """The table of `benchmarks/demo_budget.py`: a row for each share of the MACs and each finetuning."""
    rows = result["rows"]
    kinds = sorted({(row["share"], row["epochs"], row["lr"]) for row in rows}, key=lambda kind: (_share(kind), kind))
    lines = [
        "| MACs | finetuning: epochs, rate | seeds | uniform, before | searched, before | uniform, finetuned "
        "| searched, finetuned | searched minus uniform, for each seed |",
        "|---:|---|---|---:|---:|---:|---:|---|",
    ]
    for kind in kinds:
        lines.append(_budget([row for row in rows if (row["share"], row["epochs"], row["lr"]) == kind]))
    images = rows[0]["images"]
    note = (
        f"Accuracy on {images} held-out training images, means over the seeds; *searched* is `evolution` with 128 "
        "structures. Each seed trains its own network; networks, searches and teachers are those of the demo."
    )
    return "\n".join([*lines, "", note])


def _share(kind: tuple[str, int, float]) -> float:
    return -float(kind[0].rstrip("%"))


def _budget(rows: Sequence[Row]) -> str:
    by = {(row["searcher"], row["seed"]): row for row in rows}
    seeds = sorted({seed for _, seed in by if all((name, seed) in by for name in ("uniform", "evolution"))})
    means = [
        f"{sum(by[name, seed][when] for seed in seeds) / len(seeds):.2%}"
        for when in ("before", "after")
        for name in ("uniform", "evolution")
    ]
    gains = [100 * (by["evolution", seed]["after"] - by["uniform", seed]["after"]) for seed in seeds]
    told = f"{', '.join(f'{gain:+.1f}' for gain in gains)} points"
    how = f"{rows[0]['epochs']}, {rows[0]['lr']:g}"
    return f"| {rows[0]['share']} | {how} | {', '.join(map(str, seeds))} | {' | '.join(means)} | {told} |"
