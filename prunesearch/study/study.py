"""One question, its trials, and the loop that asks, scores, writes and tells.

Resuming is replaying: the searcher is built anew, asked again, and told what the database already knows. So a study
that was killed at any instant ends with the same history as one that was not.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import takewhile
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from prunesearch.errors import EvaluationFailed, StudyLocked, StudyMismatch, StudyUnreadable
from prunesearch.search.searcher import Searcher
from prunesearch.structure import Space, Structure
from prunesearch.study.executors import Executor, Outcome
from prunesearch.study.store import Store, check_database, database_path
from prunesearch.trial import Trial

DEFAULT_NAME = "search"
_BATCH = 64
_MAX_FAILURES = 10


class Study:
    """A study opened for driving; a context manager. One process at a time drives a database file.

    Args:
        url: `sqlite:///file.db`, or `sqlite://` to keep nothing.
        name: Which study of the file; one is made if there is none of this name.
        question: What the study answers, as plain values; a stored study of the same name must have the same.
        space: The space that structures belong to.

    Raises:
        StudyMismatch: The stored study answers another question; the message names the field that differs.
        StudyLocked: Another process drives a study of this file.
        StudyUnreadable: The file cannot be read as a database of studies.
    """

    def __init__(self, url: str, name: str, question: Mapping[str, Any], space: Space) -> None:
        self.name = name
        self._space = space
        asked = json.dumps(question)  # before anything is written, in case it is no plain value
        check_database(url)
        self._lock = _lock(url)
        try:
            self._store = Store(url)
            stored = self._store.question(name)
            if stored is not None:
                _compare(url, name, stored, json.loads(asked))
            self._store.set_driver(f"host {socket.gethostname()}, pid {os.getpid()}")
            if stored is None:
                self._store.create(name, question, asdict(space))
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the next driver in."""
        self._store.close()
        self._unlock()

    def trials(self) -> list[Trial]:
        """Everything scored so far, in order."""
        return self._store.trials(self.name)

    def set_summary(self, summary: Mapping[str, Any]) -> None:
        """Record what became of the winner, for reports."""
        self._store.set_summary(self.name, summary)

    def run(
        self,
        searcher: Searcher,
        executor: Executor,
        n_trials: int,
        *,
        searcher_name: str,
        evaluator_name: str,
        on_trial: Callable[[Trial], None] | None = None,
    ) -> list[Trial]:
        """Go on until `n_trials` are recorded or the searcher is finished.

        The searcher must be fresh: it is first asked for, and told, what is already recorded.

        Args:
            searcher: Proposes.
            executor: Scores.
            n_trials: Trials in all, those of earlier runs included; fewer than are recorded returns those.
            searcher_name: Goes into every trial.
            evaluator_name: Goes into every trial.
            on_trial: Called with each new trial after it is on disk.

        Returns:
            All trials of the study, in order.

        Raises:
            StudyMismatch: The searcher does not propose what is recorded.
            EvaluationFailed: Ten structures in a row could not be scored; everything recorded is kept.
            StudyUnwritable: A trial could not be recorded.
        """
        recorded = self.trials()
        wanted = max(n_trials, len(recorded))
        trials: list[Trial] = []
        while len(trials) < wanted:
            asked = searcher.ask(min(_BATCH, wanted - len(trials)))
            if not asked:
                break
            batch = recorded[len(trials) : len(trials) + len(asked)]
            self._check_replay(batch, asked)
            fresh = asked[len(batch) :]
            for structure, outcome in zip(fresh, executor.run(asked, len(batch)), strict=True):
                trial = self._trial(len(trials) + len(batch), structure, outcome, searcher_name, evaluator_name)
                self._store.add(self.name, trial)
                batch.append(trial)
                if on_trial is not None:
                    on_trial(trial)
                if trial.failure is not None and not trial.is_screened_out:
                    _stop_if_hopeless([*trials, *batch], outcome)
            searcher.tell(batch)
            trials += batch
        return trials

    def _trial(self, number: int, structure: Structure, outcome: Outcome, searcher: str, evaluator: str) -> Trial:
        return Trial(
            number=number,
            structure=structure,
            cost=self._space.cost(structure),
            score=outcome.score,
            failure=outcome.failure,
            seconds=outcome.seconds,
            searcher=searcher,
            evaluator=evaluator,
            worker=outcome.worker,
        )

    def _check_replay(self, recorded: Sequence[Trial], asked: Sequence[Structure]) -> None:
        for trial, structure in zip(recorded, asked, strict=False):
            if trial.structure == structure and trial.cost != self._space.cost(structure):
                raise StudyUnreadable(
                    f"Study {self.name!r}: trial {trial.number} is recorded with {trial.cost}, but its structure costs "
                    f"{self._space.cost(structure)}. Somebody edited the database; restore it from a copy."
                )
            if trial.structure != structure:
                raise StudyMismatch(
                    f"Study {self.name!r} cannot go on: trial {trial.number} is recorded as {trial.structure}, but the "
                    f"searcher now proposes {structure} there. Its code has changed; start a new study.",
                    field="history",
                    stored=trial.structure,
                    asked=structure,
                )

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _lock(url: str) -> FileLock | None:
    """Lock the database for this process; the operating system releases it however the process ends."""
    path = database_path(url)
    if path is None:
        return None
    file = path.resolve()  # a link to a database is the same database
    lock = FileLock(file.with_name(file.name + ".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StudyLocked(
            f"{path} is being driven already ({_driver(url)}). Wait for that run, or use another file."
        ) from None
    return lock


def _driver(url: str) -> str:
    try:
        with closing(Store(url, create=False)) as store:
            return store.driver() or "unknown"
    except StudyUnreadable:  # the other one is just making it
        return "unknown"


def _compare(url: str, name: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for field in dict.fromkeys([*asked, *stored]):
        if stored.get(field) != asked.get(field):
            raise StudyMismatch(
                f"Study {name!r} in {url} answers another question: its {field} is {stored.get(field)!r}, "
                f"this one's is {asked.get(field)!r}. Use another file or study name, or ask the stored question.",
                field=field,
                stored=stored.get(field),
                asked=asked.get(field),
            )


def _stop_if_hopeless(trials: Sequence[Trial], latest: Outcome) -> None:
    """Stop after too many failures in a row, those of earlier runs included: one more try each time it is run again."""
    tried = [trial for trial in trials if not trial.is_screened_out]
    streak = list(takewhile(lambda trial: trial.failure is not None, reversed(tried)))
    if len(streak) >= _MAX_FAILURES:
        raise EvaluationFailed(
            f"{len(streak)} structures in a row could not be scored. The first: {streak[-1].failure}\n"
            f"{latest.traceback or ''}".strip()
        )
