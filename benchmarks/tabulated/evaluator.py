"""The tables of evaluator.py: what scores cost, and how they rank structures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from tabulated.summaries import tau, tau_ahead


def table(result: Mapping[str, Any]) -> str:
    """What scores cost, and how they rank structures compared with the classic protocol."""
    facts, blocks, ahead = result["facts"], [], []
    for name, row in result["rows"].items():
        n = min(len(row.get("scored", ())), len(row.get("finetuned", ())))
        if n == 0:
            continue
        truth = [entry["accuracy"] for entry in row["finetuned"][:n]]
        scored = row["scored"][:n]
        rankings = ([e["64"]["loss"] for e in scored], [e["classic"]["accuracy"] for e in scored])
        ahead.append(tau_ahead(*rankings, truth))
        default = f"The default's tau is ahead of the classic's by {ahead[-1][0]:+.2f} ± {ahead[-1][1]:.2f}."
        timed = row.get("timed", scored)
        classic = statistics.median(entry["classic"]["seconds"] for entry in timed)
        lines = [
            "| score | seconds per structure | times cheaper | tau by loss | by accuracy | by agreement |",
            "|---|---:|---:|---:|---:|---:|",
            f"| classic | {classic:.2f} | 1 | | {tau([e['classic']['accuracy'] for e in scored], truth):.2f} | |",
        ]
        for images in (key for key in scored[0] if key != "classic"):
            seconds = statistics.median(entry[images]["seconds"] for entry in timed)
            taus = [tau([e[images][m] for e in scored], truth) for m in ("loss", "accuracy", "agreement")]
            cells = " | ".join(f"{tau:.2f}" for tau in taus)
            lines.append(f"| {images} images | {seconds:.3f} | {classic / seconds:.0f} | {cells} |")
        blocks.append("\n".join([f"**{name}** (n = {n} structures)", "", *lines, "", f"{default} {_costs(row)}"]))
    mean = statistics.mean(gain for gain, _ in ahead)
    error = math.hypot(*(error for _, error in ahead)) / len(ahead)
    blocks.append(
        f"Over all of these the default's tau (64 images, loss) is ahead of the classic's by {mean:+.2f} ± {error:.2f}"
        "; errors are standard errors, jackknifed over the structures, and say nothing about other networks."
    )
    blocks += [_profiles(result["rows"]), _memory(result.get("large", {}))]
    n = len(next(iter(result["rows"].values())).get("timed", ()))
    note = (
        f"Seconds are medians{f' of {n} structures' if n else ''}, both protocols one after the other in one process. "
        f"Kendall's tau with the test accuracy after the same short finetune ({facts['finetune_epochs']} epoch of "
        f"{facts['finetune_images']:,} images). {facts['data']}, networks trained for {facts['epochs']} epochs of "
        f"{facts['train_images']:,} images; classic: {facts['calibration']:,} images to re-estimate and "
        f"{facts['validation']:,} to validate. One run, {facts['threads']} threads, torch {facts['torch']}, CPU only."
    )
    return "\n\n".join([*filter(None, blocks), note])


def _profiles(rows: Mapping[str, Any]) -> str:
    """What the time goes to."""
    profiles = {name: row["profile"] for name, row in rows.items() if "profile" in row}
    if not profiles:
        return ""
    lines = [f"| share of scoring | {' | '.join(profiles)} |", "|---|" + "---:|" * len(profiles)]
    for kind in next(iter(profiles.values())):
        shares = (f"{profile[kind] / sum(profile.values()):.0%}" for profile in profiles.values())
        lines.append(f"| {kind} | {' | '.join(shares)} |")
    return "\n".join(["What the time of scoring 128 images goes to, under torch's profiler:", "", *lines])


def _memory(large: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """What it gains to keep freed memory."""
    if not large:
        return ""
    lines = [
        "| 224 pixels | freed memory | score half the MACs on 64 images | training step, 16 images | peak |",
        "|---|---|---:|---:|---:|",
    ]
    for name, ways in large.items():
        for way, m in ways.items():
            peak = m["train: peak"] / 2**30
            lines.append(f"| {name} | {way} | {m['score']:.2f} s | {m['train']:.2f} s | {peak:.1f} GiB |")
    return "\n".join(lines)


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


def speed(result: Mapping[str, Any]) -> str:
    """How long scoring takes on large images, beside an earlier version, with memory given back and kept."""
    (before, now), (before_kept, now_kept) = (
        [row["seconds"] for row in result[way][-2:]] for way in ("versions", "kept")
    )
    facts, name = result["facts"], result["versions"][-2]["commit"].partition(" ")[0]
    lines = [
        f"| network | `{name}` | now | `{name}`, memory kept | now, memory kept | now, kept / `{name}` |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for network in now:
        seconds = [each[network] for each in (before, now, before_kept, now_kept)]
        told = " | ".join(f"{value:.2f}" for value in seconds)
        lines.append(f"| {network} | {told} | {seconds[-1] / seconds[0]:.2f} |")
    note = (
        f"Seconds of one processor for a structure of half the MACs on {facts['images']} images of {facts['pixels']} "
        f"pixels, the fewest of {facts['rounds']} rounds in turn; torch {facts['torch']}."
    )
    return "\n".join([*lines, "", note])
