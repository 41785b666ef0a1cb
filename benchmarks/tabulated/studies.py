"""The tables of studies.py and of the fault suite."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def studies(result: Mapping[str, Any]) -> str:
    """Bookkeeping, opening, readers and workers, a line each."""
    facts, cells = result["facts"], result["cells"]
    lines = ["| what | measured |", "|---|---:|"]
    book = cells["bookkeeping"]
    own = book["ms"]["searcher alone"]
    for kind, ms in book["ms"].items():
        if kind != "searcher alone":
            what = f"{kind}: a round of ask, write, tell ({book['rounds']:,} rounds, {book['groups']} groups)"
            lines.append(f"| {what} | {ms:.2f} ms, of which {own:.2f} ms are the searcher's |")
            lines.append(f"| {kind}: share of the time at 10 structures per second | {ms / 100:.1%} |")
    if "optuna" in cells:
        other = cells["optuna"]
        what = f"Optuna {other['version']}, SQLite, {book['groups']} integers: the same ({other['trials']} rounds)"
        lines.append(f"| {what} | {other['ms']:.0f} ms |")
    if "opening" in cells:
        cell = cells["opening"]
        lines.append(f"| open {cell['trials']:,} trials, every one read and checked | {_seconds(cell['seconds'])} |")
        lines.append(f"| `status` of them | {_seconds(cell['status'])} |")
    if "reader" in cells:
        alone, watched = (statistics.median(cells["reader"][kind]) for kind in ("alone", "watched"))
        pairs = zip(cells["reader"]["alone"], cells["reader"]["watched"], strict=True)
        extra = [after / before - 1 for before, after in pairs]
        what = f"a reader at 10 Hz: time of a run of {alone:.1f} s becomes"
        lines.append(f"| {what} | {watched:.1f} s ({min(extra):+.1%} to {max(extra):+.1%}) |")
    if "workers" in cells:
        cell = cells["workers"]
        one = statistics.median(cell["rates"]["1 worker"])
        for kind, rates in cell["rates"].items():
            rate = statistics.median(rates)
            what = f"{kind}: structures of a ResNet-20 per second ({cell['structures']} each, n = {len(rates)})"
            lines.append(
                f"| {what} | {rate:.1f} ({min(rates):.1f} to {max(rates):.1f}), {rate / one:.2f} of 1 worker |"
            )
        lines.append(f"| scores of all of them equal, bit by bit | {'yes' if cell['equal'] else '**no**'} |")
    note = (
        f"Median (range) of {facts['repeats']} unless said otherwise; {facts['processor']}, two cores, Python "
        f"{facts['python']}, SQLAlchemy {facts['sqlalchemy']}; one run of benchmarks/studies.py, one thread"
        + (f"; load average {facts['load']:.1f} before it." if "load" in facts else ".")
    )
    return "\n".join([*lines, "", note])


def faults(result: Mapping[str, Any]) -> str:
    """What the fault suite did, and what it cost."""
    facts = result["facts"]
    lines = ["| | fault | how | tries | recorded trials lost | scored again |", "|---|---|---|---:|---:|---:|"]
    for name, fault in result["faults"].items():
        rows: dict[str, list[int]] = {}
        for line in fault["lines"]:
            sums = rows.setdefault(line["how"], [0, 0, 0])
            rows[line["how"]] = [sums[0] + line["tries"], sums[1] + line["lost"], sums[2] + line["repeated"]]
        if not rows:
            lines.append(f"| {name} | {fault['what']} | not counted yet | | | |")
        for place, (how, (tries, lost, repeated)) in enumerate(rows.items()):
            head = f"{name} | {fault['what']}" if place == 0 else " | "
            lines.append(f"| {head} | {how} | {tries:,} | {lost} | {repeated} |")
    note = (
        f"Counted by tests/faults, file by file, on {facts['cores']} core(s), {facts['system']}, "
        f"Python {facts['python']}."
    )
    return "\n".join([*lines, "", note])


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"
