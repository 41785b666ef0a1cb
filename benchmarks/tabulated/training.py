"""The tables of finetune.py, training_methods.py and dynamic_speed.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import over_seeds, percent


def finetune(result: Mapping[str, Any]) -> str:
    """Accuracy and seconds of our finetuning and of the plain loop; then what each setting changes."""
    facts, seeds = result["facts"], result["seeds"]
    contenders = {"plain": "plain SGD loop", "ours": "`ps.finetune`", "ours with teacher": "`ps.finetune`, teacher"}
    lines = [
        f"| | {' | '.join(f'{n} epochs' if n > 1 else '1 epoch' for n in facts['lengths'])} |",
        f"|---|{'---:|' * len(facts['lengths'])}",
    ]
    for key, title in contenders.items():
        cells = [_accuracy_and_seconds([seed[f"{key}, {n}"] for seed in seeds]) for n in facts["lengths"]]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    changes = ["| 4 epochs of `ps.finetune` | accuracy, seconds |", "|---|---:|"]
    for name in ("ours, 4", *facts["changes"]):
        title = "the recipe above" if name == "ours, 4" else name
        changes.append(f"| {title} | {_accuracy_and_seconds([seed[name] for seed in seeds])} |")
    before, after = ([seed[key] for seed in seeds] for key in ("unpruned", "pruned"))
    note = (
        f"Accuracy: {over_seeds([len(seeds)], 'standard deviation')} (pretrained weights and order of images). "
        f"{facts['model']} "
        f"on {facts['train_images']:,} images of {facts['data']} of {'x'.join(map(str, facts['image'][1:]))} pixels, "
        f"pruned to {statistics.mean(seed['macs'] for seed in seeds):.1%} of its MACs: test accuracy "
        f"{percent(before, 2)}% unpruned, {percent(after, 2)}% pruned and not yet finetuned. Seconds of one core of "
        f"{facts['machine']}, whose speed varied, torch {facts['torch']}, CPU only."
    )
    return "\n".join([*lines, "", *changes, "", note])


_METHODS = {
    "unpruned": "unpruned, trained as long",
    "pretrained": "unpruned, where pruning starts",
    "search": "search, finetuned with teacher",
    "search, no teacher": "search, finetuned",
    "scratch": "structure of the search, from scratch",
    "paam": "PAAM, from scratch",
    "paam, from trained": "PAAM, from trained weights",
    "manidp": "ManiDP",
    "search and manidp": "search half of the way, then ManiDP",
    "genetic": "GA, all widths at once, finetuned with teacher",
    "genetic, as long": "the same, finetuned for as many epochs as the next",
    "layerwise": "GA, layer by layer, with teacher",
}


def training_methods(result: Mapping[str, Any]) -> str:
    """Accuracy of every way of training at equal MACs, and what it took."""
    facts, rows = result["facts"], result["rows"]
    full = statistics.mean(row["macs"] for row in rows["unpruned"])
    size = statistics.mean(row["params"] for row in rows["unpruned"])
    lines = ["| | test accuracy | MACs | parameters | seconds | seeds |", "|---|---:|---:|---:|---:|---:|"]
    for name, title in _METHODS.items():
        done = rows.get(name, [])
        if done:
            macs, params, seconds = (statistics.mean(row[key] for row in done) for key in ("macs", "params", "seconds"))
            accuracy = f"{percent([row['accuracy'] for row in done], 2)}%"
            lines.append(
                f"| {title} | {accuracy} | {macs / full:.1%} | {params / size:.1%} | {seconds:.0f} | {len(done)} |"
            )
    counts = [len(done) for done in rows.values() if done]
    total = facts["pretraining"] + facts["finetuning"]
    hits = statistics.mean(row["accuracy"] for row in rows["unpruned"])
    error = (2 * hits * (1 - hits) / facts["test_images"]) ** 0.5
    note = (
        f"{facts['model']} on {facts['train_images']:,} images of {facts['data']} of "
        f"{'x'.join(map(str, facts['image'][1:]))} pixels, {facts['test_images']:,} test images; budget "
        f"{facts['budget']} of the MACs. ManiDP meets it for the average training image; its MACs here are the average "
        f"of the test images. Accuracy: {over_seeds(counts, 'standard deviation')}. By the number of test images "
        f"alone, differences below {2 * error:.1%} between two runs say nothing (two standard errors). What starts "
        "from trained weights had "
        f"{facts['pretraining']} epochs before and {facts['finetuning']} of its own, what starts from scratch {total}. "
        "Seconds of one CPU core, whose speed varied, for the row's own work: without the pretraining of what starts "
        f"from trained weights, nor the search for the structure that is trained from scratch. torch {facts['torch']}."
    )
    return "\n".join([*lines, "", note])


def dynamic_speed(result: Mapping[str, Any]) -> str:
    """Nominal against measured savings of gated networks."""
    lines = [
        "| network | images at a time | MACs | unpruned | gates multiplying | skipping | skipping against unpruned |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        ms = {name: statistics.median(row["ms"][name]) for name in ("unpruned", "gated", "skipping")}
        lines.append(
            f"| {row['network']} | {row['batch']} | {row['macs']:.1%} | {ms['unpruned']:.2f} ms | {ms['gated']:.2f} ms "
            f"| {ms['skipping']:.2f} ms | {ms['unpruned'] / ms['skipping']:.2f} times as fast |"
        )
    facts = result["facts"]
    note = (
        f"Per image, median of {facts['rounds']} rounds in turns in one process, {facts['threads']} thread of "
        f"{facts['machine']}, torch {facts['torch']}. MACs are the measured average of these images, gates included."
    )
    return "\n".join([*lines, "", note])


def _accuracy_and_seconds(cells: Sequence[Mapping[str, float]]) -> str:
    return f"{percent([c['accuracy'] for c in cells], 2)}%, {statistics.mean(c['seconds'] for c in cells):.1f} s"
