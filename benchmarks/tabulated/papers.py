"""The table of paper_tables.py: what was published beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import percent


def papers(result: Mapping[str, Any]) -> str:
    """A line per protocol, those that were not run too."""
    from protocols import PROTOCOLS  # brings torch, which other tables do without

    lines = [
        "| method | network, data | budget | published, in per cent | source | ours: epochs | unpruned | pruned | MACs "
        "| seeds |",
        "|---|---|---|---|---|---|---:|---:|---:|---:|",
    ]
    runs: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for cell in result["cells"].values():
        runs.setdefault(cell["protocol"], {}).setdefault(trained(cell), []).append(cell)
    for protocol in PROTOCOLS:
        published = f"{protocol.published.text} | {protocol.published.source}"
        where = f"{protocol.method} | {protocol.network}, {protocol.dataset} | {protocol.budget}"
        for epochs, cells in runs.get(protocol.name, {"not run": []}).items():
            lines.append(f"| {where} | {published} | {epochs} | {measured(cells)} |")
    facts = ["", "| method | network | the protocol, and where it was read | where ours departs |", "|---|---|---|---|"]
    told: dict[tuple[str, str, str], list[str]] = {}
    for protocol in PROTOCOLS:
        networks = told.setdefault((protocol.method, protocol.facts, protocol.departures), [])
        if protocol.network not in networks:
            networks.append(protocol.network)
    facts += [f"| {method} | {', '.join(nets)} | {read} | {ours} |" for (method, read, ours), nets in told.items()]
    whole = sum(any(cell["scale"] == 1 for cells in of.values() for cell in cells) for of in runs.values())
    said = f"{whole} of {len(PROTOCOLS)} protocols were run as they are, {len(runs)} at some scale."
    return "\n".join([said, "", *lines, *facts])


def trained(cell: Mapping[str, Any]) -> str:
    """For how many epochs, on how many images if not on all, and of how many structures the best was taken."""
    epochs = ", ".join(f"{what} {n}" for what, n in cell["epochs"].items()) or "none"
    if cell.get("structures", 1) > 1:
        epochs += f"; {cell['structures']:,} structures on {cell['images']:,} images"
    given = "; weights given" if cell["weights given"] else ""
    images = cell["train images"]
    return f"{epochs}{given}{'' if images is None else f'; {images:,} images'}"


def measured(cells: Sequence[Mapping[str, Any]]) -> str:
    """The columns of one that was run, or not."""
    if not cells:
        return " |  |  | "
    baselines = [cell["baseline"] for cell in cells if cell.get("baseline") is not None]
    macs = statistics.mean(cell["macs"] / cell["full macs"] for cell in cells)
    pruned = percent([cell["accuracy"] for cell in cells], 2)
    return f"{percent(baselines, 2) if baselines else ''} | {pruned} | {macs:.1%} | {len(cells)}"
