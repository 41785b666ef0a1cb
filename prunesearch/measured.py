"""Latency budgets that hold when measured: the winner is built and timed, and the search goes on until one is in time.

Predictions are off by a few per cent, and a search finds exactly the structures whose predictions are too low. So the
winner is timed; when it takes too long, all predictions are raised by what it was off, the search goes on under them,
and the best of all structures scored that still meet the limit is timed next.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from prunesearch.budget import Budget
from prunesearch.errors import InfeasibleBudget, StudyLocked, StudyUnreadable, StudyUnwritable
from prunesearch.evaluators.inputs import example_batch
from prunesearch.evaluators.latency.finished import MeasuredLatency, check_conditions, measure_finished
from prunesearch.given import as_budget, as_network
from prunesearch.search import is_searcher
from prunesearch.structure import Structure
from prunesearch.study.database import IN_MEMORY, parse
from prunesearch.study.store import Store, look
from prunesearch.study.study import recording
from prunesearch.training.data import as_data
from prunesearch.trial import Trial, best

if TYPE_CHECKING:
    from prunesearch.api import SearchResult, Winner
    from prunesearch.models.network import Network

_ROUNDS = 6
_MARGIN = 1.01  # beyond what was measured, or the next winner would be on the line again
_TRIALS = 200  # of a search that does not say
_FEWEST_MORE = 32
_CORRECTED = ", predictions times "

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class LatencyOutcome:
    """Whether the winner of a search is as fast as it has to be.

    Attributes:
        limit_ms: The budget.
        predicted_ms: Of the winner, by the table as it was given.
        measured: Of the winner, built; at the speed that the machine had when the table was measured.
        attempts: (predicted, measured) milliseconds of every winner that was timed in this run, the last one included.
        expected_error: Standard deviation of measured / predicted - 1, as the table expects; NaN if it cannot say.
        narrowest_ms: What the narrowest structure of all takes, measured; None while there was no need to know.
    """

    limit_ms: float
    predicted_ms: float
    measured: MeasuredLatency
    attempts: tuple[tuple[float, float], ...]
    expected_error: float = float("nan")
    narrowest_ms: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the measured median is within the limit."""
        return self.measured.timing.ms <= self.limit_ms

    def __str__(self) -> str:
        timing = self.measured.timing
        tried = "" if len(self.attempts) == 1 else f", after {len(self.attempts)} winners timed"
        error = "" if math.isnan(self.expected_error) else f" (give or take {self.expected_error:.1%})"
        found = (
            f"predicted {self.predicted_ms:.3g} ms{error}, measured {timing.ms:.3g} ms (quartiles {timing.low:.3g} to "
            f"{timing.high:.3g}) for a limit of {self.limit_ms:.3g} ms{tried}"
        )
        if abs(self.measured.slowdown - 1) > 0.05:
            found += (
                f"; the machine was {self.measured.slowdown:.2f} times as slow as when the table was measured, so it "
                f"took {self.measured.now_ms:.3g} ms just now"
            )
        if not self.holds:
            found += (
                ". No winner was measured within the limit; this is the fastest. The narrowest structure of the space "
                f"takes {self.narrowest_ms:.3g} ms"
            )
        return found


def until_it_holds(search: _F) -> _F:
    """Let a search with a latency budget, whose table was measured on this machine, go on until its winner holds."""

    @functools.wraps(search)
    def measured(network: Any, data: Any, *, budget: Any, table: Any = None, **others: Any) -> SearchResult:
        data = as_data(data)
        network, budget = as_network(network, data), as_budget(budget, table)
        if budget.table is None or budget.table.is_elsewhere:
            found: SearchResult = search(network, data, budget=budget, **others)
            return found
        if is_searcher(others.get("searcher")):
            raise ValueError(
                "A search under a latency budget may take several rounds, each with a fresh searcher. Give the class "
                "of the searcher instead of an object."
            )
        budget.check(network.space)
        check_conditions(budget.table)
        return _Rounds(functools.partial(search, network, data), network, budget, others).run()

    return measured  # type: ignore[return-value]  # the same arguments


class _Rounds:
    """Searches under ever stricter predictions. Each is a study of its own, named after the correction.

    A later run finds there what this one learnt, and goes on from it without timing the same winners again.
    """

    def __init__(
        self, search: Callable[..., SearchResult], network: Network, budget: Budget, others: dict[str, Any]
    ) -> None:
        assert budget.table is not None  # or there is nothing to time
        self._search, self._network, self._budget, self._others = search, network, budget, others
        self._table = budget.table
        self._name = ""  # of the first round's study
        self._as_given = budget.check(network.space)
        self._limit_ms = dict(self._as_given.limits)["latency_ms"]
        self._trials: list[Trial] = []
        self._rounds: dict[str, tuple[Trial, ...]] = {}

    def run(self) -> SearchResult:
        """Search, time, correct, a few times."""
        learnt: list[float] = []
        correction = 1.0
        timed: list[tuple[SearchResult, float, MeasuredLatency]] = []
        latest: SearchResult | None = None
        for number in range(_ROUNDS):
            result = self._searched(number, correction)
            latest = result or latest
            if number == 0 and result is not None:
                learnt = self._learnt_earlier()
            if result is not None and learnt:
                correction = learnt.pop(0)
                continue
            if result is None:  # by what was learnt, nothing in the space is fast enough
                break
            predicted, measured = self._timed(result.best)
            timed.append((result, predicted, measured))
            if measured.timing.ms <= self._limit_ms:
                return self._told(timed, timed[-1], None)
            correction = round(max(measured.timing.ms / predicted, correction) * _MARGIN, 4)
        assert latest is not None  # the first search raises if nothing is feasible
        if not timed:
            timed.append((latest, *self._timed(latest.best)))
        narrowest = replace(latest.best, trial=replace(latest.best.trial, structure=self._network.space.minimum))
        fastest = min(timed, key=lambda entry: entry[2].timing.ms)
        return self._told(timed, fastest, self._timed(narrowest)[1].timing.ms)

    def _corrected(self, correction: float) -> Budget:
        """The budget under raised predictions; as if measured elsewhere, so that a search takes them as they are."""
        return replace(self._budget, latency_ms=self._limit_ms, table=self._table.corrected(correction).elsewhere())

    def _searched(self, number: int, correction: float) -> SearchResult | None:
        """The best of all trials so far that meet the corrected budget; None if no structure can."""
        budget = self._corrected(correction)
        others = dict(self._others)
        if number > 0:
            others["study_name"] = f"{self._name}{_CORRECTED}{correction}"
            others["n_trials"] = max(_FEWEST_MORE, int(others.get("n_trials", _TRIALS)) // 4)
        try:
            result = self._search(budget=budget, **others)
        except InfeasibleBudget:
            if number == 0:
                raise
            return None
        self._name = self._name or result.name
        self._trials += result.trials
        self._rounds[result.name] = result.trials
        feasible = budget.check(self._network.space)
        winner = best(trial for trial in self._trials if feasible.contains([trial.structure])[0])
        assert winner is not None  # this search's own best is one
        return replace(result, best=replace(result.best, trial=winner), trials=tuple(self._trials), name=self._name)

    def _timed(self, winner: Winner) -> tuple[float, MeasuredLatency]:
        """Predicted and measured; what seems too slow is looked at twice: neighbours only ever slow a network down."""
        predicted = float(self._as_given.costs("latency_ms", [winner.structure])[0])
        model = winner.build()
        measured = measure_finished(model, example_batch(self._network), self._table)
        if measured.timing.ms > self._limit_ms:
            again = measure_finished(model, example_batch(self._network), self._table)
            measured = min(measured, again, key=lambda each: each.timing.ms)
        return predicted, measured

    def _told(
        self,
        timed: list[tuple[SearchResult, float, MeasuredLatency]],
        chosen: tuple[SearchResult, float, MeasuredLatency],
        narrowest_ms: float | None,
    ) -> SearchResult:
        result, predicted, measured = chosen
        attempts = tuple((expected, found.timing.ms) for _, expected, found in timed)
        model = self._as_given.latency
        error = float("nan") if model is None else model.relative_error
        outcome = LatencyOutcome(self._limit_ms, predicted, measured, attempts, error, narrowest_ms)
        notes = result.notes
        if not outcome.holds:
            notes += (f"The latency budget of {outcome.limit_ms:.3g} ms was not met.",)
        fresh = [_attempt(found.best.structure, expected, times) for found, expected, times in timed]
        try:
            self._record(self._facts(outcome, result.best), fresh, notes)
        except (StudyLocked, StudyUnreadable, StudyUnwritable) as error:  # hours of search are worth more than this
            notes += (f"What was timed is not recorded in the study. {error}",)
        return replace(result, latency=outcome, notes=notes, trials=tuple(self._trials))

    def _facts(self, outcome: LatencyOutcome, winner: Winner) -> dict[str, Any]:
        """What reports show of the measured search, but who was timed."""
        return {
            "table": self._table.fingerprint,
            "conditions": {**vars(self._table.conditions), "versions": dict(self._table.conditions.versions)},
            "limit_ms": outcome.limit_ms,
            "expected_error": None if math.isnan(outcome.expected_error) else outcome.expected_error,
            "full_ms": self._predicted([self._network.space.full])[0],
            "narrowest_ms": outcome.narrowest_ms,
            "winner": list(winner.structure),
            "rounds": list(self._rounds),
            "predicted_ms": {
                name: self._predicted([trial.structure for trial in trials]) for name, trials in self._rounds.items()
            },
        }

    def _record(self, facts: dict[str, Any], fresh: list[dict[str, Any]], notes: tuple[str, ...]) -> None:
        """Keep it in the first round's study. Winners that an earlier run timed by the same table stay."""
        url = str(self._others.get("study", IN_MEMORY))
        if look(parse(url)) is None:
            return

        def with_ours(summary: dict[str, Any]) -> dict[str, Any]:
            earlier = summary.get("latency") or {}
            old = earlier.get("attempts", []) if earlier.get("table") == facts["table"] else []
            again = [attempt["structure"] for attempt in fresh]
            attempts = [*(attempt for attempt in old if attempt["structure"] not in again), *fresh]
            return {**summary, "latency": {**facts, "attempts": attempts}, "notes": list(notes)}

        with recording(url, self._name) as store:
            store.change_summary(self._name, with_ours)

    def _predicted(self, structures: list[Structure]) -> list[float]:
        """By the table as it was given."""
        return [round(float(ms), 9) for ms in self._as_given.costs("latency_ms", structures)] if structures else []

    def _learnt_earlier(self) -> list[float]:
        """Corrections that an earlier run of this study went on with, in its order."""
        url = str(self._others.get("study", IN_MEMORY))
        if look(parse(url)) is None:
            return []
        with closing(Store(url, create=False)) as store:
            found = [_correction(name, self._name) for name in store.studies()]
        return sorted(correction for correction in found if correction is not None)


def _correction(name: str, first: str) -> float | None:
    """The correction of a later round of a search, by the name of its study; None for any other study.

    Example:
        >>> _correction("search, predictions times 1.05", "search"), _correction("search, predictions times", "search")
        (1.05, None)
    """
    try:
        return float(name.removeprefix(first + _CORRECTED)) if name.startswith(first + _CORRECTED) else None
    except ValueError:  # somebody else's name
        return None


def _attempt(structure: Structure, predicted: float, found: MeasuredLatency) -> dict[str, Any]:
    timing = found.timing
    return {
        "structure": list(structure),
        "predicted_ms": predicted,
        "measured_ms": timing.ms,
        "low_ms": timing.low,
        "high_ms": timing.high,
        "slowdown": found.slowdown,
    }
