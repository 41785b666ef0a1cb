"""One scored structure, and what follows from many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prunesearch.structure import Cost, Structure

SCREENED_OUT = "Screened out:"
"""How the failure sentence of a structure begins that a cheap score ruled out; nothing went wrong with it."""


@dataclass(frozen=True)
class Trial:
    """What became of one proposed structure.

    Attributes:
        number: Position in the study's history, from 0.
        structure: Kept channels per group.
        cost: Its exact cost.
        score: Higher is better, finite; None when it failed.
        failure: One sentence when it failed; None otherwise.
        seconds: How long scoring took.
        searcher: Name of the searcher that proposed it.
        evaluator: Name of the evaluator that scored it.
        worker: Which process scored it.
    """

    number: int
    structure: Structure
    cost: Cost
    score: float | None
    failure: str | None
    seconds: float
    searcher: str
    evaluator: str
    worker: str

    @property
    def is_screened_out(self) -> bool:
        """Whether a cheap score ruled it out, so that nothing is wrong although it has no score."""
        return self.failure is not None and self.failure.startswith(SCREENED_OUT)


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Successful trials, best first, the earlier of equals first."""
    scored = [(-trial.score, trial.number, trial) for trial in trials if trial.score is not None]
    return [trial for _, _, trial in sorted(scored, key=lambda entry: entry[:2])]


def best(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the highest score, the earliest of equals; None if none succeeded."""
    return next(iter(ranked(trials)), None)


def cheapest(trials: Iterable[Trial], *, at_least: float) -> Trial | None:
    """The trial with the fewest MACs (then parameters) whose score is `at_least` so high; None if there is none."""
    enough = [trial for trial in ranked(trials) if trial.score is not None and trial.score >= at_least]
    return min(enough, key=lambda trial: (trial.cost.macs, trial.cost.params), default=None)


def pareto_front(trials: Iterable[Trial]) -> list[Trial]:
    """Trials to which no other is preferable in both score and MACs, cheapest first; the earlier of equals."""
    front: list[Trial] = []
    for trial in sorted(ranked(trials), key=lambda trial: trial.cost.macs):  # of equal MACs the best comes first
        if not front or trial.score > front[-1].score:  # type: ignore[operator]  # ranked leaves out the failed ones
            front.append(trial)
    return front


def extended(front: list[Trial], trial: Trial) -> list[Trial]:
    """The `pareto_front` of some trials and one later; the same list if it does not belong there."""
    if trial.score is None or any(
        other.cost.macs <= trial.cost.macs and other.score >= trial.score  # type: ignore[operator]  # a front has scores
        for other in front
    ):
        return front
    return pareto_front([*front, trial])
