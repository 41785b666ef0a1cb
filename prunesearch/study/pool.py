"""Scoring by several workers: pieces of work, a time limit, another try for what a dead worker had.

Where workers live and how they start is a backend's affair: `process_backend.py` on this machine, `ray_backend.py` on
a cluster.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from prunesearch.structure import Structure
from prunesearch.study.executors import Job, by_part
from prunesearch.study.scoring import Outcome, failed
from prunesearch.trial import Trial

_LARGEST_PIECE = 8
_POLL = 1.0


@dataclass(frozen=True)
class Done:
    """A worker has scored a piece.

    Attributes:
        piece: The key it was given with.
        outcomes: One per structure.
    """

    piece: int
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Lost:
    """A worker died over a piece.

    Attributes:
        piece: The key it was given with.
        reason: How it died.
    """

    piece: int
    reason: str


class Backend(Protocol):
    """Workers, each scoring one piece at a time. Dead ones are replaced without being asked.

    Attributes:
        size: How many there are meant to be.
    """

    size: int

    def idle(self) -> int:
        """How many could be given a piece now; those that are still starting could not."""

    def give(self, piece: int, part: int, structures: Sequence[Structure]) -> None:
        """Have an idle worker score structures with the scorer of a part of the images."""

    def wait(self, seconds: float) -> list[Done | Lost]:
        """Return what happened, or nothing after some seconds.

        Raises:
            EvaluationFailed: No worker can be started, and why.
        """

    def dismiss(self, piece: int) -> None:
        """Kill the worker that has a piece, and start another; nothing more is heard of the piece."""

    def close(self) -> None:
        """End every worker."""


@dataclass(frozen=True)
class _Piece:
    """Structures for one worker, and how often one died over them.

    Attributes:
        places: Their places in the batch.
        structures: The structures.
        part: Which scorer is to score them.
        deaths: How many workers died over them.
    """

    places: tuple[int, ...]
    structures: tuple[Structure, ...]
    part: int
    deaths: int = 0

    def apart(self, deaths: int) -> list[_Piece]:
        """A piece for each structure, so that what is wrong with one does not concern the others."""
        pairs = zip(self.places, self.structures, strict=True)
        return [_Piece((place,), (structure,), self.part, deaths) for place, structure in pairs]


class Pool:
    """Hands structures to a backend and takes the outcomes as they come.

    Args:
        backend: The workers.
        time_limit: Seconds that one structure may take; then it has failed, and its worker is replaced. None: any.
        max_retries: How often a structure is tried again after its worker died; then it has failed.
    """

    def __init__(self, backend: Backend, *, time_limit: float | None = None, max_retries: int = 2) -> None:
        self.size = backend.size
        self._backend = backend
        self._time_limit = time_limit
        self._max_retries = max_retries
        self._waiting: deque[_Piece] = deque()
        self._running: dict[int, tuple[_Piece, float]] = {}  # the piece, and when it was given
        self._given = 0

    def submit(self, places: Sequence[int], structures: Sequence[Structure], part: int = 0) -> None:
        """Have structures scored together, after those submitted before."""
        self._waiting.append(_Piece(tuple(places), tuple(structures), part))

    def finished(self) -> Iterator[tuple[int, Outcome]]:
        """Yield place and outcome of whatever is finished next, at least one; nothing if nothing was submitted."""
        while self._waiting or self._running:
            found = [*self._step(), *self._overdue()]
            if found:
                yield from found
                return

    def abandon(self) -> None:
        """Forget everything submitted."""
        self._waiting.clear()
        for key in self._running:
            self._backend.dismiss(key)
        self._running.clear()

    def close(self) -> None:
        """End the workers."""
        self._backend.close()

    def _step(self) -> list[tuple[int, Outcome]]:
        """Give out what can be, and wait for news."""
        while self._waiting and self._backend.idle():
            piece = self._waiting.popleft()
            self._running[self._given] = (piece, time.monotonic())
            self._backend.give(self._given, piece.part, piece.structures)
            self._given += 1
        found: list[tuple[int, Outcome]] = []
        for news in self._backend.wait(self._patience()):
            piece, _ = self._running.pop(news.piece)
            if isinstance(news, Done):
                found += zip(piece.places, news.outcomes, strict=True)
            else:
                found += self._try_again(piece, news.reason)
        return found

    def _try_again(self, piece: _Piece, reason: str) -> list[tuple[int, Outcome]]:
        """Each structure alone first: until then nobody knows over which of them the worker died."""
        alone = len(piece.structures) == 1
        if alone and piece.deaths >= self._max_retries:
            tries = piece.deaths + 1
            return [(piece.places[0], failed(f"Its worker died ({reason}), {tries} times of {tries}.", 0.0))]
        self._waiting.extendleft(reversed(piece.apart(piece.deaths + 1 if alone else 0)))
        return []

    def _overdue(self) -> list[tuple[int, Outcome]]:
        found: list[tuple[int, Outcome]] = []
        if self._time_limit is None:
            return found
        now = time.monotonic()
        for key, (piece, since) in list(self._running.items()):
            if now - since >= self._time_limit * len(piece.structures):
                del self._running[key]
                self._backend.dismiss(key)
                if len(piece.structures) > 1:
                    self._waiting.extendleft(reversed(piece.apart(piece.deaths)))
                else:
                    sentence = f"It took longer than the time limit of {self._time_limit:g} s."
                    found.append((piece.places[0], failed(sentence, now - since)))
        return found

    def _patience(self) -> float:
        """Seconds until the next piece may be overdue; never long, as an idle worker may turn up any time."""
        if self._time_limit is None or not self._running:
            return _POLL
        ends = [since + self._time_limit * len(piece.structures) for piece, since in self._running.values()]
        return min(_POLL, max(0.0, min(ends) - time.monotonic()))


class PoolExecutor:
    """Scores batches by the workers of a pool, with the outcomes in the order asked, whoever was first.

    So the history does not depend on how many workers there are. Structures that follow each other go to the same
    worker, a few at a time, because evaluators compute what these have in common only once.

    Args:
        pool: The workers; who made it closes it.
        part: Which of the workers' scorers scores.
    """

    def __init__(self, pool: Pool, *, part: int = 0) -> None:
        self._pool = pool
        self._part = part

    def run(self, structures: Sequence[Structure], recorded: Sequence[Trial] = ()) -> Generator[Outcome, None, None]:
        """Score what is not recorded."""
        fresh = range(len(recorded), len(structures))
        for places in _pieces(fresh, len(fresh), self._pool.size):
            self._pool.submit(places, [structures[place] for place in places], self._part)
        known: dict[int, Outcome] = {}
        try:
            for place in fresh:
                while place not in known:
                    known.update(self._pool.finished())
                yield known.pop(place)
        finally:
            self._pool.abandon()


class PoolJobs:
    """Scores jobs by the workers of a pool, all of them at the same time.

    Args:
        pool: The workers; who made it closes it. They have a scorer per part.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def score(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Hand out pieces of jobs on the same part, and wait for all."""
        places = {job: place for place, job in enumerate(jobs)}
        for part, structures in by_part(jobs):
            for piece in _pieces(structures, len(jobs), self._pool.size):
                self._pool.submit([places[part, structure] for structure in piece], piece, part)
        known: dict[int, Outcome] = {}
        try:
            while len(known) < len(jobs):
                known.update(self._pool.finished())
        finally:
            self._pool.abandon()
        return [known[place] for place in range(len(jobs))]


_T = TypeVar("_T")


def _pieces(work: Sequence[_T], in_all: int, workers: int) -> list[Sequence[_T]]:
    """Cut work so that each worker has about two pieces of all that there is."""
    size = max(1, min(_LARGEST_PIECE, in_all // (2 * workers)))
    return [work[start : start + size] for start in range(0, len(work), size)]
