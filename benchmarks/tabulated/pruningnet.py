"""The tables of pruningnet.py: how scores with generated weights rank, and what searches with them end with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import over_seeds, percent, tau

_SOURCES = ("inherited", "supernet", "compact, sandwich", "compact", "published", "published, scratch")


def table(result: Mapping[str, Any]) -> str:
    """How scores with generated weights rank structures, and what searches with them end with."""
    facts, blocks = result["facts"], []
    shares = [f"{keep:.0%}" for keep in facts["keep"]]
    n, seeds = facts["structures"], facts["seeds"]
    for network, row in result["rows"].items():
        cells = row["cells"]
        truth = {share: [cells[f"truth {share} {i}"] for i in range(n)] for share in shares}
        head = " | ".join(f"{share}: finetuned | from scratch" for share in shares)
        lines = [
            f"**{network}**, unpruned {row['unpruned']:.1%}. Kendall's tau of the score with the accuracy, at shares "
            f"of the MACs; n = {n} structures each.",
            "",
            f"| weights | parameters | trainings | seconds each | {head} | ms per score |",
            f"|---|---:|---:|---:|{'---:|' * 2 * len(shares)}---:|",
        ]
        for source in (source for source in _SOURCES if f"scores {source} 0" in cells):
            lines.append(f"| {source} | {_ranking(cells, source, truth, seeds)} |")
        lines += [
            "",
            f"Test accuracy of the winner after {facts['winner_epochs']} epochs of finetuning, in percent.",
            "",
        ]
        lines += [f"| structure and weights | {' | '.join(shares)} | seeds |", f"|---|{'---:|' * len(shares)}---:|"]
        for source in ("uniform", *_SOURCES):
            lines.append(_winners(cells, source, shares, seeds, "accuracy", source))
        longer = " and ".join(
            f"{cells[f'winner inherited {share} 0']['epochs at equal compute']} (at {share})" for share in shares
        )
        named = f"inherited, finetuned at equal total compute: {longer} epochs"
        lines.append(_winners(cells, "inherited", shares, seeds, "accuracy at equal compute", named))
        blocks.append("\n".join(lines))
    counts = [
        count
        for row in result["rows"].values()
        for source in ("uniform", *_SOURCES)
        for count in _counts(row["cells"], source, shares, seeds)
    ]
    error = (2 * (2 * n + 5) / (9 * n * (n - 1))) ** 0.5
    note = (
        f"Taus and accuracies of winners: {over_seeds(counts, 'standard deviation')}, of training and "
        f"search. {facts['data']}, images averaged over "
        f"{facts['pool']}x{facts['pool']} pixels, {facts['train_images']:,} for training, of which "
        f"{facts['calibration']:,} only score; 10,000 test images. Scores: minus the loss on those. A structure's "
        f"accuracy: {facts['finetune_epochs']} epochs from inherited weights, or {facts['scratch_epochs']} from "
        f"scratch, one seed. With {n} structures the standard error of a tau of 0 is {error:.2f}. PruningNets: "
        f"{facts['pruningnet_epochs']} epochs; the supernet as many as cost about as many MACs. Searches: evolution, "
        f"{facts['trials']} structures, {facts['scoring_images']} images. {facts['threads']} thread of a machine that "
        f"others shared, torch {facts['torch']}, CPU only."
    )
    return "\n\n".join([*blocks, note])


def _counts(cells: Mapping[str, Any], source: str, shares: Sequence[str], seeds: int) -> list[int]:
    """How many seeds each row of a source has."""
    rows = (f"scores {source}", *(f"winner {source} {share}" for share in shares))
    counts = (sum(f"{row} {seed}" in cells for seed in range(seeds)) for row in rows)
    return [count for count in counts if count]


def _ranking(cells: Mapping[str, Any], source: str, truth: Mapping[str, Any], seeds: int) -> str:
    """Size, training time, the taus and the time of a score."""
    scored = [cells[f"scores {source} {seed}"] for seed in range(seeds) if f"scores {source} {seed}" in cells]
    trained = [cells[f"train {source} {seed}"] for seed in range(seeds) if f"train {source} {seed}" in cells]
    taus = []
    for share, entries in truth.items():
        for kind in ("finetuned", "scratch"):
            accuracies = [entry[kind] for entry in entries]
            found = [tau(cell["scores"][share][: len(accuracies)], accuracies) for cell in scored]
            taus.append(f"{statistics.mean(found):.2f}" + (f" ± {statistics.stdev(found):.2f}" if found[1:] else ""))
    size = f"{trained[0]['params']:,}" if trained else ""
    timed = [cell["seconds"] for cell in trained if cell["seconds"] is not None]
    seconds = f"{statistics.median(timed):.0f}" if timed else ""
    each = f"{1e3 * statistics.median(cell['seconds per structure'] for cell in scored):.0f}"
    return " | ".join([size, str(len(trained) or ""), seconds, *taus, each])


def _winners(cells: Mapping[str, Any], source: str, shares: Sequence[str], seeds: int, kind: str, named: str) -> str:
    """A line of accuracies."""
    columns = [
        [cells[name][kind] for seed in range(seeds) if (name := f"winner {source} {share} {seed}") in cells]
        for share in shares
    ]
    runs = " and ".join(dict.fromkeys(str(len(column)) for column in columns))
    return f"| {named} | {' | '.join(percent(column) if column else '' for column in columns)} | {runs} |"
