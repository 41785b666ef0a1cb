"""Time a winner, and say by how much its prediction was off.

Predictions are off by a few per cent, and a search finds exactly the structures whose predictions are too low. So the
winner is timed; when it takes too long, the limit is lowered by what its prediction was off, and the best of all
structures that meet the lower limit is timed next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunesearch.budget import FeasibleSet
from prunesearch.evaluators.inputs import example_batch
from prunesearch.evaluators.latency.built import MeasuredLatency, check_conditions, measure_built
from prunesearch.evaluators.winner import Winner
from prunesearch.latency_times import Timing
from prunesearch.resources.latency import Latency, LatencyMeter
from prunesearch.verifiers.verifier import Verdict

_MARGIN = 1.01  # beyond what was measured, or the next winner would be on the line again


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
            found += ". No winner was measured within the limit; this is the fastest"
            if self.narrowest_ms is not None:
                found += f". The narrowest structure of the space takes {self.narrowest_ms:.3g} ms"
        return found


class LatencyVerifier:
    """Builds the winner and times it, as the layers of the latency table were timed.

    What seems too slow is looked at twice, as neighbours on a machine only ever slow a network down.

    Args:
        wanted: The budget, resolved, with a limit on latency by a table that was measured on this machine.

    Raises:
        ValueError: It does not limit latency, or its table was measured on another machine.
    """

    description = "latency"

    def __init__(self, wanted: FeasibleSet) -> None:
        limit = dict(wanted.limits).get(Latency.name)
        meter = wanted.meters[Latency.name].meter if limit is not None else None
        if limit is None or not isinstance(meter, LatencyMeter):
            raise ValueError(f"Expected a budget that limits latency_ms by a table, to time winners; got {wanted}.")
        check_conditions(meter.model.table)
        self._model, self._limit_ms = meter.model, limit

    def verify(self, winner: Winner) -> Verdict:
        """Time it; see `Verifier`."""
        model, table, inputs = winner.build(), self._model.table, example_batch(winner.weights.network)
        measured = measure_built(model, inputs, table)
        if measured.timing.ms > self._limit_ms:
            again = measure_built(model, inputs, table)
            measured = min(measured, again, key=lambda each: each.timing.ms)
        predicted = float(self._model.predict([winner.structure])[0])
        timing, error = measured.timing, self._model.relative_error
        facts = {
            "limit_ms": self._limit_ms,
            "predicted_ms": predicted,
            "measured_ms": timing.ms,
            "low_ms": timing.low,
            "high_ms": timing.high,
            "slowdown": measured.slowdown,
            "table": table.fingerprint,
            "conditions": {**vars(table.conditions), "versions": dict(table.conditions.versions)},
            "expected_error": None if math.isnan(error) else error,
        }
        if timing.ms <= self._limit_ms:
            return Verdict(True, facts=facts)
        return Verdict(
            False,
            f"The latency budget of {self._limit_ms:.3g} ms was not met.",
            {"latency_ms": self._limit_ms / round(timing.ms / predicted * _MARGIN, 4)},
            timing.ms / self._limit_ms - 1,
            facts,
        )


def outcome_of(
    facts: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], narrowest: Mapping[str, Any] | None
) -> LatencyOutcome:
    """What the facts of verdicts on latency come to.

    Args:
        facts: Of every winner that was timed, in order.
        chosen: Of the one that is returned.
        narrowest: Of the narrowest structure, if it was timed.
    """
    error = chosen["expected_error"]
    return LatencyOutcome(
        limit_ms=chosen["limit_ms"],
        predicted_ms=chosen["predicted_ms"],
        measured=MeasuredLatency(
            Timing(chosen["measured_ms"], chosen["low_ms"], chosen["high_ms"]), chosen["slowdown"]
        ),
        attempts=tuple((each["predicted_ms"], each["measured_ms"]) for each in facts),
        expected_error=float("nan") if error is None else error,
        narrowest_ms=None if narrowest is None else narrowest["measured_ms"],
    )
