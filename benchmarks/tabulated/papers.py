"""The table of paper_tables.py: what was published beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def papers(result: Mapping[str, Any]) -> str:
    """A line per protocol, those that were not run too."""
    from protocols import PROTOCOLS  # brings torch, which other tables do without

    lines = [
        "| method | network, data | budget | published, in per cent | source | ours: unpruned | pruned | MACs |",
        "|---|---|---|---|---|---:|---:|---:|",
    ]
    for protocol in PROTOCOLS:
        cell = result["cells"].get(protocol.name)
        published = f"{protocol.published.text} | {protocol.published.source}"
        where = f"{protocol.method} | {protocol.network}, {protocol.dataset} | {protocol.budget}"
        lines.append(f"| {where} | {published} | {measured(cell)} |")
    facts = ["", "| method | network | the protocol, and where it was read | where ours departs |", "|---|---|---|---|"]
    told: dict[tuple[str, str, str], list[str]] = {}
    for protocol in PROTOCOLS:
        networks = told.setdefault((protocol.method, protocol.facts, protocol.departures), [])
        if protocol.network not in networks:
            networks.append(protocol.network)
    facts += [f"| {method} | {', '.join(nets)} | {read} | {ours} |" for (method, read, ours), nets in told.items()]
    done = sum(protocol.name in result["cells"] for protocol in PROTOCOLS)
    return "\n".join([f"{done} of {len(PROTOCOLS)} protocols were run.", "", *lines, *facts])


def measured(cell: Mapping[str, Any] | None) -> str:
    """The columns of one that was run, or not."""
    if cell is None:
        return "not run | not run | not run"
    baseline = cell.get("baseline")
    unpruned = "" if baseline is None else f"{100 * baseline:.2f}"
    return f"{unpruned} | {100 * cell['accuracy']:.2f} | {cell['macs'] / cell['full macs']:.1%}"
