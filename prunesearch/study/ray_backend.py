"""Scoring by Ray actors. Ray places them on CPUs or GPUs of a cluster, restarts them, and moves them off dead nodes."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from prunesearch.errors import EvaluationFailed
from prunesearch.structure import Structure
from prunesearch.study.packing import unpack
from prunesearch.study.pool import Done, Lost
from prunesearch.study.scoring import Outcome, Scorer, score_all
from prunesearch.urls import redacted

_PLACED_WITHIN = 300.0


class _Worker:
    """An actor: it makes the scorers once, then scores."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._scorers: Sequence[Scorer] = ()

    @ray.method(max_task_retries=-1)
    def ready(self) -> bool:
        """Make the scorers; tried for as long as Ray restarts the actor."""
        self._make()
        return True

    @ray.method(max_task_retries=0)
    def score(self, part: int, structures: Sequence[Structure]) -> list[Outcome]:
        """Score with the scorer of a part; not tried again by Ray, as the pool counts which structures kill."""
        self._make()  # if Ray has restarted it since
        return score_all(self._scorers[part], structures)

    def _make(self) -> None:
        self._scorers = self._scorers or unpack(self._payload)()


class RayBackend:
    """Actors of a Ray cluster.

    Args:
        payload: What `packing.pack` made of the factory of their scorers; copied to each node once.
        size: How many.
        address: Of the cluster, such as `"auto"` or `"ray://head:10001"`; None starts one on this machine, or joins the
            one that this process is connected to.
        gpus: GPUs, or a share of one, that each actor needs.

    Raises:
        EvaluationFailed: There is no cluster at the address.
    """

    def __init__(self, payload: bytes, size: int, *, address: str | None = None, gpus: float = 0.0) -> None:
        self.size = size
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # Ray's, about its own next release
                    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RayError, ValueError) as error:
                raise EvaluationFailed(redacted(f"Cannot connect to a Ray cluster at {address!r}: {error}")) from None
        actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1)(_Worker)
        self._packed = ray.put(payload)  # kept: Ray restarts an actor with the arguments it was made with
        self._starting: dict[Any, Any] = {}  # answer to come -> actor
        self._working: dict[Any, tuple[Any, int]] = {}  # answer to come -> actor and piece
        self._idle: list[Any] = []
        self._silent_since = time.monotonic()
        for _ in range(size):
            self._await(actor.remote(self._packed))

    def idle(self) -> int:
        """Actors that are placed and have nothing to do."""
        return len(self._idle)

    def give(self, piece: int, part: int, structures: Sequence[Structure]) -> None:
        """Call an idle actor."""
        actor = self._idle.pop()
        self._working[actor.score.remote(part, list(structures))] = (actor, piece)

    def wait(self, seconds: float) -> list[Done | Lost]:
        """Wait for Ray."""
        answers = [*self._starting, *self._working]
        finished, _ = ray.wait(answers, num_returns=1, timeout=seconds) if answers else ([], [])
        news = [found for answer in finished for found in self._take(answer)]
        if self._idle or self._working:
            self._silent_since = time.monotonic()
        elif time.monotonic() - self._silent_since > _PLACED_WITHIN:
            free = ray.available_resources()
            raise EvaluationFailed(
                f"Ray placed none of {self.size} workers within {_PLACED_WITHIN:.0f} s. Each needs a CPU (and the GPUs "
                f"asked for); of the cluster {free} is free."
            )
        return news

    def dismiss(self, piece: int) -> None:
        """Kill who has the piece; Ray restarts it."""
        for answer, (actor, its_piece) in list(self._working.items()):
            if its_piece == piece:
                del self._working[answer]
                ray.kill(actor, no_restart=False)
                self._await(actor)

    def close(self) -> None:
        """End the actors, and the connection if it is ours."""
        for actor in [*self._starting.values(), *(actor for actor, _ in self._working.values()), *self._idle]:
            ray.kill(actor)
        self._starting, self._working, self._idle = {}, {}, []
        if self._is_ours:
            ray.shutdown()

    def _await(self, actor: Any) -> None:
        self._starting[actor.ready.remote()] = actor

    def _take(self, answer: Any) -> list[Done | Lost]:
        if answer in self._starting:
            actor = self._starting.pop(answer)
            try:
                ray.get(answer)
            except ActorUnavailableError:  # it died again before it was ready: Ray goes on restarting it
                self._await(actor)
            except RayError as error:
                raise EvaluationFailed(f"A worker could not make the evaluator:\n{error}") from None
            else:
                self._idle.append(actor)
            return []
        actor, piece = self._working.pop(answer)
        try:
            outcomes = ray.get(answer)
        except RayError as error:  # its process or its node is gone, or what it returned is
            self._await(actor)
            return [Lost(piece, type(error).__name__)]
        self._idle.append(actor)
        return [Done(piece, tuple(outcomes))]
