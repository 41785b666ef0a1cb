"""The table of gpu.py: structures a second on each card that was measured, by the way they are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WAYS = {
    "classic": "one after the other (build, re-estimate, score)",
    "auto": "what a search chooses",
    "sliced": "sliced",
    "stacked": "stacked",
    "stacked+channels_last": "stacked, channels last",
    "stacked+graph": "stacked, as a CUDA graph",
    "stacked+channels_last+graph": "stacked, channels last, as a CUDA graph",
}

_WORK = {
    "moments": "moments of what layers are given",
    "cap": "a ranking by `cap`",
    "compensated": "a structure with compensated weights",
    "reconstructed": "a structure with reconstructed weights",
    "statistics": "BatchNorm statistics of one network",
    "finetuning": "two steps of finetuning, and what surrounds them",
    "pruningnet": "a step of a PruningNet, four structures",
}


def table(result: Mapping[str, Any]) -> str:
    """A table for each card: a line per network and way, of each way with as many at once as were fastest."""
    return "\n\n".join(_of_card(card) for card in result["cells"].values())


def _of_card(card: Mapping[str, Any]) -> str:
    lines = [
        "| network | way | at once | structures/s | times the first | of the convolution's speed | "
        "operators per structure | memory | largest difference from the CPU | tau with 32 bits |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for network in dict.fromkeys(cell["network"] for cell in card["cells"]):
        cells = [cell for cell in card["cells"] if cell["network"] == network and cell["seconds"]]
        first = next((_speed(cell) for cell in cells if cell["way"] == "classic"), None)
        for way in dict.fromkeys((cell["way"], cell["precision"]) for cell in cells):
            fastest = max((cell for cell in cells if (cell["way"], cell["precision"]) == way), key=_speed)
            lines.append(_line(fastest, first, card["convolution_macs_per_second"]))
    facts, failed = card["facts"], [cell for cell in card["cells"] if cell["trouble"]]
    note = (
        f"{facts['device']}, torch {facts['torch']}, {facts['minutes']:g} minutes; random images except where CIFAR-10 "
        "was at hand. Of each way the number at once that was fastest. The convolution's speed is that of one dense "
        "layer of 256 channels in 32 bits; work is counted as that of the unpruned network. Operators are what Python "
        "launches one by one; a CUDA graph is one piece."
    )
    told = [*_told("Failed", failed), *_told("Left out", card["left_out"])]
    return "\n".join([*lines, "", note, *told, *_jobs(card["jobs"])])


def _jobs(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of other work; nothing if none was done."""
    lines = []
    for job in jobs:
        took = [f"{job['seconds']:.3g}" if job["seconds"] else job["trouble"]]
        took.append("" if job["cpu_seconds"] is None else f"{job['cpu_seconds']:.3g}")
        lines.append(f"| {' | '.join([job['network'], _WORK[job['work']], *took])} |")
    return ["", "| network | work | s | s on the CPU |", "|---|---|---:|---:|", *lines] if lines else []


def _line(cell: Mapping[str, Any], first: float | None, convolution: float) -> str:
    speed = _speed(cell)
    share = speed * cell["images"][0] * cell["macs"] / convolution
    columns = [
        cell["network"],
        _WAYS[cell["way"]] + (", 16 bits" if cell["precision"] == "bf16" else ""),
        f"{cell['at_once']}",
        f"{speed:.1f}",
        "" if first is None else f"{speed / first:.1f}",
        f"{share:.0%}",
        f"{cell['operators']:.0f}",
        f"{cell['peak_bytes'] / 2**30:.1f} GiB" if cell["peak_bytes"] else "",
        "" if cell["off"] is None else f"{cell['off']:.1e}",
        "" if cell["tau"] is None else f"{cell['tau']:.3f}",
    ]
    return f"| {' | '.join(columns)} |"


def _speed(cell: Mapping[str, Any]) -> float:
    """Structures a second."""
    return float(cell["structures"] / cell["seconds"])


def _told(what: str, cells: Sequence[Any]) -> list[str]:
    names = [
        cell if isinstance(cell, str) else f"{cell['network']}, {_WAYS[cell['way']]}: {cell['trouble'].rstrip('.')}"
        for cell in cells
    ]
    return ["", f"{what}: {'; '.join(dict.fromkeys(names))}."] if names else []
