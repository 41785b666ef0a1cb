"""What a run tells while it goes on, and what may listen."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from prunesearch.ranges import whole_number
from prunesearch.trial import Trial


@dataclass(frozen=True)
class Event:
    """A trial has just been recorded; it is on disk.

    Attributes:
        study: Name of the study.
        trial: The new trial.
        best: The best of all trials so far, those of earlier runs included; None if none has a score.
        n_trials: How many trials the run wants in all.
        seconds: Since the run began.
        front: The trials so far to which no other is preferable in both score and MACs, cheapest first.
    """

    study: str
    trial: Trial
    best: Trial | None
    n_trials: int
    seconds: float
    front: tuple[Trial, ...] = ()


Callback: TypeAlias = Callable[[Event], "bool | None"]
"""Called with every event, in the driver's process. Returning True ends the run in order; an exception ends it, too.
Whatever a callback does, the recorded trials stay, and running the study again continues it.

One whose attribute `judges_recorded` is true is also called with the last recorded trial when a study goes on, so
that a study that it ended stays ended."""


@dataclass(frozen=True)
class _Patience:
    """Stops when the best score has not improved for so many trials."""

    trials: int
    judges_recorded: ClassVar[bool] = True

    def __call__(self, event: Event) -> bool:
        return event.best is not None and event.trial.number - event.best.number >= self.trials


def early_stopping(patience: int) -> Callback:
    """Stop when the best score has not improved for `patience` trials; those of earlier runs count.

    A study that ended so scores nothing when it is run again, unless with more patience.

    Raises:
        TypeError: `patience` is no whole number.
        ValueError: It is below 1.
    """
    return _Patience(whole_number("patience", patience, at_least=1))


def stop_after(seconds: float) -> Callback:
    """Stop at the first trial that is recorded `seconds` or more after the run began.

    Raises:
        TypeError: `seconds` is no number.
        ValueError: It is not above 0.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
        raise TypeError(f"Expected seconds as a number, got {seconds!r}.")
    if not seconds > 0:
        raise ValueError(f"Expected a time above 0 s, got {seconds}.")
    return lambda event: event.seconds >= seconds
