"""Scoring structures so that whatever happens becomes an outcome."""

from __future__ import annotations

import math
import numbers
import os
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from prunesearch.structure import Structure
from prunesearch.trial import Source

_LONGEST = 500


class Scorer(Protocol):
    """The one verb of an evaluator that executors need."""

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score a batch, one score per structure in order."""


ScorerFactory: TypeAlias = Callable[[], Sequence[Scorer]]
"""Makes the scorers in the process that is to use them."""


@dataclass(frozen=True)
class Outcome:
    """What scoring one structure gave.

    Attributes:
        score: A finite number, or None if it failed.
        failure: One sentence if it failed.
        traceback: The traceback, if an exception was the reason.
        seconds: How long it took.
        worker: Host and process.
        images, error, parts, source: As in a `Trial`.
    """

    score: float | None
    failure: str | None
    traceback: str | None
    seconds: float
    worker: str
    images: int | None = None
    error: float = 0.0
    parts: tuple[tuple[int, float], ...] = ()
    source: Source | None = None


def score_all(scorer: Scorer, structures: Sequence[Structure]) -> list[Outcome]:
    """Score structures together; if that fails, one by one, so that a failure is that of its own structure only.

    With scores of another number nobody knows which is whose: none is taken.
    """
    start = time.monotonic()
    try:
        scores = list(scorer.score(structures))
    except (Exception, SystemExit):
        return [score_one(scorer, structure) for structure in structures]
    seconds = (time.monotonic() - start) / max(1, len(structures))
    if len(scores) != len(structures):
        return [failed(_miscounted(len(scores), len(structures)), seconds) for _ in structures]
    return [_outcome(score, seconds, scorer) for score in scores]


def score_one(scorer: Scorer, structure: Structure) -> Outcome:
    """Score one structure and turn whatever happens into an outcome, an interrupt excepted."""
    start = time.monotonic()
    try:
        scores = list(scorer.score([structure]))
    except (Exception, SystemExit) as error:
        return Outcome(None, sentence(error), traceback.format_exc(), time.monotonic() - start, worker())
    if len(scores) != 1:
        return failed(_miscounted(len(scores), 1), time.monotonic() - start)
    return _outcome(scores[0], time.monotonic() - start, scorer)


def failed(why: str, seconds: float, by: str | None = None) -> Outcome:
    """The outcome of a structure that could not be scored."""
    return Outcome(None, why, None, seconds, worker() if by is None else by)


def sentence(error: BaseException) -> str:
    """An exception in a line that every database can store."""
    try:
        said = str(error).strip()
    except Exception:
        said = ""
    line = f"{type(error).__name__}: {said or 'no message'}".splitlines()[0]
    return line.encode("utf-8", "replace").decode().replace("\0", "")[:_LONGEST]


def worker() -> str:
    """Host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _miscounted(scores: int, structures: int) -> str:
    return (
        f"The evaluator breaks the contract Evaluator: score(structures) gave {scores} scores for {structures} "
        "structures; expected one for each, in order."
    )


def _outcome(score: Any, seconds: float, scorer: Scorer) -> Outcome:
    """Check what an evaluator gave, which may be anything: a number, or something that holds one, such as a tensor."""
    if isinstance(score, (str, bytes)) or not (isinstance(score, numbers.Real) or hasattr(score, "__float__")):
        return failed(f"The score is not a number but a {type(score).__name__}.", seconds)
    try:
        number = float(score)
    except Exception as error:
        return failed(f"The score is not a number: {sentence(error)}", seconds)
    if not math.isfinite(number):
        return failed(f"The score is {number}.", seconds)
    images = getattr(scorer, "n_images", None)
    return Outcome(number, None, None, seconds, worker(), images if isinstance(images, int) else None)
