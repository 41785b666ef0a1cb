"""Widths from what narrowing each group alone costs: one threshold for all, or the cheapest step at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunesearch.budget import BudgetOrSet, FeasibleSet, as_structures
from prunesearch.search.proposals import BatchSearcher
from prunesearch.structure import FloatArray, Space, Structure

_POWERS = (1.0, 0.5, 2.0)


class SensitivitySearcher(BatchSearcher):
    """Proposes a handful of structures from per-group curves, then is finished.

    First the greedy one: from the unpruned network, narrow again and again the group whose next width loses least per
    saved cost, until the budget is met. Then the one of a single threshold: each group as narrow as it can be without
    losing more than the threshold, which is the smallest that meets the budget. Then greedy ones that count losses by
    their square root and their square.

    Source: the threshold is FastNAS of NVIDIA's ModelOpt, whose curves are made monotone likewise; the greedy one
    follows Yang et al., NetAdapt, ECCV 2018, arXiv:1804.03230. Departs from it: losses are read off the curves of the
    unpruned network and add up, where NetAdapt measures and finetunes after every step.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Not used; every searcher takes one.
        curves: Per group, (its allowed widths,) score of the network with that group alone at each width.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        ValueError: Curves that do not belong to the space.
    """

    needs = ("curves",)

    def __init__(self, space: Space, budget: BudgetOrSet, *, seed: int = 0, curves: Sequence[FloatArray]) -> None:
        super().__init__(space, budget, seed=seed)
        self._losses = losses(space, curves)

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put all of them into the queue, once."""
        if batch > 0:
            return
        self.queue.put(from_losses(self.feasible, self._losses))


def from_losses(feasible: FeasibleSet, lost: Sequence[FloatArray]) -> list[Structure]:
    """The greedy structure, the one of a single threshold, and greedy ones that count losses in other powers.

    Args:
        feasible: The structures that meet the budget.
        lost: As `losses` gives them.
    """
    first, *others = (greedy(feasible, [loss**power for loss in lost]) for power in _POWERS)
    return [first, threshold(feasible, lost), *others]


def losses(space: Space, curves: Sequence[FloatArray]) -> list[FloatArray]:
    """Per group, what each of its widths loses against full width: at least 0, and never less for a narrower one.

    Raises:
        ValueError: Another number of curves or points than the space has groups and widths, or a curve with NaN.
    """
    if [len(curve) for curve in curves] != space.choices.tolist():
        raise ValueError(
            f"Expected one curve per group, with a score for each of its {space.choices.tolist()} widths; got "
            f"{[len(curve) for curve in curves]}."
        )
    if not all(np.isfinite(curve).all() for curve in curves):
        raise ValueError("Expected finite scores in the curves, got NaN or infinity.")
    return [np.maximum.accumulate(np.maximum(curve[-1] - curve, 0.0)[::-1])[::-1] for curve in map(np.asarray, curves)]


def threshold(feasible: FeasibleSet, losses: Sequence[FloatArray]) -> Structure:
    """The structure in which no group loses more than the smallest threshold that meets the budget; then widened."""
    levels = np.unique(np.concatenate([*losses, [0.0]]))
    narrowest = [np.searchsorted(-loss, -levels) for loss in losses]  # of each level, as losses fall with the width
    indices = np.array(narrowest, dtype=np.int64).reshape(len(losses), len(levels)).T
    structures = feasible.space.from_indices(indices)
    return as_structures(feasible.widen(structures[[int(np.argmax(feasible.contains(structures)))]]))[0]


def greedy(feasible: FeasibleSet, losses: Sequence[FloatArray]) -> Structure:
    """Narrow the group that loses least per saved share of the budget, step by step, until the budget is met.

    A step may be of several widths at once, so that a flat piece behind a steep one is found. At the end, what was
    narrowed too much is widened.
    """
    space = feasible.space
    groups = np.repeat(np.arange(len(space.groups)), space.choices)
    widths = np.array([width for group in space.groups for width in group.widths], dtype=np.int64)
    lost = np.concatenate([np.zeros(0), *losses])
    at = np.cumsum(space.choices) - 1  # of each group's width, among those of all groups
    while not feasible.contains(widths[at][None])[0]:  # ends: every round narrows a group
        narrower = np.flatnonzero(np.arange(len(groups)) < at[groups])
        of = groups[narrower]
        saved = feasible.usage(widths[at][None]) - feasible.usage_with(widths[at], of, widths[narrower])
        with np.errstate(divide="ignore", invalid="ignore"):
            price = np.where(saved > 0, (lost[narrower] - lost[at][of]) / saved, np.inf)
        cheapest = np.flatnonzero(price == price.min())
        step = cheapest[np.argmax(saved[cheapest])]
        at[of[step]] = narrower[step]
    return as_structures(feasible.widen(widths[at][None]))[0]
