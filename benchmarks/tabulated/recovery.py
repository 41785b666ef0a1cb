"""The tables of recovery.py: who ends with the most accurate network after a short finetuning, and what it takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from networks import NETWORKS

from tabulated.summaries import network_of, over_seeds, percent, software, unmeasured, with_error

MARGIN = 0.3
"""Points of test accuracy below which a difference does not matter.

Fixed after the three seeds of ResNet-20 at 50 % and the first seeds at 30 %, and before any cell of another network."""

_REFERENCES = ("fastnas", "uniform")
"""Arms beside which others are shown: the first that was measured."""

_NAMES = {
    "fastnas": "FastNAS",
    "fastnas-taught": "FastNAS with the teacher",
    "uniform": "uniform",
    "uniform-taught": "uniform with the teacher",
    "global-l1": "L1, global",
    "torch-pruning-taylor": "Torch-Pruning, Taylor",
    "torch-pruning-norm": "Torch-Pruning, norms",
    "scratch": "from scratch, equal seconds",
    "sibling": "from scratch, as long as the unpruned network",
}
"""Of arms of others, where there is little room."""

TITLES = {
    "resnet20": "ResNet-20, CIFAR-10",
    "resnet56": "ResNet-56, CIFAR-10",
    "vgg": "VGG-16 of a quarter of the width, CIFAR-10",
    "mobilenet_v2": "MobileNetV2 of 0.35 of the width, CIFAR-10",
    "resnet20-fashion": "ResNet-20 with projections, Fashion-MNIST at 28 pixels",
}
"""Of networks, in the order in which they are shown."""

_SHOWN = {
    "ours": "**ours**: the default search, the unpruned network as teacher",
    "ours-longer": "**ours**, trained for longer",
    "ours-untaught": "the default search, no teacher",
    "fastnas": "ModelOpt FastNAS",
    "fastnas-taught": "ModelOpt FastNAS, with the teacher",
    "uniform": "uniform, L1",
    "uniform-taught": "uniform, L1, with the teacher",
    "global-l1": "L1, one order over all layers",
    "torch-pruning-taylor": "Torch-Pruning: Taylor, global, isomorphic",
    "torch-pruning-norm": "Torch-Pruning: group norms, global, isomorphic",
    "scratch": "uniform structure from scratch, for the CPU-seconds of ours",
    "sibling": "uniform structure from scratch, for the epochs of the unpruned network and the finetuning",
}
_TELL_APART = ("fastnas-taught", "uniform-taught", "ours-untaught")
"""Arms without which nobody knows what of a difference is the search's, and what the teacher's."""

_FROM_SCRATCH = ("scratch", "sibling")
"""What they are before their training does not say anything."""

_COLUMNS = {
    "ours": ("ours",),
    "ours, no teacher": ("ours-untaught",),
    "ModelOpt FastNAS": ("fastnas",),
    "FastNAS, teacher": ("fastnas-taught",),
    "Torch-Pruning, better of two": ("torch-pruning-taylor", "torch-pruning-norm"),
    "L1, global": ("global-l1",),
    "uniform, L1": ("uniform",),
    "uniform, L1, teacher": ("uniform-taught",),
    "from scratch, equal seconds": ("scratch",),
}
"""Of the summary, and which arms they have, of which the best counts."""

_NOTHING, _IMPOSSIBLE = "-", "n/a"
"""In place of an accuracy: not measured, and not possible with that network."""

Arms = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Cells of one network and share, by arm and seed."""


def tables(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for each network and share, under its title."""
    blocks = (
        f"**{title(*place)}**\n\n{table(result, NETWORKS[place[0]].left_out)}" for place, result in places(results)
    )
    return "\n\n".join(blocks)


def summary(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each network and share: ours, what others reach, and whether ours is no worse."""
    within = [(place, _within(_arms(result))) for place, result in places(results)]
    shown = [name for name, arms in _COLUMNS.items() if any(_best(found, arms) for _, found in within)]
    lines = [
        f"| network, MACs | unpruned | {' | '.join(shown)} | ours minus the best other | verdict | CPU-seconds: ours, "
        "that other | seeds |",
        f"|---|---:|{'---:|' * len(shown)}---|---|---:|---:|",
    ]
    for place, arms in within:
        accuracies = " | ".join(_column(arms, _COLUMNS[name], NETWORKS[place[0]].left_out) for name in shown)
        lines.append(f"| {title(*place)} | {_unpruned(arms)} | {accuracies} | {_against(arms)} |")
    counts = [len(cells) for _, arms in within for cells in arms.values()]
    facts = next(iter(next(iter(within[0][1].values())).values()))["facts"]
    note = (
        f"Test accuracy in per cent, {over_seeds(counts, 'standard deviation')}{_its_error(counts)}. The best "
        "other is the one with the highest accuracy; the difference is over equal seeds. *Better*: its 95% interval "
        f"(Student's t over seeds) is above 0; *no worse*: it is above -{MARGIN} points; *worse*: it is "
        f"below 0; *open*: none of these. The {MARGIN} points were fixed after the three seeds of ResNet-20 at 50% and "
        "the first seeds at 30%, and before any cell of another network. CPU-seconds of search and training, one "
        "thread, beside other work. "
        f"{software(facts)}"
    )
    for sign, says in ((_NOTHING, "not measured"), (_IMPOSSIBLE, "not possible with this network")):
        note += f" {sign}: {says}." if any(f"| {sign} |" in line for line in lines) else ""
    return "\n".join([*lines, "", note + _together({arm for _, arms in within for arm in arms})])


def _column(arms: Arms, names: Sequence[str], left_out: Collection[str]) -> str:
    """Of the summary, what the best of some arms reaches, or why nothing stands there."""
    best = _best(arms, names)
    if best is None:
        return _IMPOSSIBLE if all(name in left_out for name in names) else _NOTHING
    return _accuracy(arms[best])


def _together(measured: Collection[str], left_out: Collection[str] = ()) -> str:
    """That differences mix search and teacher, as long as the arms that tell them apart are not measured."""
    missing = [arm for arm in _TELL_APART if arm not in measured and arm not in left_out]
    if not missing or "ours" not in measured:
        return ""
    return (
        " Ours has the unpruned network as its teacher, and its rivals have none. The arms that tell search and "
        f"teacher apart ({', '.join(missing)}) were registered and are not measured; so the difference is of search "
        "and teacher together."
    )


def _within(arms: Arms) -> Arms:
    """Those whose networks all meet the limit."""
    return {arm: cells for arm, cells in arms.items() if all(cell["row"]["holds"] for cell in cells.values())}


def _its_error(counts: Sequence[int]) -> str:
    """What stands behind differences; one seed has no error."""
    return "; of the difference, its standard error" if max(counts) > 1 else ""


def places(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[tuple[str, int], Mapping[str, Any]]]:
    """Networks in their order, the largest share of the MACs first."""
    named = {(name.rpartition("_")[0], int(name.rpartition("_")[2])): result for name, result in results.items()}
    return sorted(named.items(), key=lambda item: (list(TITLES).index(item[0][0]), -item[0][1]))


def title(network: str, share: int) -> str:
    return f"{TITLES[network]}, {share}% of the MACs"


def _arms(result: Mapping[str, Any]) -> Arms:
    arms: dict[str, dict[int, Mapping[str, Any]]] = {}
    for cell in result["cells"].values():
        arms.setdefault(cell["arm"], {})[cell["seed"]] = cell
    return arms


def _mean(cells: Mapping[int, Mapping[str, Any]]) -> float:
    return statistics.mean(cell["row"]["test"]["accuracy"] for cell in cells.values())


def _accuracy(cells: Mapping[int, Mapping[str, Any]]) -> str:
    return percent([cell["row"]["test"]["accuracy"] for cell in cells.values()], digits=2)


def _unpruned(arms: Arms) -> str:
    """Of the network of each seed, which may have been trained anew."""
    found = [cell["facts"]["unpruned"]["accuracy"] for cells in arms.values() for cell in cells.values()]
    low, high = (f"{each(found):.2%}" for each in (min, max))
    return low if low == high else f"{low} to {high}"


def _best(arms: Arms, names: Iterable[str]) -> str | None:
    """The measured one with the highest accuracy; None if none was."""
    return max((name for name in names if name in arms), key=lambda name: _mean(arms[name]), default=None)


def _seconds(cells: Mapping[int, Mapping[str, Any]]) -> float:
    return statistics.mean(sum(cell["row"]["seconds"].values()) for cell in cells.values())


def _against(arms: Arms) -> str:
    """The last columns of the summary: the difference, what it says, seconds and seeds."""
    other = _best(arms, (arm for arm in arms if not arm.startswith("ours")))
    differences = [] if other is None else _differences(arms.get("ours", {}), arms[other])
    if other is None or not differences:
        return " | ".join([_NOTHING] * 4)
    seconds = f"{_seconds(arms['ours']):.0f}, {_seconds(arms[other]):.0f}"
    named = f"{with_error(differences, 2)} ({_NAMES.get(other, other)})"
    return f"{named} | {verdict(differences)} | {seconds} | {len(differences)}"


def verdict(differences: Sequence[float]) -> str:
    """What points of ours minus points of another say, one number per seed."""
    if len(differences) < 2:
        return "one seed"
    from scipy.stats import t

    error = statistics.stdev(differences) / math.sqrt(len(differences))
    around = float(t.ppf(0.975, len(differences) - 1)) * error
    low, high = statistics.mean(differences) - around, statistics.mean(differences) + around
    if low > 0:
        return "better"
    if low > -MARGIN:
        return "no worse"
    return "**worse**" if high < 0 else "open"


def table(result: Mapping[str, Any], left_out: Collection[str] = ()) -> str:
    """A line per arm, the most accurate first; its distance from FastNAS is of equal seeds.

    Args:
        result: Cells of one network and share.
        left_out: Arms that the network does not have.
    """
    arms = _arms(result)
    reference = next((arm for arm in _REFERENCES if arm in arms), "uniform")
    lines = [
        f"| | epochs | before | test accuracy | beside {_NAMES[reference]} | MACs | CPU-seconds: search | training "
        "| all | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for arm, cells in sorted(arms.items(), key=lambda item: -_mean(item[1])):
        lines.append(f"| {_SHOWN[arm]} | {_line(arm, cells, arms.get(reference, {}))} |")
    every = [cell["facts"] for cell in result["cells"].values()]
    facts, counts = every[0], [len(cells) for cells in arms.values()]
    note = (
        f"Accuracies in per cent, {over_seeds(counts, 'standard deviation')}{_its_error(counts)}. Unpruned: "
        f"{_unpruned(arms)}, {facts['full macs']:,} MACs; limit {facts['limit']}. Searched on "
        f"{facts['search images']:,} images, trained on {facts['train images']:,}, judged on "
        f"{facts['test images']:,} test images; *before* is the accuracy on unseen training images after pruning. "
        f"CPU-seconds of one thread, beside other work. {network_of(*every)} {software(facts)}"
    )
    missing = unmeasured(arm for arm in _SHOWN if arm not in arms and arm not in left_out)
    impossible = f" Not possible with this network: {', '.join(left_out)}." if left_out else ""
    return "\n".join([*lines, "", note + missing + impossible + _together(arms, left_out)])


def _line(arm: str, cells: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]) -> str:
    """The columns of one arm."""
    found, facts = [cell["row"] for cell in cells.values()], next(iter(cells.values()))["facts"]
    before = "" if arm in _FROM_SCRATCH else percent([row["before"]["accuracy"] for row in found])
    macs = f"{statistics.mean(row['macs'] for row in found) / facts['full macs']:.1%}"
    over = "" if all(row["holds"] for row in found) else " **over**"
    search, training = (statistics.mean(row["seconds"][part] for row in found) for part in ("search", "training"))
    taken = f"{search:.0f} | {training:.0f} | {search + training:.0f} | {len(found)}"
    beside = "" if cells is others or not set(cells) & set(others) else with_error(_differences(cells, others), 2)
    return f"{_epochs(found)} | {before} | {_accuracy(cells)} | {beside} | {macs}{over} | {taken}"


def _epochs(rows: Sequence[Mapping[str, Any]]) -> str:
    few, many = (each(row["epochs"] for row in rows) for each in (min, max))
    return f"{few}" if few == many else f"{few} to {many}"


def _differences(cells: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]) -> list[float]:
    """Of the test accuracies in points over the seeds of both; cells of a seed are of one network.

    Raises:
        ValueError: They are not.
    """
    differences = []
    for seed in sorted(set(cells) & set(others)):
        mine, theirs = cells[seed], others[seed]
        if mine["facts"]["network"] != theirs["facts"]["network"]:
            raise ValueError(f"Cells of {mine['arm']} and {theirs['arm']} with seed {seed} are of other networks.")
        differences.append(100 * (mine["row"]["test"]["accuracy"] - theirs["row"]["test"]["accuracy"]))
    return differences
