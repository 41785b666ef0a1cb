"""Where scoring runs. The searcher and the study never notice."""

from __future__ import annotations

import math
import os
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from prunesearch.structure import Structure


class Scorer(Protocol):
    """The one verb of an evaluator that executors need."""

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score a batch, one score per structure in order."""


@dataclass(frozen=True)
class Outcome:
    """What scoring one structure gave.

    Attributes:
        score: A finite number, or None if it failed.
        failure: One sentence if it failed.
        traceback: The traceback, if an exception was the reason.
        seconds: How long it took.
        worker: Host and process.
    """

    score: float | None
    failure: str | None
    traceback: str | None
    seconds: float
    worker: str


class Executor(Protocol):
    """Scores structures somewhere, and gives the outcomes back in the order asked."""

    def run(self, structures: Sequence[Structure]) -> Iterator[Outcome]:
        """Yield one outcome per structure, in order, each as soon as it is known."""


class InlineExecutor:
    """Scores in this process, one structure after the other.

    Args:
        scorer: The evaluator.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def run(self, structures: Sequence[Structure]) -> Iterator[Outcome]:
        """Score each structure; an exception of the evaluator is an outcome, an interrupt is not."""
        return (score_one(self._scorer, structure) for structure in structures)


def score_one(scorer: Scorer, structure: Structure) -> Outcome:
    """Score one structure and turn whatever happens into an outcome."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    start = time.monotonic()
    try:
        score = float(scorer.score([structure])[0])
    except Exception as error:
        failure = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        return Outcome(None, failure, traceback.format_exc(), time.monotonic() - start, worker)
    seconds = time.monotonic() - start
    if not math.isfinite(score):
        return Outcome(None, f"The score is {score}.", None, seconds, worker)
    return Outcome(score, None, None, seconds, worker)
