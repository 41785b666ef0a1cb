"""The tables of generated.py: how sources of weights rank structures, and what searches with them end with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import over_seeds, percent, software, tau, tau_ahead, with_error

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
                mean = [statistics.mean(scores) for scores in zip(*(row["scores"] for row in rows), strict=True)]
                ahead, error = tau_ahead(mean, slices["ranked"][share]["scores"], rows[0]["truth"])
                columns[-1] = f"{ahead:+.2f} ± {error:.2f}"
        seconds = statistics.mean(cell["seconds"]["training"] for cell in mine)
        lines.append(f"| {source} | {' | '.join(columns)} | {seconds:.0f} | {len(mine)} |")
    return "\n".join(lines)


def _winners(cells: Sequence[Cell]) -> str:
    lines = [
        "| MACs | structure and weights | structures scored | before | finetuned | beside inherited, finetuned for "
        "longer | from scratch | beside inherited | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
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
            lines.append(
                f"| {share}% | {source} | {scored:,.0f} | {before} | {tuned} | "
                f"{_beside(found, arms.get(_LONGER, {}), 'finetuned')} | {scratch} | "
                f"{_beside(found, arms.get(_CHEAPEST, {}), 'scratch')} | {len(rows)} |"
            )
    return "\n".join(lines)


def _beside(mine: Mapping[int, Cell], theirs: Mapping[int, Cell], kind: str) -> str:
    """Mean difference in points over the seeds of both."""
    both = sorted(set(mine) & set(theirs))
    if not both or mine is theirs:
        return ""
    return with_error([100 * (mine[seed][kind] - theirs[seed][kind]) for seed in both], 2)


def _note(cells: Sequence[Cell]) -> str:
    facts, seeds = cells[0]["facts"], len({cell["seed"] for cell in cells})
    return (
        f"{len(cells)} cells of `python benchmarks/generated.py`. Taus and accuracies: "
        f"{over_seeds([1, seeds], 'standard deviation')}; of differences, the standard error. Unpruned: "
        f"{facts['unpruned']:.1%}. Supernet and compact form: {facts['steps']:,} steps. {facts['train images']:,} "
        f"images trained, {facts['search images']:,} scored, {facts['test images']:,} judged. {software(facts)}"
    )
