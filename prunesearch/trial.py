"""One scored structure, and what follows from many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from prunesearch.structure import Cost, Structure

Status: TypeAlias = Literal["scored", "taken over", "failed"]


@dataclass(frozen=True)
class Source:
    """The trial of another study whose score was taken over, as it applies here, too.

    Attributes:
        study: Its name.
        trial: The number.
    """

    study: str
    trial: int


@dataclass(frozen=True)
class Note:
    """What should be known before a result is believed.

    Attributes:
        kind: What it is about: `"criterion"`, `"weights"`, `"scores"`, `"evidence"`, `"verified"`, `"device"`.
        said: The sentence.
    """

    kind: str
    said: str


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
        images: How many images it was scored on; None if the evaluator has none to be counted.
        error: Standard error of the score as an estimate of that on all images; 0 if it was scored on all.
        parts: (part, score) of each part of the images that it was scored on, in that order, if the search races.
        source: Whose score it is; None if it was scored for this study.
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
    images: int | None = None
    error: float = 0.0
    parts: tuple[tuple[int, float], ...] = ()
    source: Source | None = None

    @property
    def status(self) -> Status:
        """What became of it."""
        if self.score is None:
            return "failed"
        return "scored" if self.source is None else "taken over"

    def facts(self) -> dict[str, Any]:
        """All of it as plain values, the cost by the names of resources."""
        source = None if self.source is None else vars(self.source)
        return {**vars(self), "cost": self.cost.amounts, "status": self.status, "source": source}

    @property
    def assured(self) -> float:
        """The score less its standard error, by which trials are ranked: a lucky score on few images is not the best.

        Raises:
            ValueError: The trial failed.
        """
        if self.score is None:
            raise ValueError(f"Trial {self.number} has no score: {self.failure}")
        return self.score - self.error


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Successful trials, best first by `Trial.assured`, the earlier of equals first."""
    scored = [(-trial.assured, trial.number, trial) for trial in trials if trial.score is not None]
    return [trial for _, _, trial in sorted(scored, key=lambda entry: entry[:2])]


def best(trials: Iterable[Trial]) -> Trial | None:
    """The first that `ranked` gives; None if none succeeded."""
    return next(iter(ranked(trials)), None)


def cheapest(trials: Iterable[Trial], *, at_least: float) -> Trial | None:
    """The trial with the fewest MACs (then parameters) that is assured of a score; None if there is none."""
    enough = [trial for trial in ranked(trials) if trial.assured >= at_least]
    return min(enough, key=lambda trial: (trial.cost.macs, trial.cost.params), default=None)


def pareto_front(trials: Iterable[Trial]) -> list[Trial]:
    """Trials to which no other is preferable in both `assured` and MACs, cheapest first; the earlier of equals."""
    front: list[Trial] = []
    for trial in sorted(ranked(trials), key=lambda trial: trial.cost.macs):  # of equal MACs the best comes first
        if not front or trial.assured > front[-1].assured:
            front.append(trial)
    return front


def extended(front: list[Trial], trial: Trial) -> list[Trial]:
    """The `pareto_front` of some trials and one later; the same list if it does not belong there."""
    if trial.score is None or any(
        other.cost.macs <= trial.cost.macs and other.assured >= trial.assured for other in front
    ):
        return front
    return pareto_front([*front, trial])
