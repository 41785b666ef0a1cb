"""The tables of generated.py: how sources of weights rank structures, and what searches with them end with."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from generated import ARMS, BUDGETS, TRAINED, TRAININGS

from tabulated.summaries import mean_tau_ahead, over_seeds, percent, software, tau, unmeasured, with_error

Cell = Mapping[str, Any]
_CHEAPEST, _LONGER = "inherited", "inherited-longer"


def table(result: Mapping[str, Any]) -> str:
    """How well scores rank, then the winners."""
    cells = list(result["cells"].values())
    ranked = [cell for cell in cells if "ranked" in cell]
    winners = [cell for cell in cells if "finetuned" in cell]
    parts = [_ranking(ranked)] if ranked else []
    parts += [_winners(winners)] if winners else []
    return "\n\n".join([*parts, _note(cells)])


def _ranking(cells: Sequence[Cell]) -> str:
    shares = list(dict.fromkeys(share for cell in cells for share in cell["ranked"]))
    heads = " | ".join(f"{share}%: tau | ahead of slices" for share in shares)
    lines = [
        f"| weights | {heads} | CPU-seconds of training | trainings |",
        f"|---|{'---:|' * (2 * len(shares) + 2)}",
    ]
    slices = next((cell for cell in cells if cell["source"] == _CHEAPEST), None)
    for source in dict.fromkeys(cell["source"] for cell in cells):
        mine, columns = [cell for cell in cells if cell["source"] == source], []
        for share in shares:
            rows = [cell["ranked"][share] for cell in mine]
            taus = [tau(row["scores"], row["truth"]) for row in rows]
            spread = f" ± {statistics.stdev(taus):.2f}" if len(taus) > 1 else ""
            columns += [f"{statistics.mean(taus):.2f}{spread}", ""]
            if slices is not None and source != _CHEAPEST:
                scores, theirs = [row["scores"] for row in rows], slices["ranked"][share]["scores"]
                ahead, error = mean_tau_ahead(scores, theirs, rows[0]["truth"])
                trainings = f" ({statistics.stdev(taus):.2f} between trainings)" if len(taus) > 1 else ""
                columns[-1] = f"{ahead:+.2f} ± {error:.2f}{trainings}"
        seconds = statistics.mean(cell["seconds"]["training"] for cell in mine)
        lines.append(f"| {source} | {' | '.join(columns)} | {seconds:.0f} | {len(mine)} |")
    return "\n".join(lines)


def _winners(cells: Sequence[Cell]) -> str:
    lines = [
        "| MACs | structure and weights | structures scored | before | finetuned | beside inherited, finetuned for "
        "longer | from scratch | beside inherited | CPU-seconds: training, in full | search | trainings | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for share in dict.fromkeys(cell["share"] for cell in cells):
        arms: dict[str, dict[int, Cell]] = {}
        for cell in cells:
            if cell["share"] == share:
                arms.setdefault(cell["source"], {})[cell["seed"]] = cell
        for source, found in arms.items():
            rows = list(found.values())
            before, tuned, scratch = (
                percent([row[kind] for row in rows]) for kind in ("before", "finetuned", "scratch")
            )
            scored = statistics.mean(row["evaluations"] for row in rows)
            training, search = (
                statistics.mean(row["seconds"][part] for row in rows) for part in ("training", "search")
            )
            lines.append(
                f"| {share}% | {source} | {scored:,.0f} | {before} | {tuned} | "
                f"{_beside(found, arms.get(_LONGER, {}), 'finetuned')} | {scratch} | "
                f"{_beside(found, arms.get(_CHEAPEST, {}), 'scratch')} | {training:.0f} | {search:.0f} | "
                f"{_trainings(source, found) or ''} | {len(rows)} |"
            )
    return "\n".join(lines)


def _trainings(source: str, seeds: Iterable[int]) -> int:
    """How many trainings of a source some seeds have between them; 0 of one that is not trained."""
    return len({seed % TRAININGS for seed in seeds}) if source in TRAINED else 0


def _beside(mine: Mapping[int, Cell], theirs: Mapping[int, Cell], kind: str) -> str:
    """Mean difference in points over the seeds of both."""
    both = sorted(set(mine) & set(theirs))
    if not both or mine is theirs:
        return ""
    return with_error([100 * (mine[seed][kind] - theirs[seed][kind]) for seed in both], 2)


def _note(cells: Sequence[Cell]) -> str:
    facts, seeds = cells[0]["facts"], len({cell["seed"] for cell in cells})
    measured = {(str(cell["share"]) if "share" in cell else "rank") + f"-{cell['source']}" for cell in cells}
    missing = unmeasured(arm for arm in ARMS if arm not in measured)
    return (
        f"{len(cells)} cells of `python benchmarks/generated.py`. Taus and accuracies: "
        f"{over_seeds([1, seeds], 'standard deviation')}; of differences, the standard error. Unpruned: "
        f"{facts['unpruned']:.1%}. *Ahead of slices*: the mean over trainings, and its standard error over structures. "
        f"Supernet and compact form: {facts['steps']:,} steps. Seeds have {TRAININGS} trainings in turn, so seeds 0 "
        f"and {TRAININGS} share one; what is shared is no independent seed. All sources rank channels by L1. "
        "Equal CPU-seconds: a search is "
        f"charged 1/{BUDGETS} of its training, as if one served {BUDGETS} budgets, although there are "
        f"{len(facts['shares'])} here; the table has the training in full. {facts['train images']:,} images trained, "
        f"{facts['search images']:,} scored, {facts['test images']:,} judged. {software(facts)}{missing}"
    )
