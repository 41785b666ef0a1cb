"""The table of `prunesearch demo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
        f"{facts['finetuning']['epochs']} epochs of finetuning. With {facts['test_images']} test images one image is "
        f"{1 / facts['test_images']:.2%}, so the accuracies after finetuning cannot be told apart by this run. "
        f"{facts['seconds']} s in all on {facts['threads']} threads of {facts['processor']}, CPU only, torch "
        f"{facts['torch']}; times per image in batches of {facts['latency_batch_size']}."
    )
    return "\n".join([*lines, "", note])
