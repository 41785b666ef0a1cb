"""The table of recovery_tasks.py: what of the lost metric refitted weights bring back before any finetuning."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import percent, software

_REFITTED = ("compensated", "reconstructed")
_AIM, _AT = 0.8, "70"
"""How much is to come back, and at which share of the MACs."""


def table(result: Mapping[str, Any]) -> str:
    """A line per share of the MACs and criterion, with uniform widths and random ones apart."""
    rows: dict[tuple[str, bool], list[Mapping[str, float]]] = {}
    for cell in result["cells"].values():
        rows.setdefault((cell["arm"], cell["number"] == 0), []).append(cell["row"]["mIoU"])
    facts = next(iter(result["cells"].values()))["facts"]
    lines = [
        "| kept MACs | channels | widths | structures | inherited | compensated | reconstructed "
        "| of the loss back: compensated | reconstructed |",
        "|---:|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    aims = []
    for (arm, is_uniform), found in sorted(rows.items(), key=lambda row: (row[0][0], not row[0][1])):
        share, _, criterion = arm.partition("-")
        scores = " | ".join(percent([row[name] for row in found]) for name in ("inherited", *_REFITTED))
        brought = [_back(found, name, facts["unpruned"]) for name in _REFITTED]
        back = " | ".join(f"{each:.0%}" for each in brought)
        aims += [max(brought) >= _AIM] if share == _AT else []
        widths = "uniform" if is_uniform else "random"
        lines.append(f"| {share} % | `{criterion}` | {widths} | {len(found)} | {scores} | {back} |")
    spread = ", mean ± standard deviation over structures" if any(len(found) > 1 for found in rows.values()) else ""
    note = (
        f"mIoU in per cent{spread}, of a U-Net on CamVid (unpruned "
        f"{facts['unpruned']:.1%}); one trained network. Weights are refitted, and BatchNorm "
        f"re-estimated, on {facts['seen images']} training images; {facts['test images']} test images judge. "
        f"The aim, {_AIM:.0%} of the loss back at {_AT}% of the MACs, is met in {sum(aims)} of {len(aims)} lines. "
        f"{software(facts)}"
    )
    return "\n".join([*lines, "", note])


def _back(rows: Sequence[Mapping[str, float]], name: str, unpruned: float) -> float:
    """Of what inherited weights lose on average, the share that others do not."""
    lost, still = (statistics.mean(unpruned - row[of] for row in rows) for of in ("inherited", name))
    return 1 - still / lost if lost else 1.0
