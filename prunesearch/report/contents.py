"""What a page knows of one study, read from the database and checked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from prunesearch.budget import Budget
from prunesearch.contracts import kind_of
from prunesearch.errors import StudyUnreadable
from prunesearch.latency_model import LatencyModel
from prunesearch.latency_table import LatencyTable
from prunesearch.resources.latency import Latency
from prunesearch.structure import Cost, Space, Structure, space_from_dict
from prunesearch.study.store import Fact, Store
from prunesearch.study.tables import listed
from prunesearch.trial import Trial, best


@dataclass(frozen=True)
class Attempt:
    """A winner that was built and timed: milliseconds of one forward, by the table and by the clock.

    Attributes:
        structure: Its widths.
        predicted_ms: What the table says.
        measured_ms: The median that was measured.
        low_ms: Lower quartile.
        high_ms: Upper quartile.
    """

    structure: Structure
    predicted_ms: float
    measured_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class Judged:
    """The task's metric before any training, on examples that also scored.

    Attributes:
        metric: Its name.
        examples: How many.
        winner: Of the winner.
        unpruned: Of the unpruned network.
        uniform: Of the structure in which all groups keep one share of their width, under the same budget.
        uniform_cost: What that costs.
        uniform_score: Its score, if it has one.
        uniform_is_winner: Whether it is the winner itself.
    """

    metric: str
    examples: int
    winner: float
    unpruned: float
    uniform: float
    uniform_cost: Cost
    uniform_score: float | None
    uniform_is_winner: bool


@dataclass(frozen=True)
class StudyContents:
    """Everything that is recorded of one study.

    A search under a latency budget may have taken several rounds, each a study of the database; they are one here.

    Attributes:
        name: Its name in the database.
        question: What it answers.
        space: The space its structures belong to.
        trials: What was scored, in order.
        summary: What became of its winner; any key may be missing.
        rounds: Pairs (name in the database, number of trials), where there were several.
        predicted_ms: Predicted latency of each trial, as far as it is known.
        limit_ms: The latency that its budget allows, if it limits that and the page knows it.
        full_ms: Predicted latency of the unpruned network.
        created: When the study was begun, in UTC, as it is stored.
        followed: What was recorded after it: finetunings, measurements, files.
    """

    name: str
    question: Mapping[str, Any]
    space: Space
    trials: tuple[Trial, ...]
    summary: Mapping[str, Any]
    rounds: tuple[tuple[str, int], ...] = ()
    predicted_ms: tuple[float, ...] = ()
    limit_ms: float | None = None
    full_ms: float | None = None
    created: str = ""
    followed: tuple[Fact, ...] = ()

    @property
    def scoring(self) -> Mapping[str, Any]:
        """What scores were made by, as far as it is recorded."""
        found = self.summary.get("scoring")
        return found if isinstance(found, dict) else {}

    @cached_property
    def finetuned(self) -> Mapping[str, Any]:
        """What finetuning the winner reached last; empty if nothing is recorded of it."""
        mine = [fact.value for fact in self.followed if fact.kind == "finetuned"]
        chosen = None if self.winner is None else self.winner.structure
        return next((value for value in reversed(mine) if _structure(value.get("structure")) == chosen), {})

    @cached_property
    def winner(self) -> Trial | None:
        """The trial that the search returned: the highest score, of those in time where winners were timed."""
        chosen = _structure(self.summary.get("winner"))
        timed = [trial for trial in self.trials if trial.structure == chosen]
        return best(timed) or best(self.trials)

    @cached_property
    def scored(self) -> list[tuple[Trial, float]]:
        """The trials that succeeded with their scores, in order."""
        return [(trial, trial.score) for trial in self.trials if trial.score is not None]

    @cached_property
    def unpruned(self) -> Cost:
        """Cost of the unpruned network, exact."""
        return self.space.cost(self.space.full)

    @cached_property
    def failures(self) -> Counter[str]:
        """How many trials failed with each sentence."""
        return Counter(t.failure for t in self.trials if t.failure is not None)

    @cached_property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every winner that was timed by the same table as the last, in order."""
        table = self._latency.get("table")
        found = (_attempt(each) for each in self._timed if each.get("table") == table)
        return tuple(attempt for attempt in found if attempt is not None)

    @cached_property
    def limits(self) -> dict[str, float]:
        """The largest cost that the budget allows, by the names of resources, as far as it is known."""
        return _numbers(self.summary.get("limits"))

    @cached_property
    def judged(self) -> Judged | None:
        """The metric of the winner and of others before any training, if it is recorded, and of this winner."""
        return _judged(self.summary.get("judged"), self.space, self.winner)

    @property
    def subject(self) -> Mapping[str, str]:
        """Names of the network and the data, as far as they are known."""
        found = self.summary.get("subject")
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    @property
    def command(self) -> tuple[str, ...]:
        """The words of the command that searched; empty where Python did."""
        found = self.summary.get("command")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @cached_property
    def file(self) -> str | None:
        """The file of the winner's network that was written last, finetuned or not; None if nobody recorded one."""
        chosen = None if self.winner is None else self.winner.structure
        mine = [fact.value for fact in self.followed if _structure(fact.value.get("structure")) == chosen]
        return next((str(value["file"]) for value in reversed(mine) if value.get("file")), None)

    @property
    def full(self) -> Mapping[str, float]:
        """What the unpruned network costs, as the search recorded it, by the names of resources."""
        return _numbers(self.summary.get("unpruned"))

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known before the result is believed, as the search said it."""
        found = self.summary.get("notes")
        notes = [note for note in (found if isinstance(found, list) else ()) if isinstance(note, dict)]
        return tuple(note["said"] for note in notes if isinstance(note.get("said"), str))

    @property
    def seconds(self) -> float:
        """Duration of the search as recorded, otherwise the sum over its trials."""
        recorded = self.number("search_seconds")
        return sum(trial.seconds for trial in self.trials) if recorded is None else recorded

    @property
    def expected_error(self) -> float | None:
        """Standard deviation of measured / predicted - 1 that the latency table expects of itself."""
        return _number(self._latency.get("expected_error"))

    @property
    def conditions(self) -> Mapping[str, Any]:
        """Under which latency was measured; empty if nothing was recorded."""
        found = self._latency.get("conditions")
        return found if isinstance(found, dict) else {}

    def number(self, key: str) -> float | None:
        """A number of the summary; None if there is none under this key."""
        return _number(self.summary.get(key))

    def predicted_of(self, wanted: Trial) -> float | None:
        """Predicted latency of a trial; None if it is not known."""
        known = zip(self.trials, self.predicted_ms, strict=False)
        return next((ms for trial, ms in known if trial is wanted), None)

    def measured_of(self, wanted: Trial) -> Attempt | None:
        """How long a trial's network took when it was built and timed last; None if it was not."""
        return next((a for a in reversed(self.attempts) if a.structure == wanted.structure), None)

    @cached_property
    def _timed(self) -> list[dict[str, Any]]:
        """What was found of every winner that was timed."""
        verdicts = self.summary.get("verdicts")
        mine = [each for each in (verdicts if isinstance(verdicts, list) else ()) if isinstance(each, dict)]
        facts = [(each.get("facts"), each.get("structure")) for each in mine if each.get("verifier") == "latency"]
        return [{**found, "structure": structure} for found, structure in facts if isinstance(found, dict)]

    @property
    def _latency(self) -> Mapping[str, Any]:
        """What was found of the one that was timed last."""
        return self._timed[-1] if self._timed else {}


def read(store: Store, names: Sequence[str] | None, table: LatencyTable | None = None) -> list[StudyContents]:
    """Read the named studies, or all of them.

    Args:
        store: The database.
        names: Which; all by default.
        table: What the latency of every trial is predicted from, for studies of its network.

    Raises:
        ValueError: There is no study of a name, or none is of the table's network.
        TypeError: The names are something else.
        StudyUnreadable: What is stored of a study does not fit together.
    """
    if not isinstance(names, Iterable | None):
        raise TypeError(f'Expected study_names as names of studies, such as ["search"], got {kind_of(names)}.')
    stored = store.studies()
    wanted = stored if names is None else list(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in wanted:
        if name not in stored:
            raise ValueError(f"There is no study {name!r} in {store.url}; there are {listed(stored) or 'none yet'}.")
    known: dict[str, StudyContents] = {}
    for name in wanted:
        first = known.get(name) or _read_one(store, name)
        rounds = [each for each in dict.fromkeys(_rounds(first)) if each in stored and each != name]
        known[name] = _together(first, [_read_one(store, each) for each in rounds])
    inner = {name for study in known.values() for name, _ in study.rounds[1:]}
    studies = [study for name, study in known.items() if name not in inner]
    return studies if table is None else _predicted(studies, table)


def comparable(studies: Sequence[StudyContents]) -> list[list[StudyContents]]:
    """Studies together whose scores mean the same: of one network, on the same data, by the same evaluator."""
    groups: dict[str, list[StudyContents]] = {}
    for study in studies:
        facts = [study.question.get(field) for field in ("model", "data", "evaluator")]
        groups.setdefault(f"{facts} {study.space.fingerprint}", []).append(study)
    return list(groups.values())


def _read_one(store: Store, name: str) -> StudyContents:
    try:
        space = space_from_dict(store.space(name))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StudyUnreadable(
            f"{store.url}: the space of study {name!r} cannot be read ({type(error).__name__}: {error}). Name other "
            "studies."
        ) from error
    trials = store.trials(name)
    for trial in trials:
        if len(trial.structure) != len(space.groups):
            raise StudyUnreadable(
                f"{store.url}: trial {trial.number} of study {name!r} has {len(trial.structure)} widths, its space has "
                f"{len(space.groups)} groups. Name other studies."
            )
    progress = store.progress(name)
    study = StudyContents(
        name,
        store.question(name) or {},
        space,
        tuple(trials),
        store.summary(name) or {},
        created="" if progress is None else progress.created,
        followed=tuple(store.facts(name)),
    )
    full = _numbers(study.summary.get("unpruned")).get("latency_ms")
    return replace(study, limit_ms=study.limits.get("latency_ms"), full_ms=full)


def _rounds(study: StudyContents) -> list[str]:
    rounds = study.summary.get("rounds")
    names = [each.get("study") for each in (rounds if isinstance(rounds, list) else ()) if isinstance(each, dict)]
    return [name for name in names if isinstance(name, str)]


def _together(first: StudyContents, others: Sequence[StudyContents]) -> StudyContents:
    """One study of all rounds of a search, with what was predicted of their trials."""
    others = [other for other in others if other.space == first.space]
    rounds = [first, *others]
    predicted = [trial.cost.more.get("latency_ms", math.nan) for study in rounds for trial in study.trials]
    return replace(
        first,
        trials=tuple(trial for study in rounds for trial in study.trials),
        rounds=tuple((study.name, len(study.trials)) for study in rounds) if others else (),
        predicted_ms=tuple(predicted) if not all(map(math.isnan, predicted)) else (),
    )


def _predicted(studies: Sequence[StudyContents], table: LatencyTable) -> list[StudyContents]:
    found, refused = [], ""
    for study in studies:
        try:
            model = LatencyModel(table, study.space)
        except ValueError as error:
            found.append(study)
            refused = str(error)
            continue
        full, *predicted = model.predict([study.space.full, *(trial.structure for trial in study.trials)]).tolist()
        limit = _limit_ms(study, table)
        limit = study.limit_ms if limit is None else limit
        found.append(replace(study, predicted_ms=tuple(predicted), limit_ms=limit, full_ms=full))
    if refused and all(new is old for new, old in zip(found, studies, strict=True)):
        raise ValueError(f"The latency table is of none of the studies' networks. {refused}")
    return found


def _limit_ms(study: StudyContents, table: LatencyTable) -> float | None:
    """The limit, if the study's budget is of this very table, which may say what nobody recorded."""
    budget = study.question.get("budget")
    asked = budget if isinstance(budget, dict) else {}
    limits, resource = asked.get("limits"), Latency(table)
    if not isinstance(limits, dict) or resource.basis not in asked.get("by", ()):
        return None
    try:
        feasible = Budget(latency_ms=limits.get(Latency.name), table=table).check(study.space)
    except (TypeError, ValueError):
        return None
    return float(dict(feasible.limits)[Latency.name])


def _numbers(value: Any) -> dict[str, float]:
    """The numbers of a table by name; anybody may have edited the database."""
    found = value.items() if isinstance(value, dict) else ()
    return {str(name): number for name, each in found if (number := _number(each)) is not None}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def _structure(value: Any) -> Structure | None:
    is_one = isinstance(value, list) and all(type(width) is int for width in value)
    return tuple(value) if is_one else None


def _judged(entry: Any, space: Space, winner: Trial | None) -> Judged | None:
    """What was recorded of a winner, or None if it is of another, or not as we write it."""
    if not isinstance(entry, dict) or winner is None or _structure(entry.get("structure")) != winner.structure:
        return None
    known = [_number(entry.get(key)) for key in ("winner", "unpruned", "uniform", "examples")]
    plain = _structure(entry.get("uniform_structure"))
    if plain is None or any(value is None for value in known):
        return None
    try:
        cost = space.cost(space.check(plain))
    except ValueError:
        return None
    found, unpruned, uniform, examples = (float(value) for value in known if value is not None)
    score, is_same = _number(entry.get("uniform_score")), plain == winner.structure
    return Judged(str(entry.get("metric")), int(examples), found, unpruned, uniform, cost, score, is_same)


def _attempt(entry: Any) -> Attempt | None:
    """One that was recorded, or None if it is not as we write it: anybody may have edited the database."""
    if not isinstance(entry, dict):
        return None
    structure = _structure(entry.get("structure"))
    predicted, measured = _number(entry.get("predicted_ms")), _number(entry.get("measured_ms"))
    if structure is None or predicted is None or measured is None or min(predicted, measured) <= 0:
        return None
    low, high = _number(entry.get("low_ms")), _number(entry.get("high_ms"))
    return Attempt(structure, predicted, measured, measured if low is None else low, measured if high is None else high)
