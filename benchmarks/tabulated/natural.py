"""The table of natural.py: what is left of an ImageNet network after pruning without training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from natural import SHARES

from tabulated.summaries import software, unmeasured

_SHOWN = {
    "searched-compensated": 'default search, its winner refitted (`build_with="compensated"`)',
    "scored-compensated": "the same, every structure scored with refitted weights",
    "searched-compensated-images": "the same as the first, with statistics of the images, not corrected",
    "searched": "default search",
    "uniform-compensated": "uniform, refitted",
    "uniform": "uniform",
    "uniform-l1": "uniform, L1",
    "global-l1": "L1, one order over all layers",
}


def table(result: Mapping[str, Any]) -> str:
    """A line per arm, a pair of columns per share of the MACs."""
    cells = {(cell["arm"], cell["share"]): cell for cell in result["cells"].values()}
    shares = sorted({share for _, share in cells}, reverse=True)
    heads = [f"{share}% of the MACs: agreement | accuracy | CPU-seconds" for share in shares]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * 3 * len(shares)}"]
    for arm, name in _SHOWN.items():
        if not any((arm, share) in cells for share in shares):
            continue
        columns = [_columns(cells.get((arm, share))) for share in shares]
        lines.append(f"| {name} | {' | '.join(columns)} |")
    missing = unmeasured(
        arm if len(left) == len(SHARES) else f"{arm} ({', '.join(f'{share}%' for share in left)})"
        for arm in _SHOWN
        if (left := [share for share in SHARES if (arm, share) not in cells])
    )
    arms = {arm for arm, _ in cells}
    if "searched-compensated" in arms and not arms & {"uniform-compensated", "searched"}:
        missing += " So only the default search is refitted here, and a difference is of search and refit together."
    some = next(iter(cells.values()))
    facts, row = some["facts"], some["row"]
    n = facts["unseen images"]
    note = (
        f"EfficientNet-Lite0 with its public weights, {facts['full macs']:,} MACs at 224 pixels; unpruned accuracy "
        f"{row['unpruned accuracy']:.1%}; with BatchNorm statistics of the search images it agrees with itself on "
        f"{facts['re-estimated agreement']:.1%}. Searched and refitted on {facts['search images']} natural images "
        f"without labels, judged on {n} others: 85% has a standard error of {100 * math.sqrt(0.1275 / n):.1f} points. "
        f"One seed. CPU-seconds of one thread, beside other work. {software(facts)} "
        f"Blank cells are not measured.{missing}"
    )
    return "\n".join([*lines, "", note])


def _columns(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "| |"
    row = cell["row"]
    return f"{row['agreement']:.1%} | {row['accuracy']:.1%} | {row['seconds']['cpu']:.0f}"
