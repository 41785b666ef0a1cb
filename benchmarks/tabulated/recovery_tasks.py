"""The table of recovery_tasks.py: what of the lost metric refitted weights bring back before any finetuning."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import percent, software

_REFITTED = ("compensated", "reconstructed")
_AIM, _AT = 0.8, "70"
"""How much is to come back, and at which share of the MACs."""


_NETWORKS = {"mIoU": "a U-Net on CamVid", "mAP50-95": "a YOLOv8n on blood cells (BCCD)"}
"""By metric."""

_WIDTHS = ("uniform", "random", "searched")


def table(result: Mapping[str, Any]) -> str:
    """A line per share of the MACs, criterion, and kind of widths."""
    rows: dict[tuple[str, str, int], list[Mapping[str, float]]] = {}
    for cell in result["cells"].values():
        share, criterion, *kind = cell["arm"].split("-")
        widths = 2 if kind else int(cell["number"] > 0)
        rows.setdefault((share, criterion, widths), []).append(cell["row"]["reached"])
    facts = next(iter(result["cells"].values()))["facts"]
    lines = [
        "| kept MACs | channels | widths | structures | inherited | compensated | reconstructed "
        "| of the loss back: compensated | reconstructed |",
        "|---:|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    aims = []
    for (share, criterion, widths), found in sorted(rows.items()):
        scores = " | ".join(percent([row[name] for row in found]) for name in ("inherited", *_REFITTED))
        brought = [_back(found, name, facts["unpruned"]) for name in _REFITTED]
        back = " | ".join(f"{each:.0%}" for each in brought)
        aims += [max(brought) >= _AIM] if share == _AT else []
        lines.append(f"| {share} % | `{criterion}` | {_WIDTHS[widths]} | {len(found)} | {scores} | {back} |")
    spread = ", mean ± standard deviation over structures" if any(len(found) > 1 for found in rows.values()) else ""
    note = (
        f"{facts['metric']} in per cent{spread}, of {_NETWORKS[facts['metric']]} (unpruned "
        f"{facts['unpruned']:.1%}); one trained network. Weights are refitted, and BatchNorm re-estimated, on "
        f"{facts['seen images']} training images; test images judge. "
        f"The aim, {_AIM:.0%} of the loss back at {_AT}% of the MACs, is met in {sum(aims)} of {len(aims)} lines. "
        f"{software(facts)}"
    )
    return "\n".join([*lines, "", note])


def _back(rows: Sequence[Mapping[str, float]], name: str, unpruned: float) -> float:
    """Of what inherited weights lose on average, the share that others do not."""
    lost, still = (statistics.mean(unpruned - row[of] for row in rows) for of in ("inherited", name))
    return 1 - still / lost if lost else 1.0
