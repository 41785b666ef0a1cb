"""The tables of criteria.py: the same structures by which channels stay and with what weights."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import over_seeds, percent


def table(result: Mapping[str, Any]) -> str:
    """Accuracy of the same structures, by which channels stay and with what weights."""
    facts, blocks = result["facts"], []
    trained = [len(row["unpruned"]) for row in result["rows"].values()]
    for network, row in result["rows"].items():
        cells = {_place(cell): cell for cell in row["cells"]}
        shares, seeds = (list(dict.fromkeys(cell[key] for cell in row["cells"])) for key in ("keep", "seed"))
        lines = [
            "| criterion | weights | "
            + " | ".join(f"{share}: before | after | against l1" for share in shares)
            + " | rank | build |",
            f"|---|---|{'---:|---:|---:|' * len(shares)}---:|---:|",
        ]
        for criterion, weights in dict.fromkeys((cell["criterion"], cell["weights"]) for cell in row["cells"]):
            own = [cell for cell in row["cells"] if (cell["criterion"], cell["weights"]) == (criterion, weights)]
            columns = [_at_share([cell for cell in own if cell["keep"] == share], cells) for share in shares]
            rank, build = (statistics.median(cell["seconds"][part] for cell in own) for part in ("rank", "build"))
            lines.append(f"| {criterion} | {weights} | {' | '.join(columns)} | {rank:.1f} s | {build:.2f} s |")
        unpruned = [row["unpruned"][str(seed)] for seed in seeds]
        blocks.append(
            "\n".join(
                [f"**{network}**, unpruned {percent(unpruned)}; trained networks: {len(unpruned)}.", "", *lines, ""]
                + [_recovered(row, cells, share) for share in shares]
            )
        )
    after, against = (over_seeds(trained, spread) for spread in ("standard deviation", "standard error"))
    note = (
        f"Accuracy on {facts['test_images']:,} test images of {facts['data']} in per cent. Each seed trains a network "
        f"of its own, {facts['epochs']} epochs of {facts['train_images']:,} images, and gives the uniform structure "
        "and a random one; BatchNorm statistics are re-estimated on 1,024 images. *Before* any finetuning: both "
        f"structures, mean ± standard deviation; *after* {facts['finetune_epochs']} epoch of "
        f"{facts['finetune_images']:,} images (rate {facts['finetune_lr']}): the uniform one, {after}. *Against l1*: "
        "the accuracy afterwards minus that of `l1` with inherited weights, in points, "
        f"{against}. Seconds are medians, taken beside other work."
    )
    return "\n\n".join([*blocks, note])


def excerpt(result: Mapping[str, Any], row: str) -> str:
    """One criterion, or one weight source, on every network: accuracy before and after finetuning, and seconds."""
    sources = ("inherited", "compensated", "reconstructed")
    wanted = {"criterion": "l1", "weights": row} if row in sources else {"criterion": row, "weights": "inherited"}
    other = "`l1`, inherited" if row in sources else "`l1`, the same weights"
    lines = [
        f"| network | kept MACs | weights | before finetuning | after | {other}: before | after | ranking |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for network, found in result["rows"].items():
        for keep in ("50%", "30%"):
            for weights in sources if row not in sources else (row,):
                own = _accuracies(found["cells"], wanted["criterion"], weights, keep)
                base = _accuracies(found["cells"], "l1", "inherited" if row in sources else weights, keep)
                if own is not None and base is not None:
                    shown = f"{own[0]:.1f} | {own[1]:.1f} | {base[0]:.1f} | {base[1]:.1f} | {own[2]:.1f} s"
                    lines.append(f"| {network} | {keep} | {weights} | {shown} |")
    if len(lines) == 2:
        return f"`{row}` is not in these measurements yet."
    note = "Per cent of test images, means; conditions as in the table of all criteria (docs/criteria.md)."
    return "\n".join([*lines, "", note])


def _place(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return (cell["criterion"], cell["weights"], cell["seed"], cell["keep"], tuple(cell["structure"]))


def _by_l1(
    cells: Mapping[tuple[Any, ...], Mapping[str, Any]], weights: str, cell: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The same structure with the channels of `l1`."""
    return cells[_place({**cell, "criterion": "l1", "weights": weights})]


def _at_share(own: Sequence[Mapping[str, Any]], cells: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> str:
    """Before, after, and the paired difference to l1."""
    tuned = [cell for cell in own if cell["after"] is not None]
    gaps = [cell["after"] - _by_l1(cells, "inherited", cell)["after"] for cell in tuned]
    error = f" ± {100 * statistics.stdev(gaps) / len(gaps) ** 0.5:.1f}" if len(gaps) > 1 else ""
    paired = f"{100 * statistics.mean(gaps):+.1f}{error}" if any(gaps) else ""
    return " | ".join([percent([cell["before"] for cell in own]), percent([cell["after"] for cell in tuned]), paired])


def _recovered(row: Mapping[str, Any], cells: Mapping[tuple[Any, ...], Mapping[str, Any]], share: str) -> str:
    """How much of what slicing loses with l1 each weight source gets back before finetuning."""
    sliced = [cell for cell in row["cells"] if _place(cell)[:2] == ("l1", "inherited") and cell["keep"] == share]
    sentences = []
    for source in dict.fromkeys(cell["weights"] for cell in row["cells"]):
        shares = [
            (_by_l1(cells, source, cell)["before"] - cell["before"])
            / (row["unpruned"][str(cell["seed"])] - cell["before"])
            for cell in sliced
        ]
        if source != "inherited":
            sentences.append(f"{source} {statistics.mean(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})")
    told = ", ".join(sentences)
    return f"Slicing by `l1` to {share} loses accuracy; this share of it is back before finetuning: {told}."


def _accuracies(
    cells: Sequence[Mapping[str, Any]], criterion: str, weights: str, keep: str
) -> tuple[float, float, float] | None:
    """Mean accuracy before and after finetuning in per cent, and the median seconds that ranking takes."""
    mine = [cell for cell in cells if (cell["criterion"], cell["weights"], cell["keep"]) == (criterion, weights, keep)]
    after = [cell["after"] for cell in mine if cell["after"] is not None]
    if not after:
        return None
    before = statistics.mean(cell["before"] for cell in mine)
    return 100 * before, 100 * statistics.mean(after), statistics.median(cell["seconds"]["rank"] for cell in mine)
