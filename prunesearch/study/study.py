"""One question, its trials, and the loop that asks, scores, writes and tells.

Resuming is replaying: the searcher is built anew, asked again, and told what the database already knows. So a study
that was killed at any instant ends with the same history as one that was not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any

import numpy as np

from prunesearch.budget import FeasibleSet
from prunesearch.errors import EvaluationFailed, StudyLocked, StudyMismatch, StudyUnreadable, StudyUnwritable
from prunesearch.locking import this_process
from prunesearch.question import differences, in_words, innermost
from prunesearch.search.searcher import Searcher
from prunesearch.structure import Cost, IntArray, Space, Structure
from prunesearch.study.database import parse
from prunesearch.study.events import Callback, Event
from prunesearch.study.executors import Executor
from prunesearch.study.locks import drive, driving
from prunesearch.study.pool import Pool
from prunesearch.study.scoring import Outcome
from prunesearch.study.store import Store, is_kept, reading
from prunesearch.trial import Source, Trial, best, extended, pareto_front

DEFAULT_NAME = "search"
MAY_OPEN_ANOTHER = ("searcher", "budget")
"""The fields of a question that, with no other changed, make another study of the same file instead of a refusal."""
_SAID_SINCE = (("budget", "costs"), ("task", "loss of all"))
"""(field, entry) of tables in questions, in which those of earlier releases have no such entry."""
_FINGERPRINTS = ("model", "space", "data")
_FINGERPRINT, _LONGEST = 8, 40  # letters of a fingerprint, and of other values, in the name of a study
_BATCH = 64
_MAX_FAILURES = 10
_SAME_COST = 1e-6
"""By what share predicted costs may differ, as from one machine to another."""
_PATIENCE = 30.0
"""Seconds that `recording` waits for another driver."""


class Study:
    """A study opened for driving; a context manager.

    One process at a time drives the studies of a file, or one study of a server.

    Args:
        url: `sqlite:///file.db`, `postgresql://user@server/database`, or `sqlite://` to keep nothing.
        name: Which study of the database; one is made if there is none of this name. None: what `find` gives.
        question: What the study answers, as plain values; a stored study of the same name must have the same.
        space: The space that structures belong to.
        limits: What says the costs of other resources than MACs and parameters; they are recorded with each trial.

    Attributes:
        name: Its name.

    Raises:
        StudyMismatch: The stored study is of another question; the message names the field that differs.
        StudyLocked: Another process drives it.
        StudyUnreadable: The database cannot be read, or is none of studies.
        StudyUnwritable: It cannot be written.
    """

    def __init__(
        self, url: str, name: str | None, question: Mapping[str, Any], space: Space, limits: FeasibleSet | None = None
    ) -> None:
        self._space = space
        self._limits = limits
        self._question = json.loads(json.dumps(question))  # before anything is written, in case it is no plain value
        self.name = find(url, name, self._question)
        self._lock = drive(parse(url), url, self.name)
        try:
            self._store = Store(url, still_ours=self._lock.check)
            try:
                self._open()
            except BaseException:
                self._store.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the next driver in."""
        with suppress(
            StudyUnwritable, StudyUnreadable, StudyLocked
        ):  # on a full disk, say; what was the matter has been said
            self._store.set_driver(None)
        self._store.close()
        self._lock.release()

    def trials(self) -> list[Trial]:
        """Everything scored so far, in order."""
        return self._store.trials(self.name)

    def fact(self, key: str) -> Any:
        """A fact that stands beside the trials; None if there is none of this name."""
        return (self._store.summary(self.name) or {}).get(key)

    def note(self, key: str, find: Callable[[], Any]) -> None:
        """Record a fact beside the trials, for reports, unless it is there from an earlier run.

        Args:
            key: What it is called in the study's summary.
            find: Finds it; a plain value.
        """
        if key not in (self._store.summary(self.name) or {}):
            self.record({key: find()})

    def record(self, facts: Mapping[str, Any]) -> None:
        """Record facts beside the trials, for reports, in place of those that earlier runs left under these keys."""
        self._store.add_to_summary(self.name, facts)

    def known_trials(
        self, fields: Sequence[str], *, fact: str | None = None, otherwise: str = ""
    ) -> dict[Structure, tuple[Trial, Source]]:
        """Trials in other studies of the database whose scores apply here, too, each with where it stands.

        Args:
            fields: Those of the question on which a score depends; they must all be the same.
            fact: One beside the trials on which a score depends as well.
            otherwise: The field of the question that must be the same where a study has no such fact.
        """
        names = [name for name in self._store.studies() if self._shares_scores(name, fields, fact, otherwise)]
        known: dict[Structure, tuple[Trial, Source]] = {}
        for name in names:
            if name == self.name:
                continue
            for trial in self._store.trials(name):
                source = trial.source or Source(name, trial.number)
                if trial.score is not None and source.study in names:  # an earlier release took over more
                    known.setdefault(trial.structure, (trial, source))
        return known

    def _shares_scores(self, name: str, fields: Sequence[str], fact: str | None, otherwise: str) -> bool:
        """Whether scores of a study apply here; see `known_trials`."""
        other = self._store.question(name) or {}
        if any(other.get(field) != self._question.get(field) for field in fields):
            return False
        if fact is None:
            return True
        theirs, ours = (self._store.summary(each) or {} for each in (name, self.name))
        if fact in theirs and fact in ours:
            return bool(theirs[fact] == ours[fact])
        return bool(other.get(otherwise) == self._question.get(otherwise))

    def run(
        self,
        searcher: Searcher,
        executor: Executor,
        n_trials: int,
        *,
        searcher_name: str,
        evaluator_name: str,
        callbacks: Sequence[Callback] = (),
    ) -> list[Trial]:
        """Go on until `n_trials` are recorded or the searcher is finished. Trials are told in the order asked.

        The searcher must be fresh: it is first asked for, and told, what is already recorded.

        Args:
            searcher: Proposes.
            executor: Scores.
            n_trials: Trials in all, those of earlier runs included; fewer than are recorded returns those.
            searcher_name: Goes into every trial.
            evaluator_name: Goes into every trial.
            callbacks: Called with each new trial after it is on disk; one that returns True ends the run.

        Returns:
            All trials of the study, in order.

        Raises:
            StudyMismatch: The searcher does not propose what is recorded.
            EvaluationFailed: Ten structures in a row could not be scored; everything recorded is kept.
            StudyUnwritable: A trial could not be recorded.
        """
        recorded = self._recorded()
        log = _Log(self._store, self.name, max(n_trials, len(recorded)), callbacks, (searcher_name, evaluator_name))
        while len(log.trials) < log.n_trials and not log.stopped:
            asked = searcher.ask(min(_BATCH, log.n_trials - len(log.trials)))
            if not asked:
                break
            start = len(log.trials)
            replayed = recorded[start : start + len(asked)]
            costs = self._costs(asked)
            self._check_replay(replayed, asked)
            log.replay(replayed)
            if replayed and len(log.trials) == len(recorded):
                log.judge_recorded()
            with closing(executor.run(asked, replayed)) as outcomes:
                for place in range(len(replayed), len(asked)):
                    if log.stopped:
                        break
                    log.add(asked[place], costs[place], next(outcomes))
            searcher.tell(log.trials[start:])  # also of a batch that was cut short: its policy may be asked
        self._store.check()
        return log.trials

    def run_as_finished(
        self,
        searcher: Searcher,
        pool: Pool,
        n_trials: int,
        *,
        searcher_name: str,
        evaluator_name: str,
        callbacks: Sequence[Callback] = (),
    ) -> list[Trial]:
        """As `run`, but each trial is told when it is scored, and no worker ever waits for another.

        The order, and with it everything that the searcher learns from it, depends on how fast the workers are: **the
        same seed gives another history each time**. A run that continues tells a fresh searcher all that is recorded.

        Args:
            searcher: Proposes.
            pool: Scores.
            n_trials: Trials in all, those of earlier runs included; fewer than are recorded returns those.
            searcher_name: Goes into every trial.
            evaluator_name: Goes into every trial.
            callbacks: Called with each new trial after it is on disk; one that returns True ends the run.

        Returns:
            All trials of the study, in the order in which they were finished.

        Raises:
            EvaluationFailed: Ten structures in a row could not be scored; everything recorded is kept.
            StudyUnreadable: A recorded cost is not that of its structure.
            StudyUnwritable: A trial could not be recorded.
        """
        recorded = self._recorded()
        log = _Log(self._store, self.name, max(n_trials, len(recorded)), callbacks, (searcher_name, evaluator_name))
        log.replay(recorded)
        if recorded:
            log.judge_recorded()
        searcher.tell(recorded)
        open_: dict[int, Structure] = {}
        given = 0
        try:
            while len(log.trials) < log.n_trials and not log.stopped:
                while len(open_) < min(pool.size, log.n_trials - len(log.trials)):
                    asked = searcher.ask(1)  # an empty answer may mean that it waits for what is open
                    if not asked:
                        break
                    open_[given] = asked[0]
                    pool.submit([given], asked)
                    given += 1
                if not open_:
                    break
                for place, outcome in pool.finished():
                    structure = open_.pop(place)
                    log.add(structure, self._costs([structure])[0], outcome)
                    searcher.tell(log.trials[-1:])
        finally:
            pool.abandon()
        self._store.check()
        return log.trials

    def _open(self) -> None:
        stored = self._store.question(self.name)
        if stored is not None:
            _compare(self._store.url, self.name, stored, self._question)
        self._store.set_driver(this_process())
        if stored is None:
            self._store.create(self.name, self._question, asdict(self._space))
        else:
            self._store.take(self.name)

    def _costs(self, structures: Sequence[Structure]) -> list[Cost]:
        if not structures:
            return []
        array = np.array([self._space.check(structure) for structure in structures], dtype=np.int64)
        array = array.reshape(len(structures), -1)
        pairs = zip(self._space.macs(array).tolist(), self._space.params(array).tolist(), strict=True)
        return [Cost(macs, params, more) for (macs, params), more in zip(pairs, self._other_costs(array), strict=True)]

    def _other_costs(self, structures: IntArray) -> list[dict[str, float]]:
        """Costs of what else is limited."""
        names = [] if self._limits is None else [name for name in self._limits.meters if name not in ("macs", "params")]
        found = {name: self._limits.costs(name, structures).tolist() for name in names if self._limits is not None}
        return [{name: found[name][row] for name in names} for row in range(len(structures))]

    def _check_replay(self, recorded: Sequence[Trial], asked: Sequence[Structure]) -> None:
        for trial, structure in zip(recorded, asked, strict=False):
            if trial.structure != structure:
                raise StudyMismatch(
                    f"Study {self.name!r} cannot be continued: trial {trial.number} is recorded as {trial.structure}, "
                    f"but the searcher now proposes {structure} there. Its code has changed; start a new study.",
                    field="history",
                    stored=trial.structure,
                    asked=structure,
                )

    def _recorded(self) -> list[Trial]:
        """All that is recorded, each with the cost that its structure still has.

        Raises:
            StudyUnreadable: A recorded number of MACs or parameters is not that of its structure.
            StudyMismatch: What else is limited costs something else now.
        """
        recorded = self.trials()
        for trial, cost in zip(recorded, self._costs([trial.structure for trial in recorded]), strict=True):
            if (trial.cost.macs, trial.cost.params) != (cost.macs, cost.params):
                raise StudyUnreadable(
                    f"Study {self.name!r}: trial {trial.number} is recorded with {trial.cost}, but its structure costs "
                    f"{cost}. Somebody edited the database; restore it from a copy."
                )
            for name in trial.cost.more.keys() & cost.more.keys():
                was, now = trial.cost.more[name], cost.more[name]
                if not math.isclose(was, now, rel_tol=_SAME_COST):
                    raise StudyMismatch(
                        f"Study {self.name!r} cannot be continued: its trial {trial.number} is recorded with {name} of "
                        f"{was:,.6g}, and costs {now:,.6g} of it now. What {name} is made from has changed; give "
                        "another file or study name, or what it was started with.",
                        field="budget",
                        stored=was,
                        asked=now,
                    )
        return recorded


class _Log:
    """The trials of a run as they come: recorded, told to callbacks, and watched for failures.

    Args:
        store: Where they are recorded.
        name: Of the study.
        n_trials: How many the run wants in all.
        callbacks: Whom to tell.
        authors: Names of the searcher and the evaluator.
    """

    def __init__(
        self, store: Store, name: str, n_trials: int, callbacks: Sequence[Callback], authors: tuple[str, str]
    ) -> None:
        self.trials: list[Trial] = []
        self.n_trials = n_trials
        self.stopped = False
        self._store = store
        self._name = name
        self._callbacks = callbacks
        self._authors = authors
        self._best: Trial | None = None
        self._front: list[Trial] = []
        self._streak: list[Trial] = []  # failures since the last success, those of earlier runs included
        self._traceback = ""
        self._start = time.monotonic()
        store.want(name, n_trials)

    def replay(self, trials: Sequence[Trial]) -> None:
        """Take note of trials of earlier runs."""
        for trial in trials:
            self._note(trial, None)
        self._front = pareto_front([*self._front, *trials])

    def add(self, structure: Structure, cost: Cost, outcome: Outcome) -> None:
        """Record a new one; too many failures in a row stop: one more try each time the study is run again."""
        trial = Trial(
            number=len(self.trials),
            structure=structure,
            cost=cost,
            score=outcome.score,
            failure=outcome.failure,
            seconds=outcome.seconds,
            searcher=self._authors[0],
            evaluator=self._authors[1],
            worker=outcome.worker,
            images=outcome.images,
            error=outcome.error,
            parts=outcome.parts,
            source=outcome.source,
        )
        self._store.add(self._name, trial)
        self._note(trial, outcome.traceback)
        self._front = extended(self._front, trial)
        self._tell(self._callbacks)
        if len(self._streak) >= _MAX_FAILURES and self._streak[-1] is trial:
            raise EvaluationFailed(
                f"{len(self._streak)} structures in a row could not be scored. The first: {self._streak[0].failure}\n"
                f"{self._traceback}".strip()
            )

    def judge_recorded(self) -> None:
        """Ask callbacks that judge what is recorded whether earlier runs have found enough."""
        self._tell([callback for callback in self._callbacks if getattr(callback, "judges_recorded", False)])

    def _tell(self, callbacks: Sequence[Callback]) -> None:
        """Tell callbacks of the latest trial; one may end the run."""
        seconds = time.monotonic() - self._start
        event = Event(self._name, self.trials[-1], self._best, self.n_trials, seconds, tuple(self._front))
        for callback in callbacks:
            self.stopped = bool(callback(event)) or self.stopped

    def _note(self, trial: Trial, traceback: str | None) -> None:
        self.trials.append(trial)
        if trial.failure is None:
            self._streak, self._traceback = [], ""
            self._best = best([trial] if self._best is None else [self._best, trial])
        else:
            self._streak.append(trial)
            self._traceback = self._traceback or traceback or ""


@contextmanager
def recording(url: str, name: str) -> Iterator[Store]:
    """The database of a study that is finished, opened to record more of its outcome while nobody else drives it.

    Args:
        url: The database.
        name: The study; `Store.change_summary` and `Store.add_to_summary` are for its outcome.

    Raises:
        StudyLocked: Another process drives it, for longer than half a minute.
        StudyUnreadable: The database cannot be read.
        StudyUnwritable: It cannot be written, or the study is not there any more.
    """
    with driving(url, name, patience=_PATIENCE) as store:
        yield store


def add_to_summary(url: str, name: str, facts: Mapping[str, Any]) -> None:
    """Put facts beside the trials of a study that is finished, in place of those of the same name, if it is kept.

    Raises:
        StudyLocked, StudyUnreadable, StudyUnwritable: As `recording`.
    """
    if is_kept(url):
        with recording(url, name) as store:
            store.add_to_summary(name, facts)


def find(url: str, name: str | None, question: Mapping[str, Any], *, open_another: bool = False) -> str:
    """The name of the study to open; writes nothing.

    Args:
        url: The database.
        name: A study's name; None for the one that answers the question, or, if those that there are differ from it in
            the budget or the searcher only, for a new one.
        question: What is asked.
        open_another: Whether a new one is opened whatever differs.

    Raises:
        StudyMismatch: The stored study is of another question.
        StudyUnreadable: The database cannot be read, or is none of studies.
    """
    asked = json.loads(json.dumps(question))
    with reading(url) as store:
        if store is None:
            return name or DEFAULT_NAME
        stored = {each: store.question(each) or {} for each in store.studies()}
        found = name or _name_for(stored, asked, open_another)
        if found in stored:
            _compare(store.url, found, stored[found], asked)
    return found


def _name_for(stored: Mapping[str, Mapping[str, Any]], question: Mapping[str, Any], open_another: bool) -> str:
    """The study that answers a question, or a name for a new one.

    Neither the budget nor the searcher is a property of the network or the scores, so another is a new study beside the
    old ones. In a file that the user named, any other difference is more likely a mistake: then the study with the
    default name is meant, and will refuse.
    """
    read = {name: up_to_date(answered, question) for name, answered in stored.items()}
    for name, answered in (*stored.items(), *read.items()):
        if answered == question:
            return name
    first = read.get(DEFAULT_NAME)
    if first is None or not (open_another or lasting(question) in map(lasting, read.values())):
        return DEFAULT_NAME
    fields = dict.fromkeys((*MAY_OPEN_ANOTHER, *question, *first))
    differing = [field for field in fields if question.get(field) != first.get(field)]
    if "model" in differing:
        differing = [field for field in differing if field != "space"]  # goes with it
    name = " ".join([DEFAULT_NAME, *(_in_a_name(field, question.get(field)) for field in differing)])
    others = (f"{name} ({number})" for number in itertools.count(2))
    return name if name not in stored else next(other for other in others if other not in stored)


def _in_a_name(field: str, value: Any) -> str:
    """What a study is named after: the budget and the searcher as they are, of others a few letters."""
    text = in_words(value)
    if field in MAY_OPEN_ANOTHER:
        return text
    if isinstance(value, Mapping):
        text = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    letters = _FINGERPRINT if field in _FINGERPRINTS or isinstance(value, Mapping) else _LONGEST
    return f"{field} {text[:letters]}"


def lasting(question: Mapping[str, Any], *, without: Sequence[str] = ()) -> dict[str, Any]:
    """A question without the fields that may be others in another study of the same file, and without further ones."""
    return {field: value for field, value in question.items() if field not in (*MAY_OPEN_ANOTHER, *without)}


def up_to_date(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """A stored question with what one asked says that those of earlier releases left open."""
    found = dict(stored)
    for field, entry in _SAID_SINCE:
        theirs, mine = stored.get(field), asked.get(field)
        if isinstance(theirs, Mapping) and isinstance(mine, Mapping) and entry in mine and entry not in theirs:
            found[field] = {**theirs, entry: mine[entry]}
    return found


def _compare(url: str, name: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for field, theirs, mine in differences(up_to_date(stored, asked), asked):
        what, was, now = next(innermost({field: theirs}, {field: mine}))
        if field not in ("space", "versions") and isinstance(theirs, (Mapping, str)):
            what, was, now = field, in_words(theirs), in_words(mine)
        raise StudyMismatch(
            f"Study {name!r} in {url} is of another search: its {what} is {was!r}, not {now!r}. Give another file or "
            "study name, or the settings that it was started with.",
            field=field,
            stored=theirs,
            asked=mine,
        )
