"""How good a winner is before any training, by the metric of its task: beside the unpruned and the uniform network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from prunesearch.budget import FeasibleSet
from prunesearch.evaluators.accuracy import measured_on
from prunesearch.preparation import Prepared
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import Structure
from prunesearch.study.store import summary_of
from prunesearch.study.study import add_to_summary
from prunesearch.tasks.examples import following, follows
from prunesearch.tasks.metric import as_text, name_of
from prunesearch.trial import Trial

_MOST = 1024
"""Examples that a metric is computed on; those of the default calibration."""
_AT_ONCE = 256


@dataclass(frozen=True)
class Judged:
    """The metric of the task, before any training, on the calibration examples. They also chose the structure.

    Attributes:
        metric: Its name, such as `"accuracy"`; `"loss"` of a task without one.
        examples: How many they are.
        structure: Of the winner.
        winner: What its network reaches.
        unpruned: What the unpruned network reaches.
        uniform: What the structure reaches in which all groups keep one share of their width, under the same budget.
        uniform_structure: That structure.
        uniform_score: Its score; None if it has none.
    """

    metric: str
    examples: int
    structure: Structure
    winner: float
    unpruned: float
    uniform: float
    uniform_structure: Structure
    uniform_score: float | None

    def __str__(self) -> str:
        winner, unpruned = (as_text(self.metric, value, digits=1) for value in (self.winner, self.unpruned))
        return f"{self.metric} on {self.examples:,} images {winner} ({unpruned})"


def judge(prepared: Prepared, winner: Trial, limits: FeasibleSet, trials: Sequence[Trial]) -> Judged:
    """Build the winner and the uniform structure, and compute the metric of both and of the unpruned network.

    Args:
        prepared: What scored them.
        winner: The winner.
        limits: The budget.
        trials: Those of the search; the uniform structure is often one of them.

    Raises:
        ValueError: The task's metric fails.
    """
    model, device, found = prepared.network.model, prepared.network.device, prepared.winner(winner)
    examples = prepared.examples.take(slice(_MOST))
    if follows(examples.task):
        examples = following(examples, model, batch_size=_AT_ONCE)
    metric_of = partial(measured_on, examples=examples, batch_size=_AT_ONCE)
    plain = uniform_structure(limits)
    reached = metric_of(found.build().to(device))
    known = {trial.structure: trial for trial in trials}.get(plain)
    is_same = plain == winner.structure
    return Judged(
        metric=name_of(examples.task),
        examples=len(examples),
        structure=winner.structure,
        winner=reached,
        unpruned=metric_of(model),
        uniform=reached if is_same else metric_of(found.build_another(plain).to(device)),
        uniform_structure=plain,
        uniform_score=prepared.score_of(plain) if known is None or known.error else known.score,
    )


def recorded(url: str, name: str, structure: Structure, prepared: Prepared) -> Judged | None:
    """What a study says of a winner from an earlier run, if that built it alike; None if it says nothing."""
    found = summary_of(url, name).get("judged")
    if not isinstance(found, Mapping) or found.get("structure") != list(structure):
        return None
    if not prepared.is_of_built(found):
        return None
    facts = {key: value for key, value in found.items() if key != "built_with"}
    try:
        return Judged(**{**facts, **{key: tuple(facts[key]) for key in ("structure", "uniform_structure")}})
    except (KeyError, TypeError):  # another version, or somebody's edit
        return None


def record(url: str, name: str, judged: Judged, prepared: Prepared) -> None:
    """Record it in a study, if that is kept, with what the network was built with.

    Raises:
        StudyLocked, StudyUnreadable, StudyUnwritable: The study cannot be written.
    """
    add_to_summary(url, name, {"judged": {**asdict(judged), "built_with": prepared.built_with}})
