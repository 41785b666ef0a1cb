"""The table of policies_cifar10.py: one policy for several budgets beside a search for each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.policies import ROWS
from tabulated.summaries import over_seeds, software

Cell = Mapping[str, Any]
_ROWS = {name: row for name, row in ROWS.items() if row[0] != "nsga2"}
"""As there; `nsga2` takes no part."""


def table(result: Mapping[str, Any]) -> str:
    """The loss of what methods answer, and how often the policy is ahead of it."""
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
    counts = [sum(cell["method"] == method for cell in cells) for method, _, _ in _ROWS.values()]
    seen, unseen = (", ".join(f"{share:g}" for share in facts[kind]) for kind in ("seen", "unseen"))
    note = (
        f"Loss on {facts['unseen images']:,} images that no search saw, the mean over the shares: "
        f"{over_seeds([count for count in counts if count], 'standard deviation')}. *Ahead*: pairs of a seed and a "
        f"share in which the policy's answer has the lower loss. Shares of {facts['limit']} of the MACs: {seen} were "
        f"tried, {unseen} are in between; {facts['total']} evaluations on {facts['search images']} images for all "
        f"tried ones together. A public ResNet-20, unpruned loss {facts['unpruned loss']:.3f}, inherited weights in "
        f"the order of L1. {software(facts)}"
    )
    return "\n".join([*lines, "", note])


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
