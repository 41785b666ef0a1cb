"""Trials in a database: one row each, written when it is known, through SQLAlchemy Core.

SQLite in WAL mode: readers never block the driver, and a committed row survives the death of the process. PostgreSQL
for several machines. Nothing stored is ever executed or unpickled: rows are numbers, text and JSON, and checked.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from prunesearch.errors import PruneSearchError, StudyLocked, StudyUnreadable, StudyUnwritable
from prunesearch.locking import this_process
from prunesearch.structure import Cost, Structure
from prunesearch.study import schema, upgrades
from prunesearch.study.database import ERRORS, Database, parse
from prunesearch.study.place import Place
from prunesearch.trial import Source, Trial

_REMEDY = "Restore it from a copy, or drop it and what follows with `prunesearch delete --from-trial`."


@dataclass(frozen=True)
class Progress:
    """How far a study is, found without reading every trial.

    Attributes:
        name: Of the study.
        question: What it answers.
        created: When, in UTC.
        trials: How many are recorded.
        failed: How many of them could not be scored.
        wanted: How many the latest run wants in all; None if no run said.
        best: The trial with the highest score, the earliest of equals.
    """

    name: str
    question: Mapping[str, Any]
    created: str
    trials: int
    failed: int
    wanted: int | None
    best: Trial | None


@dataclass(frozen=True)
class Fact:
    """Something that followed a study.

    Attributes:
        kind: What: `"finetuned"`, `"measured"`, `"file"`.
        created: When, in UTC.
        value: Plain values by name; which depends on the kind.
    """

    kind: str
    created: str
    value: Mapping[str, Any]


@dataclass(frozen=True)
class Driver:
    """Who drives, or last drove and did not end in order.

    Attributes:
        name: Host and process.
        running: Whether that process lives; None if it cannot be known from here.
    """

    name: str
    running: bool | None


class Store:
    """A database of studies.

    Args:
        url: `sqlite:///file.db`, `postgresql://user@server/database`, or `sqlite://` for one that lives in memory.
        create: Make what does not exist yet, and write; otherwise nothing is changed, and a missing one is an error.
        still_ours: Called before anything is written; raises if the caller may not write any more.
        version: Of its schema, if `look` has just said so.

    Attributes:
        url: The URL as it may be shown, without password.

    Raises:
        ValueError: Not a URL of a database we know.
        StudyUnreadable: It is missing, damaged, foreign, of a newer release, or cannot be reached. Nothing was written.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = True,
        still_ours: Callable[[], None] | None = None,
        version: int | None = None,
    ) -> None:
        self._database = parse(url)
        self._still_ours = still_ours
        self._place: Place | None = None
        self._held: dict[str, str] = {}  # who we are in the rows of the studies that we took
        self.url = self._database.shown
        found = look(self._database) if version is None else version
        if found is None and not create:
            missing = self._database.path is not None and not self._database.path.exists()
            raise StudyUnreadable(
                f"There is no study file {self._database.path}." if missing else f"{self.url} holds no studies."
            )
        self._engine = self._database.engine(writing=create)
        self._version = found if found is not None and not create else schema.SCHEMA_VERSION
        try:
            if create:
                with self._errors_of_writing():
                    schema.bring_up_to_date(self._engine, self._database, found)
                if self._database.path is not None:
                    self._place = Place(self._database.path)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def check(self) -> None:
        """Make sure that what was written can be found, and that more may be written.

        Raises:
            StudyLocked: Another driver has the lock now.
            StudyUnwritable: The file was deleted, moved or replaced.
        """
        if self._place is not None:
            self._place.check()
        if self._still_ours is not None:
            self._still_ours()

    def studies(self) -> list[str]:
        """Names of the stored studies, oldest first."""
        with self._reading() as connection:
            return list(connection.scalars(sa.select(schema.study.c.name).order_by(schema.study.c.id)))

    def question(self, name: str) -> dict[str, Any] | None:
        """The question a study answers; None if there is no such study."""
        row = self._study_row(name)
        return None if row is None else self._question(row, name)

    def space(self, name: str) -> dict[str, Any]:
        """The facts of a study's space that reports need, as they were stored by `create`."""
        row = self._study_row(name)
        return {} if row is None else self._parsed(row.space, name)

    def take(self, name: str) -> None:
        """From now on nobody writes to a study who took it before; nor do we once somebody takes it after us.

        Locks are lost without a word: a server restarts, a `.lock` file is deleted. So every write to a study that was
        taken is conditional, in its own transaction, on the study's row being as we left it here.

        Raises:
            StudyUnwritable: There is no such study any more.
        """
        holder = _new_holder()
        study = schema.study
        with self._transaction() as connection:
            taken = connection.execute(study.update().where(study.c.name == name).values(holder=holder)).rowcount
        if not taken:
            raise self._deleted(name)
        self._held[name] = holder

    def create(self, name: str, question: Mapping[str, Any], space: Mapping[str, Any]) -> None:
        """Add a study without trials, and take it."""
        holder = _new_holder()
        row = {
            "name": name,
            "holder": holder,
            "created": _now(),
            "question": json.dumps(question),
            "space": json.dumps(space),
        }
        with self._transaction() as connection:
            connection.execute(schema.study.insert().values(row))
        self._held[name] = holder

    def delete(self, name: str, *, from_trial: int = 0) -> int:
        """Remove a study, or its trials from a number on; return how many trials went."""
        row = self._study_row(name)
        if row is None:
            return 0
        mine = schema.trial.c.study_id == row.id
        with self._writing(name) as connection:
            gone = connection.execute(schema.trial.delete().where(mine, schema.trial.c.number >= from_trial)).rowcount
            if from_trial == 0:
                connection.execute(schema.fact.delete().where(schema.fact.c.study_id == row.id))
                connection.execute(schema.study.delete().where(schema.study.c.id == row.id))
        return int(gone)

    def trials(self, name: str) -> list[Trial]:
        """The trials of a study, in order.

        Raises:
            StudyUnreadable: A trial is missing, or not as it was written.
        """
        row = self._study_row(name)
        if row is None:
            return []
        columns = schema.columns_since(self._version, schema.trial)
        query = sa.select(*columns).where(schema.trial.c.study_id == row.id).order_by(schema.trial.c.number)
        with self._reading() as connection:
            found = connection.execute(query)
            keys = tuple(found.keys())
            rows = found.all()
        found_trials = [self._trial(dict(zip(keys, row, strict=True)), name, number) for number, row in enumerate(rows)]
        return found_trials if self._version >= 5 else self._with_costs(name, found_trials)

    def _with_costs(self, name: str, trials: list[Trial]) -> list[Trial]:
        """Trials with what an older version kept of their costs in a summary."""
        costs: list[str] = []
        for each in self.studies():
            row = self._study_row(each)
            costs = costs or (upgrades.facts_of(row.question, row.space, row.summary)[1].get(name, []) if row else [])
        known = [_to_costs(text, number) for number, text in enumerate(costs[: len(trials)])]
        known += [{}] * (len(trials) - len(known))
        return [replace(trial, cost=replace(trial.cost, more=more)) for trial, more in zip(trials, known, strict=True)]

    def add(self, name: str, trial: Trial) -> None:
        """Append a trial; it is on disk when this returns.

        Raises:
            StudyLocked: Another driver took the study.
            StudyUnwritable: The system refuses, the study was deleted or moved, or the trial before is not its last.
        """
        row = _to_row(trial)
        values = {**row, "checksum": schema.checksum(row), "_study": name, "_holder": self._held.get(name)}
        statement = _APPEND if name in self._held else _APPEND_UNHELD
        with self._transaction(at_once=True) as connection:
            added = connection.execute(statement, values).rowcount
        if not added:
            raise self._lost(name) or StudyUnwritable(
                f"Trial {trial.number} of study {name!r} in {self.url} cannot be recorded: it does not follow the last "
                "one there. Somebody else changed the study; run the same command again."
            )

    def progress(self, name: str) -> Progress | None:
        """How far a study is, at a cost that hardly grows with it; None if there is no such study."""
        row = self._study_row(name)
        if row is None:
            return None
        trials = schema.trial.c
        lost = trials.score.is_(None)
        assured = trials.score - trials.error if self._version >= 3 else trials.score
        counts = sa.select(sa.func.count(), sa.func.sum(sa.case((lost, 1), else_=0))).where(trials.study_id == row.id)
        top = (
            sa.select(*schema.columns_since(self._version, schema.trial))
            .where(trials.study_id == row.id, trials.score.is_not(None))
            .order_by(assured.desc(), trials.number)
            .limit(1)
        )
        with self._reading() as connection:
            total, failed = connection.execute(counts).one()
            best = connection.execute(top).mappings().one_or_none()
        winner = None if best is None else self._trial(dict(best), name, best["number"])
        question = self._question(row, name)
        return Progress(name, question, row.created, int(total), int(failed or 0), row.n_trials, winner)

    def want(self, name: str, n_trials: int) -> None:
        """Record how many trials a run wants in all, for whoever watches."""
        with self._writing(name) as connection:
            connection.execute(schema.study.update().where(schema.study.c.name == name).values(n_trials=n_trials))

    def summary(self, name: str) -> dict[str, Any] | None:
        """What was recorded of the study's outcome, if anything."""
        row = self._study_row(name)
        if row is None or row.summary is None:
            return None
        text = row.summary
        if self._version < 5:
            text, _ = upgrades.facts_of(row.question, row.space, text)
        return self._parsed(text, name)

    def facts(self, name: str) -> list[Fact]:
        """What was recorded after the study, in order."""
        row = self._study_row(name)
        if row is None or self._version < 5:
            return []
        query = sa.select(schema.fact).where(schema.fact.c.study_id == row.id).order_by(schema.fact.c.number)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [Fact(each.kind, each.created, self._parsed(each.value, name)) for each in rows]

    def add_fact(self, name: str, kind: str, value: Mapping[str, Any]) -> None:
        """Record something that followed the study, as plain values.

        Raises:
            StudyLocked: Another driver took the study.
            StudyUnwritable: The study is not there any more.
        """
        row, fact = self._study_row(name), schema.fact
        if row is None:
            raise self._deleted(name)
        with self._writing(name) as connection:
            last = connection.scalar(sa.select(sa.func.max(fact.c.number)).where(fact.c.study_id == row.id))
            values = {"study_id": row.id, "number": 0 if last is None else last + 1, "kind": kind, "created": _now()}
            connection.execute(fact.insert().values(**values, value=json.dumps(value)))

    def change_summary(self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Record more of the study's outcome, read and written in one transaction, so that no other change is lost.

        Args:
            name: The study.
            change: Is given the summary as it stands, empty if there is none, and returns the new one.

        Raises:
            StudyLocked: Another driver took the study.
            StudyUnwritable: The study is not there any more.
        """
        study = schema.study
        mine = study.update().where(study.c.name == name)
        with self._writing(name) as connection:
            text = connection.scalar(sa.select(study.c.summary).where(study.c.name == name))
            summary = change({} if text is None else self._parsed(text, name))
            connection.execute(mine.values(summary=json.dumps(summary)))

    def add_to_summary(self, name: str, facts: Mapping[str, Any]) -> None:
        """Record more of the study's outcome; what is there under other keys stays."""
        self.change_summary(name, lambda summary: {**summary, **facts})

    def driver(self) -> Driver | None:
        """Who drives the studies of this file, or last drove and did not end in order; None on a server."""
        with self._reading() as connection:
            name = connection.scalar(sa.select(schema.schema.c.driver))
        return None if name is None else Driver(str(name), _is_running(str(name)))

    def set_driver(self, driver: str | None) -> None:
        """Record who drives."""
        with self._transaction() as connection:
            connection.execute(schema.schema.update().values(driver=driver))

    def _trial(self, row: Mapping[str, Any], name: str, number: int) -> Trial:
        try:
            return _to_trial(row, number, self._version)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StudyUnreadable(f"{self.url}: a trial of study {name!r} cannot be read: {error}. {_REMEDY}") from None

    def _parsed(self, text: str, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads(text))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StudyUnreadable(f"{self.url}: study {name!r} cannot be read: {error}") from None

    def _question(self, row: sa.Row[Any], name: str) -> dict[str, Any]:
        question = self._parsed(row.question, name)
        return question if self._version >= 5 else upgrades.question_of(question)

    def _study_row(self, name: str) -> sa.Row[Any] | None:
        columns = schema.columns_since(self._version, schema.study)
        with self._reading() as connection:
            return connection.execute(sa.select(*columns).where(schema.study.c.name == name)).one_or_none()

    def _reading(self) -> AbstractContextManager[sa.Connection]:
        return self._database.reading(self._engine)

    @contextmanager
    def _writing(self, name: str) -> Iterator[sa.Connection]:
        """One transaction on a study that is there, and still ours if we took it; other writers wait for us."""
        study = schema.study
        row = study.update().where(study.c.name == name).values(holder=study.c.holder)
        if name in self._held:
            row = row.where(study.c.holder == self._held[name])
        with self._transaction() as connection:
            if connection.execute(row).rowcount == 0:
                connection.rollback()
                raise self._lost(name) or self._deleted(name)
            yield connection

    @contextmanager
    def _transaction(self, *, at_once: bool = False) -> Iterator[sa.Connection]:
        """One transaction.

        Args:
            at_once: It is of one statement, so that a server need not be told where it begins and ends.
        """
        with self._errors_of_writing():
            self.check()
            if at_once and self._database.server is not None:
                with self._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                    yield connection
            else:
                with self._engine.begin() as connection:
                    yield connection
        self.check()

    def _lost(self, name: str) -> PruneSearchError | None:
        """Why a study may not be written to any more."""
        row = self._study_row(name)
        if row is None:
            return self._deleted(name)
        if row.holder == self._held.get(name, row.holder):
            return None
        who = str(row.holder).rpartition(", ")[0] or "unknown"
        return StudyLocked(
            f"Study {name!r} in {self.url} was taken over by another run ({who}), so this one ends. Everything that it "
            "recorded before is kept."
        )

    def _deleted(self, name: str) -> StudyUnwritable:
        return StudyUnwritable(f"Study {name!r} in {self.url} was deleted meanwhile, so nothing more is recorded.")

    @contextmanager
    def _errors_of_writing(self) -> Iterator[None]:
        try:
            yield
        except ERRORS as error:
            raise StudyUnwritable(
                f"{self.url} cannot be written: {self._database.describe(error)}. What was recorded before is kept; "
                "check the disk, the permissions or the server, and run the same command again."
            ) from None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _new_holder() -> str:
    """This process, and what makes it another one each time, so that a restored copy has none of today's."""
    return f"{this_process()}, {secrets.token_hex(8)}"


def _append(*, held: bool) -> sa.Insert:
    """Add a trial if the one before it is the last; in one statement, so that nobody comes in between.

    Args:
        held: Only if the study is still ours. Its row is locked meanwhile, so nobody takes it before we have written.
    """
    study, trial = schema.study, schema.trial
    columns = [column for column in trial.columns if column.name != "study_id"]
    last = sa.func.coalesce(
        sa.select(sa.func.max(trial.c.number)).where(trial.c.study_id == study.c.id).scalar_subquery(), -1
    )
    source = (
        sa.select(study.c.id, *(sa.bindparam(column.name, type_=column.type) for column in columns))
        .where(study.c.name == sa.bindparam("_study"), last == sa.bindparam("number", type_=sa.Integer) - 1)
        .with_for_update(read=True)
    )
    if held:
        source = source.where(study.c.holder == sa.bindparam("_holder"))
    insert = trial.insert().from_select(["study_id", *(column.name for column in columns)], source)
    return insert.execution_options(preserve_rowcount=True)


_APPEND, _APPEND_UNHELD = _append(held=True), _append(held=False)


def look(database: Database) -> int | None:
    """The schema version of a database, None if it is empty or yet to be made; writes nothing.

    Raises:
        StudyUnreadable: It is damaged, of another program, of a newer release, or cannot be there.
    """
    path = database.path
    if path is not None and path.is_dir():
        raise StudyUnreadable(f"{path} is a folder; a study is a file in it, such as {path / 'search.db'}.")
    if path is not None and not path.parent.is_dir():
        raise StudyUnreadable(f"The folder {path.parent} of the study does not exist. Make it first.")
    if database.server is None and (path is None or not path.exists()):
        return None
    engine = database.engine(writing=False)
    try:
        with database.reading(engine) as connection:
            return schema.version_of(connection, database)
    finally:
        engine.dispose()


def is_kept(url: str) -> bool:
    """Whether there is a database with studies; not of those in memory.

    Raises:
        StudyUnreadable: As `look`.
    """
    return look(parse(url)) is not None


@contextmanager
def reading(url: str) -> Iterator[Store | None]:
    """A database, opened to be read; None if it is empty, yet to be made, or was in memory.

    Raises:
        StudyUnreadable: As `look`.
    """
    version = look(parse(url))
    if version is None:
        yield None
        return
    with closing(Store(url, create=False, version=version)) as store:
        yield store


def summary_of(url: str, name: str) -> dict[str, Any]:
    """What a study keeps beside its trials; empty if there is no such study.

    Raises:
        StudyUnreadable: As `look`.
    """
    with reading(url) as store:
        return {} if store is None else store.summary(name) or {}


def _is_running(driver: str) -> bool | None:
    found = re.fullmatch(r"host (.+), pid (\d+)", driver)
    if (
        found is None or found[1] != socket.gethostname() or os.name != "posix"
    ):  # elsewhere the call below ends processes
        return None
    try:
        os.kill(int(found[2]), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _to_row(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "structure": json.dumps(trial.structure),
        "macs": trial.cost.macs,
        "params": trial.cost.params,
        "score": None if trial.score is None else trial.score + 0.0,  # SQLite knows no -0.0, checksums do
        "failure": trial.failure,
        "seconds": float(trial.seconds),
        "searcher": trial.searcher,
        "evaluator": trial.evaluator,
        "worker": trial.worker,
        "images": trial.images,
        "error": float(trial.error),
        "parts": json.dumps(trial.parts),
        "costs": json.dumps(dict(trial.cost.more)),
        "source": None if trial.source is None else json.dumps(asdict(trial.source)),
    }


def _to_trial(row: Mapping[str, Any], number: int, version: int) -> Trial:
    """Check a row, which somebody may have edited, and turn it into a trial."""
    if row["number"] != number:
        raise ValueError(f"trial {number} is missing")
    if version >= 2 and schema.checksum(row, version) != row["checksum"]:
        raise ValueError(f"trial {number} is not as it was written, somebody or something changed it")
    score, failure, error = row["score"], row["failure"], row["error"]
    if (score is None) == (failure is None):
        raise ValueError(f"trial {number} needs either a score or a failure")
    for what, value in (("score", score), ("standard error", error)):
        if value is not None and not (isinstance(value, float) and math.isfinite(value)):
            raise ValueError(f"the {what} of trial {number} is {value!r}")
    return Trial(
        number=number,
        structure=_to_structure(row["structure"], number),
        cost=Cost(int(row["macs"]), int(row["params"]), _to_costs(row["costs"], number)),
        score=score,
        failure=failure,
        seconds=float(row["seconds"]),
        searcher=row["searcher"],
        evaluator=row["evaluator"],
        worker=row["worker"],
        images=row["images"],
        error=error or 0.0,
        parts=_to_parts(row["parts"], number),
        source=_to_source(row["source"] if version >= 5 else upgrades.source_of(row["worker"]), number),
    )


def _to_costs(text: str | None, number: int) -> dict[str, float]:
    if text is None or text == "{}":
        return {}
    costs = json.loads(text)
    if not isinstance(costs, dict) or not all(isinstance(value, (int, float)) for value in costs.values()):
        raise ValueError(f"the costs of trial {number} are not numbers by resource")
    return costs


def _to_source(text: str | None, number: int) -> Source | None:
    if text is None:
        return None
    found = json.loads(text)
    if not isinstance(found, dict) or (type(found.get("study")), type(found.get("trial"))) != (str, int):
        raise ValueError(f"the source of trial {number} is not a trial of a study")
    return Source(found["study"], found["trial"])


def _to_parts(text: str | None, number: int) -> tuple[tuple[int, float], ...]:
    if text is None or text == "[]":
        return ()
    parts = json.loads(text)
    if not all(type(part) is int and type(score) is float for part, score in parts):
        raise ValueError(f"the parts of trial {number} are not pairs of a part and a score")
    return tuple((part, score) for part, score in parts)


def _to_structure(text: str, number: int) -> Structure:
    widths = json.loads(text)
    if not isinstance(widths, list) or not set(map(type, widths)) <= {int}:
        raise ValueError(f"the structure of trial {number} is not a list of widths")
    return tuple(widths)
