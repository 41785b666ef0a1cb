"""The tables of evaluator.py: what scores cost, and how they rank structures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from tabulated.summaries import tau


def table(result: Mapping[str, Any]) -> str:
    """What scores cost, and how they rank structures compared with the classic protocol."""
    facts, blocks = result["facts"], []
    for name, row in result["rows"].items():
        n = min(len(row.get("scored", ())), len(row.get("finetuned", ())))
        if n == 0:
            continue
        truth = [entry["accuracy"] for entry in row["finetuned"][:n]]
        scored = row["scored"][:n]
        classic = statistics.median(entry["classic"]["seconds"] for entry in scored)
        lines = [
            "| score | seconds per structure | times cheaper | tau by loss | by accuracy | by agreement |",
            "|---|---:|---:|---:|---:|---:|",
            f"| classic | {classic:.2f} | 1 | | {tau([e['classic']['accuracy'] for e in scored], truth):.2f} | |",
        ]
        for images in (key for key in scored[0] if key != "classic"):
            seconds = statistics.median(entry[images]["seconds"] for entry in scored)
            taus = [tau([e[images][m] for e in scored], truth) for m in ("loss", "accuracy", "agreement")]
            cells = " | ".join(f"{tau:.2f}" for tau in taus)
            lines.append(f"| {images} images | {seconds:.3f} | {classic / seconds:.0f} | {cells} |")
        blocks.append("\n".join([f"**{name}** (n = {n} structures)", "", *lines, "", _costs(row)]))
    note = (
        f"Kendall's tau with the test accuracy after the same short finetune ({facts['finetune_epochs']} epoch of "
        f"{facts['finetune_images']:,} images). {facts['data']}, networks trained for {facts['epochs']} epochs of "
        f"{facts['train_images']:,} images; classic: {facts['calibration']:,} images to re-estimate and "
        f"{facts['validation']:,} to validate. One run, {facts['threads']} threads, torch {facts['torch']}, CPU only."
    )
    return "\n\n".join([*blocks, note])


def _costs(row: Mapping[str, Any]) -> str:
    """Sharing, convolution and workers in a sentence each."""
    sentences = []
    if "sharing" in row:
        gains = ", ".join(f"{kind} {m['apart'] / m['together']:.2f}" for kind, m in row["sharing"].items())
        sentences.append(f"Times faster by sharing in one call: {gains}.")
    if "attained" in row:
        sentences.append(
            f"Share of the scoring time that its convolutions take alone: "
            f"{row['attained']['dense'] / row['attained']['scoring']:.2f}."
        )
    if "workers" in row:
        gain = row["workers"]["two"] / row["workers"]["one"]
        sentences.append(f"Two processes score {gain:.2f} times what one does.")
    return " ".join(sentences)
