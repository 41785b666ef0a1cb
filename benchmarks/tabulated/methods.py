"""The tables of methods_cifar10.py: what methods that train make of trained networks, at the papers' budgets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from methods_cifar10 import ARMS as MEASURED

from tabulated.summaries import network_of, over_seeds, percent, software, unmeasured

Cells = Sequence[Mapping[str, Any]]

NETWORKS: Mapping[str, str] = {"resnet20": "ResNet-20", "resnet56": "ResNet-56", "vgg": "VGG-16 at 0.25 of its width"}
BUDGETS: Mapping[str, str] = {
    "manidp": "37.6% of the MACs",
    "paam": "47.7% of the parameters",
    "ga": "33% of the MACs",
}
ARMS: Mapping[str, str] = {
    "search": "search, finetuned with teacher",
    "longer": "search, finetuned for as long as *layer by layer*",
    "manidp": "ManiDP",
    "both": "search halfway, then ManiDP",
    "paam": "PAAM, from trained weights",
    "scratch": "PAAM, from scratch",
    "genetic": "GA, all widths at once, finetuned with teacher",
    "genetic-longer": "the same, finetuned for as long as *layer by layer*",
    "layerwise": "GA, layer by layer, with teacher",
}


def tables(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Of every network, what was measured of it."""
    return "\n\n".join(_of_network(NETWORKS[name], list(found["cells"].values())) for name, found in result.items())


def _of_network(title: str, cells: Cells) -> str:
    facts = cells[0]["facts"]
    lines = [
        f"| {title} | test accuracy | MACs | parameters | epochs | CPU-seconds | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
        f"| as it comes | {facts['unpruned']:.2%} | 100% | 100% |  |  |  |",
    ]
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        by_arm.setdefault(cell["arm"], []).append(cell)
    if "unpruned" in by_arm:
        lines.append(_row("finetuned, unpruned", by_arm["unpruned"], facts))
    for budget, limit in BUDGETS.items():
        rows = [(title, by_arm[f"{budget}-{arm}"]) for arm, title in ARMS.items() if f"{budget}-{arm}" in by_arm]
        if rows:
            lines.append(f"| **{limit}** |  |  |  |  |  |  |")
            lines += [_row(title, found, facts) for title, found in rows]
    seeds = over_seeds([len(found) for found in by_arm.values()], "standard deviation")
    note = (
        f"Accuracy on {facts['test images']:,} test images: {seeds}. Trained on {facts['train images']:,} images; "
        f"searches and the GA score on {facts['scoring images']:,} others. ManiDP meets its budget for the average "
        "training image; its MACs here are the average of the test images. CPU-seconds of one thread, beside other "
        f"work, search and training. {network_of(facts)} {software(facts)}"
        f"{unmeasured(arm for arm in MEASURED if arm not in by_arm)}"
    )
    return "\n".join([*lines, "", note])


def _row(title: str, cells: Cells, facts: Mapping[str, Any]) -> str:
    macs, params = (statistics.mean(cell[name] for cell in cells) / facts["full"][name] for name in ("macs", "params"))
    epochs = f"{cells[0]['epochs']}" if "epochs" in cells[0] else ""
    seconds = statistics.mean(cell["seconds"] for cell in cells)
    accuracy = percent([cell["accuracy"] for cell in cells], 2)
    return f"| {title} | {accuracy}% | {macs:.1%} | {params:.1%} | {epochs} | {seconds:.0f} | {len(cells)} |"
