"""The table of halving.py: whether short trainings choose the structure that ends best."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from halving import ARMS

from tabulated.summaries import network_of, percent, software, tau, unmeasured

Cells = Sequence[Mapping[str, Any]]
_SCORE = "score"


def table(result: Mapping[str, Any]) -> str:
    """By share: each structure's accuracy; and, of seeds with all structures, what each length of training chooses."""
    by_share: dict[int, dict[str, list[Mapping[str, Any]]]] = {}
    for cell in result["cells"].values():
        share, _, name = cell["arm"].partition("-")
        by_share.setdefault(int(share), {}).setdefault(name, []).append(cell)
    parts = [part for share, found in sorted(by_share.items(), reverse=True) for part in _of_share(share, found)]
    facts = next(iter(result["cells"].values()))["facts"]
    measured = {cell["arm"] for cell in result["cells"].values()}
    note = (
        f"Means ± standard deviations over seeds. Trained on {facts['train images']:,} images; short trainings are "
        f"judged on {facts['held out images']:,} others, the long one on {facts['unseen images']:,} more. *Chosen ends "
        "behind*: by how many points the structure with the lowest loss after so many epochs ends behind the best "
        "one; without training it is *score*. *MACs*: what structures use of the limit; widths of one common fraction "
        "go in large steps, and here they are not filled up. CPU-seconds of one training in one thread, beside other "
        f"work. A public ResNet-20, adapted to the JPEG images. {network_of(facts)} {software(facts)}"
        f"{unmeasured(arm for arm in ARMS if arm not in measured)}"
    )
    return "\n\n".join([*parts, note])


def _of_share(share: int, found: Mapping[str, Cells]) -> list[str]:
    lengths = [row["epochs"] for row in next(iter(found.values()))[0]["short"]]
    long = next(iter(found.values()))[0]["long"]["epochs"]
    lines = [
        f"| {share}% of the MACs | {' | '.join(f'{epochs:g} epochs' for epochs in lengths)} | {long} epochs "
        "| MACs | seeds |",
        f"|---|{'---:|' * (len(lengths) + 3)}",
    ]
    order = sorted(found, key=lambda name: -statistics.mean(cell["long"]["accuracy"] for cell in found[name]))
    for name in order:
        short = [percent([cell["short"][i]["accuracy"] for cell in found[name]]) for i in range(len(lengths))]
        after = percent([cell["long"]["accuracy"] for cell in found[name]])
        macs = f"{statistics.mean(cell['macs'] / cell['facts']['full macs'] for cell in found[name]):.1%}"
        lines.append(f"| {name} | {' | '.join(short)} | {after} | {macs} | {len(found[name])} |")
    seeds = set.intersection(*({cell["seed"] for cell in cells} for cells in found.values()))
    if len(found) < 3 or not seeds:
        return ["\n".join(lines)]
    chosen = ["| epochs | tau with the last accuracy | chosen ends behind | CPU-seconds |", "|---:|---:|---:|---:|"]
    of_seeds = [[cell for cells in found.values() for cell in cells if cell["seed"] == s] for s in sorted(seeds)]
    if _SCORE in found:
        place = list(found).index(_SCORE)
        behind = [max(_last(cells)) - _last(cells)[place] for cells in of_seeds]
        chosen.append(f"| none |  | {percent(behind)} | 0 |")
    for i, epochs in enumerate(lengths):
        taus = [tau([-c["short"][i]["loss"] for c in cells], _last(cells)) for cells in of_seeds]
        behind = [max(_last(cells)) - _last(cells)[_lowest(cells, i)] for cells in of_seeds]
        seconds = statistics.mean(c["short"][i]["seconds"] for cells in of_seeds for c in cells)
        chosen.append(f"| {epochs:g} | {statistics.mean(taus):.2f} | {percent(behind)} | {seconds:.0f} |")
    return ["\n".join(lines), "\n".join(chosen)]


def _last(cells: Cells) -> list[float]:
    return [cell["long"]["accuracy"] for cell in cells]


def _lowest(cells: Cells, i: int) -> int:
    losses = [cell["short"][i]["loss"] for cell in cells]
    return losses.index(min(losses))
