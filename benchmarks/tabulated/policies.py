"""The tables of policies.py and actors.py: one policy for several shares of a budget, and why it got stuck."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulated.summaries import quartiles

Cell = Mapping[str, Any]
ROWS = {
    "`conditional`, its policy": ("conditional", "policy", "policy"),
    "`conditional`, the best of its trials": ("conditional", "best trial", "best trial"),
    "`nsga2`, the best of its trials": ("nsga2", "best trial", "best trial"),
    "`surrogate`, a search per share": ("surrogate", "searched", "searched"),
    "`surrogate`, the best of the trials for other shares": ("surrogate", None, "best trial"),
    "`evolution`, a search per share": ("evolution", "searched", "searched"),
    "`evolution`, the best of the trials for other shares": ("evolution", None, "best trial"),
    "`random`, a search per share": ("random", "searched", "searched"),
    "`random`, the best of the trials for other shares": ("random", None, "best trial"),
    "`uniform`": ("uniform", "searched", "searched"),
}
"""By name: the method, what it answers for a share that it was told of, and for one that it was not."""
_SAME = 0.05  # wants of groups that differ by less are the same
_END = 0.01  # a want that is nearer than this to 0 or 1 is at an end


def policies(result: Mapping[str, Any]) -> str:
    """Regret by landscape and method, for shares that were tried and for those between; then who is ahead how often."""
    facts, cells = result["facts"], list(result["cells"].values())
    few, many = facts["totals"]
    lines = [
        f"| landscape | method | tried shares, {few} evaluations | {many} | shares in between, {few} | {many} "
        "| further evaluations for one in between |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for landscape in dict.fromkeys(cell["landscape"] for cell in cells):
        for name, (method, tried, between) in ROWS.items():
            chosen = [cell for cell in cells if (cell["landscape"], cell["method"]) == (landscape, method)]
            values = [
                quartiles(_means(chosen, answer, facts[shares], at))
                for answer, shares in ((tried, "seen"), (between, "unseen"))
                for at in (0, 1)
            ]
            lines.append(f"| {landscape} | {name} | {' | '.join(values)} | {_further(facts, method, between)} |")
    return "\n\n".join(["\n".join(lines), _note(facts, cells), _duels(facts, cells)])


def actors(result: Mapping[str, Any]) -> str:
    """What became of the policy, by landscape and parts of the agent."""
    cells, arms = list(result["cells"].values()), result["facts"]["arms"]
    lines = [
        "| landscape | actor | bounds of a walk | settings | episodes | regret of the policy | wants the same of all "
        "groups | better than uniform | better than a random search | groups at an end, pushed on | gets through |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for landscape in dict.fromkeys(cell["landscape"] for cell in cells):
        for arm, parts in arms.items():
            chosen = [cell for cell in cells if (cell["landscape"], cell["arm"]) == (landscape, arm)]
            for episodes in chosen[0]["after"] if chosen else ():
                about = (
                    f"{landscape} | {parts['actor']} | {parts['bounds']} | {_settings(parts['settings'])} | {episodes}"
                )
                lines.append(f"| {about} | {_became(chosen, episodes, parts['actor'] == 'sigmoid')} |")
    return "\n\n".join(["\n".join(lines), _actors_note(cells)])


def _settings(words: str) -> str:
    """Those of an arm as the page calls them."""
    return words.replace("former", "other").replace("present", "default")


def _became(cells: Sequence[Cell], episodes: str, is_sigmoid: bool) -> str:
    after = [cell["after"][episodes] for cell in cells]
    count = len(cells)
    regrets = [found["regret"] for found in after]
    stuck = sum(max(found["wanted"]) - min(found["wanted"]) < _SAME for found in after)
    uniform = sum(regret < cell["uniform"] for regret, cell in zip(regrets, cells, strict=True))
    random = sum(regret < cell["random"][episodes] for regret, cell in zip(regrets, cells, strict=True))
    counted = " | ".join(f"{number} of {count}" for number in (stuck, uniform, random))
    return f"{quartiles(regrets)} | {counted} | {_at_the_ends(after) if is_sigmoid else ' | '}"


def _at_the_ends(after: Sequence[Cell]) -> str:
    """Of sigmoids: how many groups are wanted whole or not at all, how many of those are pushed on, and the slope."""
    groups = [pair for found in after for pair in zip(found["wanted"], found["slopes"], strict=True)]
    ends = [(wanted > 0.5, slope > 0) for wanted, slope in groups if min(wanted, 1 - wanted) < _END]
    through = statistics.median(max(4 * wanted * (1 - wanted) for wanted in found["wanted"]) for found in after)
    return f"{len(ends)} of {len(groups)}, {sum(high == up for high, up in ends)} | {through:.1g}"


def _actors_note(cells: Sequence[Cell]) -> str:
    return (
        f"{_seeds(cells)} of `python benchmarks/actors.py`, each with a new landscape. 0 is the best structure "
        "within the budget, 1 no better than the median one. The random search had as many evaluations as the policy "
        "episodes. *Wants the same*: what the actor says, before any bound, differs by less than "
        f"{_SAME} between the groups. *At an end*: groups of all seeds of which the sigmoid keeps less than {_END}, or "
        "all but that; *pushed on*: those of them where the critic's slope points further out. *Gets through*: the "
        "slope of the sigmoid as a share of its steepest, in the group where it is steepest; median."
    )


def _means(cells: Sequence[Cell], answer: str | None, shares: Sequence[float], at: int) -> list[float | None]:
    """Of each seed: the mean over some shares of what a method answered for them."""
    if answer is None:
        return []
    return [statistics.mean(cell[answer][str(share)][at] for share in shares) for cell in cells]


def _further(facts: Mapping[str, Any], method: str, answer: str) -> str:
    """Evaluations that an answer for a share in between takes beside those for the tried ones."""
    if answer != "searched":
        return "0"
    return "1" if method == "uniform" else "; ".join(str(total // len(facts["seen"])) for total in facts["totals"])


def _note(facts: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    seen, unseen = (", ".join(f"{share:g}" for share in facts[kind]) for kind in ("seen", "unseen"))
    return (
        f"Regret, the mean over the shares: {_seeds(cells, small=True)} of `python benchmarks/policies.py`, "
        f"each with a new landscape. Shares of {facts['budget']} of the MACs: {seen} were tried, {unseen} are in "
        "between. 0 is the best structure within the share, 1 no better than the median one. "
        "Evaluations are those for all tried shares together."
    )


def _duels(facts: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """How often the policy is ahead, equal, and behind, after the most evaluations."""
    policy = {(cell["landscape"], cell["seed"]): cell["policy"] for cell in cells if cell["method"] == "conditional"}
    lines = [
        "| the policy against | tried shares: ahead, equal, behind | shares in between: ahead, equal, behind |",
        "|---|---:|---:|",
    ]
    for name, (method, tried, between) in list(ROWS.items())[1:]:
        counts = []
        for answer, shares in ((tried, "seen"), (between, "unseen")):
            pairs = [
                (policy[cell["landscape"], cell["seed"]][str(share)][-1], cell[answer][str(share)][-1])
                for cell in cells
                if cell["method"] == method and answer is not None
                for share in facts[shares]
            ]
            ahead, behind = sum(mine < theirs for mine, theirs in pairs), sum(mine > theirs for mine, theirs in pairs)
            counts.append(f"{ahead}, {len(pairs) - ahead - behind}, {behind}" if pairs else "")
        lines.append(f"| {name} | {' | '.join(counts)} |")
    note = f"After {facts['totals'][-1]} evaluations, over all landscapes, seeds and shares."
    return "\n".join([*lines, "", note])


def _seeds(cells: Sequence[Cell], *, small: bool = False) -> str:
    """What the numbers are, by how many seeds there are."""
    count = len({cell["seed"] for cell in cells})
    said = "One seed" if count == 1 else f"Median (quartiles) of {count} seeds"
    return said[0].lower() + said[1:] if small else said
