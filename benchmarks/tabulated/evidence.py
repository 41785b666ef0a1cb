"""The tables of end_to_end.py: every arm in full, a summary, and whether the goal is met."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulated.summaries import over_seeds

OURS = "ours"
"""The combination that the goal is about, fixed before its table was filled; but see `CHANGED`."""

CHANGED = (
    "One setting of ours, the ridge of the reconstruction, was changed after test accuracies of it had been seen; all "
    "its cells were then measured again."
)
"""What was chosen by what should have chosen nothing; docs/evidence.md has the whole story."""


RIVALS: Mapping[str, tuple[str, ...]] = {
    "uniform": ("uniform",),
    "L1, global": ("l1 global",),
    "Torch-Pruning, better of two": ("torch-pruning, taylor", "torch-pruning, norm"),
    "ModelOpt FastNAS": ("fastnas",),
    "from scratch, better of two": ("scratch", "scratch, equal compute"),
}
TITLES: Mapping[str, str] = {
    "ours": "**ours**: surrogate search, then layers reconstructed",
    "uniform": "uniform, L1",
    "l1 global": "L1, one order over all layers",
    "torch-pruning, taylor": "Torch-Pruning: Taylor, global, isomorphic",
    "torch-pruning, norm": "Torch-Pruning: group norms, global, isomorphic",
    "fastnas": "ModelOpt FastNAS",
    "scratch": "uniform structure from scratch, as many epochs as finetuning",
    "scratch, equal compute": "uniform structure from scratch, compute of training and finetuning",
}


@dataclass(frozen=True)
class Row:
    """What is known of one arm, network and budget.

    Attributes:
        cells: Those that were measured, by seed.
        failure: The sentence of one that failed, if none was measured.
    """

    cells: Mapping[int, Mapping[str, Any]]
    failure: str | None

    @property
    def why_empty(self) -> str:
        """What stands where there is no number."""
        return "failed" if self.failure else "not run"

    @property
    def accuracies(self) -> list[float]:
        """On the test images, per seed."""
        return [cell["accuracy"] for cell in self.cells.values()]

    @property
    def accuracy(self) -> float:
        """Their mean."""
        return statistics.mean(self.accuracies)

    @property
    def seconds(self) -> float:
        """Of search and finetuning, mean."""
        return statistics.mean(cell["seconds"]["search"] + cell["seconds"]["finetune"] for cell in self.cells.values())

    @property
    def holds(self) -> bool:
        """Whether every network is within the budget."""
        return all(cell["holds"] for cell in self.cells.values())


@dataclass(frozen=True)
class Verdict:
    """How ours compares with the rivals at one network and budget.

    Attributes:
        text: In words.
        accuracy: Whether it is best or tied; None if a side is not measured.
        time: Whether it takes no more than FastNAS; None likewise.
        complete: Whether all rivals were run, so that none can still win.
    """

    text: str
    accuracy: bool | None
    time: bool | None
    complete: bool

    @property
    def met(self) -> bool | None:
        """Both; None while it is open."""
        if self.accuracy is False or self.time is False:
            return False
        return True if self.accuracy and self.time and self.complete else None


def end_to_end(result: Mapping[str, Any]) -> str:
    """The summary: ours beside the rivals, a line per network and budget, with the goal."""
    lines = [
        f"| network, MACs | {' | '.join(['ours', *RIVALS])} | seconds: ours, FastNAS | goal |",
        f"|---|{'---:|' * (len(RIVALS) + 2)}---|",
    ]
    counts: list[int] = []
    for place in places(result):
        rows = {arm: row_of(result, *place, arm) for arm in (OURS, *itertools.chain(*RIVALS.values()))}
        columns = [rows[OURS], *(better_of([rows[arm] for arm in arms]) for arms in RIVALS.values())]
        highest = max((row.accuracy for row in columns if row.cells), default=None)
        times = (f"{row.seconds:.0f}" if row.cells else row.why_empty for row in (rows[OURS], rows["fastnas"]))
        took = ", ".join(times)
        shown = " | ".join(accuracy_of(row, highest) for row in columns)
        lines.append(f"| {place[0]}, {place[1]} | {shown} | {took} | {in_short(verdict(rows, result))} |")
        counts += [len(row.cells) for row in columns if row.cells]
    return "\n".join([*lines, "", overall(result), "", note(result, counts)])


def evidence(result: Mapping[str, Any]) -> str:
    """Every arm that was run, a table per network and budget."""
    blocks, counts = [overall(result), unpruned(result)], [len(runs) for runs in unpruned_runs(result).values()]
    for network, budget in places(result):
        rows = {arm: row_of(result, network, budget, arm) for arm in result["facts"]["arms"]}
        full = next((row for name, row in result["unpruned"].items() if name.startswith(f"{network} |")), None)
        highest = max((row.accuracy for row in rows.values() if row.cells), default=None)
        lines = [
            f"**{network}, {budget} of the MACs.** {verdict(rows, result).text}",
            "",
            "| | seeds | test accuracy | before finetuning | MACs | parameters "
            "| seconds: search | finetuning | in all |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        shown = {arm: row for arm, row in rows.items() if row.cells or row.failure}
        if not shown:
            continue
        lines += [f"| {TITLES.get(arm, arm)} | {line(row, full, highest)} |" for arm, row in shown.items()]
        counts += [len(row.cells) for row in rows.values() if row.cells]
        notes = [f"{TITLES.get(arm, arm)}: {row.failure}" for arm, row in rows.items() if row.failure]
        blocks.append("\n".join([*lines, *(f"\nFailed: {sentence}" for sentence in notes)]))
    return "\n\n".join([*blocks, note(result, counts)])


def places(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Networks and budgets, those of the defaults first, empty ones too."""
    facts = result["facts"]
    named = list(itertools.product(facts.get("networks", ()), facts.get("budgets", ())))
    measured = [tuple(key.split(" | ")[:2]) for key in result["cells"]]
    return list(dict.fromkeys([*named, *((network, budget) for network, budget in measured)]))


def row_of(result: Mapping[str, Any], network: str, budget: str, arm: str) -> Row:
    """All seeds of an arm."""
    found, failure = {}, None
    for key, cell in result["cells"].items():
        *place, seed = key.split(" | ")
        if place == [network, budget, arm]:
            if "failure" in cell:
                failure = cell["failure"]
            else:
                found[int(seed)] = cell
    return Row(dict(sorted(found.items())), None if found else failure)


def better_of(rows: Sequence[Row]) -> Row:
    """The one with the higher mean."""
    measured = [row for row in rows if row.cells]
    return max(measured, key=lambda row: row.accuracy) if measured else rows[0]


def verdict(rows: Mapping[str, Row], result: Mapping[str, Any]) -> Verdict:
    """Best or tied within one standard error of the difference, within the budget, at no more seconds than FastNAS."""
    ours, fastnas = rows[OURS], rows["fastnas"]
    rivals = {arm: rows[arm] for arm in itertools.chain(*RIVALS.values()) if rows[arm].cells and rows[arm].holds}
    missing = [
        arm for arm in itertools.chain([OURS], *RIVALS.values()) if not rows[arm].cells and not rows[arm].failure
    ]
    if not ours.cells or not rivals:
        return Verdict("Ours, or all others, not run.", None, None, False)
    best = max(rivals, key=lambda arm: rivals[arm].accuracy)
    gap, error, how = difference(ours, rivals[best], result["facts"]["settings"]["test_images"])
    tied = gap >= -error and ours.holds
    words = "better than" if gap > error else "tied with" if gap >= -error else "**behind**"
    text = (
        f"Ours is {words} the best of the others, {TITLES[best]}: {100 * gap:+.2f} points, standard error of the "
        f"difference {100 * error:.2f} ({how})."
    )
    if not ours.holds:
        text += " But ours is over the budget."
    if missing:
        text += f" Not run: {', '.join(missing)}."
    if not fastnas.cells:
        return Verdict(text, tied, None, not missing)
    quick = ours.seconds <= fastnas.seconds
    text += f" It took {ours.seconds:.0f} s, FastNAS {fastnas.seconds:.0f} s."
    return Verdict(text, tied, quick, not missing)


def difference(ours: Row, other: Row, test_images: int) -> tuple[float, float, str]:
    """Mean difference, its standard error, and what that comes from."""
    seeds = sorted(ours.cells.keys() & other.cells.keys())
    gaps = [ours.cells[seed]["accuracy"] - other.cells[seed]["accuracy"] for seed in seeds]
    if len(gaps) > 1:
        return statistics.mean(gaps), statistics.stdev(gaps) / len(gaps) ** 0.5, f"{len(gaps)} seeds, paired"
    gap = gaps[0] if gaps else ours.accuracy - other.accuracy
    shares = [row.accuracy for row in (ours, other)]
    error = (sum(share * (1 - share) for share in shares) / test_images) ** 0.5
    return gap, error, f"one seed, so of the {test_images:,} test images alone"


def in_short(found: Verdict) -> str:
    """A cell of the summary."""
    if found.accuracy is None:
        return "not run"
    accuracy = f"best or tied{'' if found.complete else ' so far'}" if found.accuracy else "**behind**"
    return f"{accuracy}, {'no time of FastNAS' if found.time is None else 'in time' if found.time else '**slower**'}"


def overall(result: Mapping[str, Any]) -> str:
    """In how many cells the goal is met."""
    arms = result["facts"]["arms"]
    verdicts = [verdict({arm: row_of(result, *place, arm) for arm in arms}, result) for place in places(result)]
    met, missed = (sum(v.met is wanted for v in verdicts) for wanted in (True, False))
    return (
        "The goal: ours best or tied within one standard error of the difference, at no more total seconds than "
        f"FastNAS. Met at {met} of {len(verdicts)} networks and budgets, missed at {missed}, not decided yet at "
        f"{len(verdicts) - met - missed}."
    )


def line(row: Row, full: Mapping[str, Any] | None, highest: float | None) -> str:
    """The columns of one arm."""
    if not row.cells:
        return f"{row.why_empty}{' |' * 7}"
    cells = list(row.cells.values())
    before = [cell["before"] for cell in cells if cell["before"] is not None]
    macs, params = (statistics.mean(cell[cost] for cell in cells) for cost in ("macs", "params"))
    shares = ["", ""] if full is None else [f"{macs / full['macs']:.1%}", f"{params / full['params']:.1%}"]
    shares[0] += "" if row.holds else " **over**"
    spent = [statistics.mean(cell["seconds"][part] for cell in cells) for part in ("search", "finetune")]
    columns = [str(len(cells)), accuracy_of(row, highest), f"{100 * statistics.mean(before):.1f}" if before else ""]
    return " | ".join([*columns, *shares, *(f"{seconds:.0f}" for seconds in (*spent, sum(spent)))])


def accuracy_of(row: Row, highest: float | None) -> str:
    """Mean and standard error in per cent; the highest in bold."""
    if not row.cells:
        return row.why_empty
    text = spread(row.accuracies)
    return f"**{text}**" if row.accuracy == highest else text


def spread(values: Sequence[float]) -> str:
    """Mean and standard error in per cent; of one value no error."""
    error = f" ± {100 * statistics.stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{error}"


def unpruned_runs(result: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The networks that everything starts from, by name: one for each seed."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for name, row in result["unpruned"].items():
        rows.setdefault(name.partition(" | ")[0], []).append(row)
    return rows


def unpruned(result: Mapping[str, Any]) -> str:
    """Their table."""
    lines = ["| unpruned | MACs | parameters | test accuracy | seeds |", "|---|---:|---:|---:|---:|"]
    for network, runs in unpruned_runs(result).items():
        accuracy = spread([run["accuracy"] for run in runs])
        lines.append(f"| {network} | {runs[0]['macs']:,} | {runs[0]['params']:,} | {accuracy} | {len(runs)} |")
    return "\n".join(lines)


def note(result: Mapping[str, Any], counts: Sequence[int]) -> str:
    """How it was measured; `counts` has the seeds of every row."""
    facts, settings = result["facts"], result["facts"]["settings"]
    packages = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"Test accuracy in per cent, {over_seeds(counts, 'standard error')}. {settings['data']}, "
        f"{settings['image_size']}x{settings['image_size']} pixels: {settings['train_images']:,} images train, "
        f"{settings['search_images']:,} are searched with, {settings['validation_images']:,} give the accuracy before "
        f"finetuning, {settings['test_images']:,} test images are looked at once per cell. {CHANGED} Networks trained "
        f"for {settings['epochs']} epochs, all arms finetuned by the same recipe for {settings['finetune_epochs']}, "
        f"searches of {settings['trials']} structures. A seed trains its own network. Seconds of one CPU core, search "
        "and finetuning, without the training of the unpruned network; other work on the machine varies them. "
        f"{facts['threads']} thread of {facts['machine']}; {packages}."
    )
