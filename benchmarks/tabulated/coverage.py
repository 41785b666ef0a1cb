"""The table of coverage.py: what can be traced and pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(result: Mapping[str, Any]) -> str:
    """What can be traced and pruned of each network, with Torch-Pruning on the same ones beside."""
    rows = {name: row for name, row in result["rows"].items() if "prunesearch" in row}
    facts = result["facts"]
    lines = [
        "| network | groups | removable MACs | traced in | slimmed = masked | cost exact | ONNX | Torch-Pruning, 0.5 |",
        "|---|---:|---:|---:|---:|---|---|---|",
    ]
    for name, row in rows.items():
        ours, file, theirs = row["prunesearch"], row.get("onnx"), row.get("torch_pruning")
        exported = "not run" if file is None else format(file["difference"], ".0e") if file["ok"] else "fails"
        if ours["traced"]:
            cells = (
                f"{ours['groups']} | {ours['removable']:.1%} | {ours['seconds']:.1f} s | {ours['difference']:.0e} "
                f"| {'yes' if ours['exact'] else '**no**'} | {exported}"
            )
        else:
            cells = f"refused | | | | | {ours['reason'].split('. ')[0].replace('|', '/')[:90]}"
        if theirs is None:
            other = "not run"
        elif theirs["runs"]:
            other = f"{theirs['kept']:.0%} of MACs left"
        else:
            other = f"fails: {theirs['reason'].split(':')[0]}"
        lines.append(f"| {name} | {cells} | {other} |")
    traced = [row["prunesearch"] for row in rows.values() if row["prunesearch"]["traced"]]
    others = [row["torch_pruning"] for row in rows.values() if "torch_pruning" in row]
    most = sum(ours["removable"] > 0.9 for ours in traced)
    note = (
        f"{len(traced)} of {len(rows)} networks traced, {most} of them with more than 90% of the MACs removable; "
        f"largest difference {max(ours['difference'] for ours in traced):.0e}, slowest trace "
        f"{max(ours['seconds'] for ours in traced):.1f} s; Torch-Pruning {facts['torch-pruning']}: "
        f"{sum(theirs['runs'] for theirs in others)} of {len(others)} run after pruning (of those tried within 300 s "
        "and 16 GB). One run, "
        f"tracing on one thread; torch {facts['torch']}, torchvision {facts['torchvision']}, "
        f"timm {facts['timm']}; random weights."
    )
    return "\n".join([note, "", *lines])
