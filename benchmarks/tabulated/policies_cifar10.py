"""The table of policies_cifar10.py: one policy for several budgets beside a search for each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.policies import ROWS
from tabulated.summaries import network_of, over_seeds, software, unmeasured

Cell = Mapping[str, Any]
_ROWS = {name: row for name, row in ROWS.items() if row[0] != "nsga2"}
"""As there; `nsga2` takes no part."""
_GUESSING = math.log(10)
"""The loss of naming each of the ten classes equally likely."""


def table(result: Mapping[str, Any]) -> str:
    """The loss of what methods answer, and how often the policy is ahead of it; then the loss by share."""
    cells = list(result["cells"].values())
    facts = cells[0]["facts"]
    lines = [
        "| method | loss, tried shares | the policy is ahead | loss, shares in between | the policy is ahead | further "
        "evaluations for one in between | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    policy = {cell["seed"]: cell["answers"]["policy"] for cell in cells if cell["method"] == "conditional"}
    for name, (method, tried, between) in _ROWS.items():
        mine = [cell for cell in cells if cell["method"] == method]
        if not mine:
            continue
        columns = []
        for answer, shares in ((tried, facts["seen"]), (between, facts["unseen"])):
            columns += [_losses(mine, answer, shares), _ahead(mine, policy, answer, shares)]
        further = facts["total"] // len(facts["seen"]) if between == "searched" and method != "uniform" else 0
        lines.append(f"| {name} | {' | '.join(columns)} | {further} | {len(mine)} |")
    by_share, guessing = _by_share(cells)
    missing = unmeasured(
        f"`{method}`"
        for method in dict.fromkeys(row[0] for row in _ROWS.values())
        if all(cell["method"] != method for cell in cells)
    )
    counts = [sum(cell["method"] == method for cell in cells) for method, _, _ in _ROWS.values()]
    seen, unseen = (", ".join(f"{share:g}" for share in facts[kind]) for kind in ("seen", "unseen"))
    note = (
        f"Loss on {facts['unseen images']:,} images that no search saw, the mean over the shares: "
        f"{over_seeds([count for count in counts if count], 'standard deviation')}. *Ahead*: pairs of a seed and a "
        f"share in which the policy's answer has the lower loss. Shares of {facts['limit']} of the MACs: {seen} were "
        f"tried, {unseen} are in between; {facts['total']} evaluations on {facts['search images']} images for all "
        f"tried ones together. A public ResNet-20, unpruned loss {facts['unpruned loss']:.3f}, inherited weights in "
        f"the order of L1. {network_of(facts)} Naming all ten classes equally likely has a loss of {_GUESSING:.3f}. "
        f"{_no_better(guessing)}*Of the limit*: which part of the MACs that they may have the answers use, the mean "
        f"over the shares. {software(facts)}{missing}"
    )
    return "\n".join([*lines, "", by_share, "", note])


def _by_share(cells: Sequence[Cell]) -> tuple[str, list[float]]:
    """The second table, and the shares at which no answer is better than guessing."""
    facts = cells[0]["facts"]
    shares = sorted([*facts["seen"], *facts["unseen"]], reverse=True)
    heads = " | ".join(f"{share:g}" if share in facts["seen"] else f"*{share:g}*" for share in shares)
    lines = [f"| loss at a share of the budget | {heads} | of the limit |", f"|---|{'---:|' * (len(shares) + 1)}"]
    lowest: dict[float, float] = {}
    for name, (method, tried, between) in _ROWS.items():
        mine = [cell for cell in cells if cell["method"] == method]
        if not mine:
            continue
        columns, used = [], []
        for share in shares:
            answer = tried if share in facts["seen"] else between
            found = [] if answer is None else [cell["answers"][answer][f"{share:g}"] for cell in mine]
            columns.append(f"{statistics.mean(each['loss'] for each in found):.2f}" if found else "")
            used += [each["macs"] / (share * float(facts["limit"].removesuffix("%")) / 100) for each in found]
            lowest[share] = min([lowest.get(share, math.inf), *(each["loss"] for each in found)])
        lines.append(f"| {name} | {' | '.join(columns)} | {statistics.mean(used):.1%} |")
    return "\n".join(lines), [share for share in shares if lowest[share] > _GUESSING]


def _no_better(shares: Sequence[float]) -> str:
    if not shares:
        return ""
    named = ", ".join(f"{share:g}" for share in shares)
    return f"At the shares {named} every answer of every method is worse than that, and these dominate the means. "


def _losses(cells: Sequence[Cell], answer: str | None, shares: Sequence[float]) -> str:
    """Mean over the shares, then over the seeds."""
    if answer is None:
        return ""
    means = [statistics.mean(cell["answers"][answer][f"{share:g}"]["loss"] for share in shares) for cell in cells]
    return f"{statistics.mean(means):.3f}" + (f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else "")


def _ahead(cells: Sequence[Cell], policy: Mapping[int, Any], answer: str | None, shares: Sequence[float]) -> str:
    """In how many pairs of a seed and a share the policy's answer is better."""
    if answer in (None, "policy"):
        return ""
    pairs = [
        (policy[cell["seed"]][f"{share:g}"]["loss"], cell["answers"][answer][f"{share:g}"]["loss"])
        for cell in cells if cell["seed"] in policy for share in shares
    ]  # fmt: skip
    return f"{sum(mine < theirs for mine, theirs in pairs)} of {len(pairs)}" if pairs else ""
