"""Trials in a database: one row each, written when it is known, through SQLAlchemy Core.

SQLite in WAL mode: readers never block the driver, and a committed row survives the death of the process.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from prunesearch.errors import StudyUnreadable, StudyUnwritable
from prunesearch.structure import Cost, Structure
from prunesearch.trial import Trial

SCHEMA_VERSION = 1
IN_MEMORY = "sqlite://"

_metadata = sa.MetaData()
_schema = sa.Table(
    "prunesearch_schema",
    _metadata,
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("driver", sa.Text),  # who holds, or last held, the lock
)
_study = sa.Table(
    "study",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("space", sa.Text, nullable=False),
    sa.Column("summary", sa.Text),
)
_trial = sa.Table(
    "trial",
    _metadata,
    sa.Column("study_id", sa.ForeignKey("study.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("structure", sa.Text, nullable=False),
    sa.Column("macs", sa.BigInteger, nullable=False),
    sa.Column("params", sa.BigInteger, nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("failure", sa.Text),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("searcher", sa.Text, nullable=False),
    sa.Column("evaluator", sa.Text, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
)


class Store:
    """A database of studies.

    Args:
        url: `sqlite:///file.db`, or `sqlite://` for one that lives in memory.
        create: Make the file if it does not exist; otherwise a missing one is an error.

    Raises:
        ValueError: Not a URL of a database we know.
        StudyUnreadable: The file is missing, damaged, foreign, or of a newer release. Nothing has been written.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = url
        check_database(url)
        path = database_path(url)
        if path is not None and not path.exists() and not create:
            raise StudyUnreadable(f"There is no study file {path}.")
        self._engine = _engine(path, writing=create)
        try:
            self._open_schema(create)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def studies(self) -> list[str]:
        """Names of the stored studies, oldest first."""
        with self._reading() as connection:
            return list(connection.scalars(sa.select(_study.c.name).order_by(_study.c.id)))

    def question(self, name: str) -> dict[str, Any] | None:
        """The question a study answers; None if there is no such study."""
        row = self._study_row(name)
        return None if row is None else self._parsed(row.question, name)

    def space(self, name: str) -> dict[str, Any]:
        """The facts of a study's space that reports need, as they were stored by `create`."""
        row = self._study_row(name)
        return {} if row is None else self._parsed(row.space, name)

    def create(self, name: str, question: Mapping[str, Any], space: Mapping[str, Any]) -> None:
        """Add a study without trials."""
        row = {
            "name": name,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "question": json.dumps(question),
            "space": json.dumps(space),
        }
        with self._writing() as connection:
            connection.execute(_study.insert().values(row))

    def trials(self, name: str) -> list[Trial]:
        """The trials of a study, in order."""
        query = sa.select(_trial).join(_study).where(_study.c.name == name).order_by(_trial.c.number)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        try:
            return [_to_trial(row, number) for number, row in enumerate(rows)]
        except (TypeError, ValueError) as error:
            raise StudyUnreadable(f"{self.url}: a trial of study {name!r} cannot be read: {error}") from error

    def add(self, name: str, trial: Trial) -> None:
        """Append a trial; it is on disk when this returns."""
        study_id = sa.select(_study.c.id).where(_study.c.name == name).scalar_subquery()
        with self._writing() as connection:
            connection.execute(_trial.insert().values(study_id=study_id, **_to_row(trial)))

    def summary(self, name: str) -> dict[str, Any] | None:
        """What was recorded of the study's outcome, if anything."""
        row = self._study_row(name)
        return None if row is None or row.summary is None else self._parsed(row.summary, name)

    def set_summary(self, name: str, summary: Mapping[str, Any]) -> None:
        """Record what became of the study's winner."""
        with self._writing() as connection:
            connection.execute(_study.update().where(_study.c.name == name).values(summary=json.dumps(summary)))

    def _parsed(self, text: str, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads(text))
        except (TypeError, ValueError) as error:
            raise StudyUnreadable(f"{self.url}: study {name!r} cannot be read: {error}") from error

    def _study_row(self, name: str) -> sa.Row[Any] | None:
        with self._reading() as connection:
            return connection.execute(sa.select(_study).where(_study.c.name == name)).one_or_none()

    def _reading(self) -> AbstractContextManager[sa.Connection]:
        return _reading(self._engine, self.url)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """One transaction."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except DatabaseError as error:
            raise StudyUnwritable(
                f"{self.url} cannot be written: {error.orig}. What was recorded before is kept; see to the disk or the "
                "permissions, and run the same command again."
            ) from error

    def driver(self) -> str | None:
        """Who drives, or last drove, the studies of this database."""
        with self._reading() as connection:
            driver: str | None = connection.scalar(sa.select(_schema.c.driver))
        return driver

    def set_driver(self, driver: str) -> None:
        """Record who drives."""
        with self._writing() as connection:
            connection.execute(_schema.update().values(driver=driver))

    def _open_schema(self, create: bool) -> None:
        with self._reading() as connection:
            if sa.inspect(connection).has_table(_schema.name):
                return
        if not create:
            raise StudyUnreadable(f"{self.url} holds no studies.")
        with closing(self._engine.raw_connection()) as raw:  # a mode cannot be changed within a transaction
            raw.cursor().execute("PRAGMA journal_mode=WAL")
        with self._writing() as connection:
            _metadata.create_all(connection)
            connection.execute(_schema.insert().values(version=SCHEMA_VERSION))


def check_database(url: str) -> None:
    """Make sure that a database is ours, or empty, or yet to be made; writes nothing.

    Raises:
        ValueError: Not a URL of a database we know.
        StudyUnreadable: It is damaged, of another program, of a newer release, or cannot be there.
    """
    path = database_path(url)
    if path is None:
        return
    if path.is_dir():
        raise StudyUnreadable(f"{path} is a folder; a study is a file in it, such as {path / 'search.db'}.")
    if not path.parent.is_dir():
        raise StudyUnreadable(f"The folder {path.parent} of the study does not exist. Make it first.")
    if not path.exists():
        return
    engine = _engine(path, writing=False)
    try:
        with _reading(engine, url) as connection:
            tables = set(sa.inspect(connection).get_table_names())
            version = connection.scalar(sa.select(_schema.c.version)) if _schema.name in tables else SCHEMA_VERSION
    finally:
        engine.dispose()
    if tables and _schema.name not in tables:
        raise StudyUnreadable(
            f"{url} is a database of another program (it has the tables {', '.join(sorted(tables))}). "
            "Nothing was written. Give another file."
        )
    if version != SCHEMA_VERSION:
        raise StudyUnreadable(
            f"{url} has schema version {version}, this release reads {SCHEMA_VERSION}. "
            "Use the release that wrote it, or a newer one."
        )


@contextmanager
def _reading(engine: sa.Engine, url: str) -> Iterator[sa.Connection]:
    """A connection whose errors say which file, in a sentence."""
    try:
        with engine.connect() as connection:
            yield connection
    except DatabaseError as error:
        raise StudyUnreadable(
            f"{url} cannot be read as a study: {error.orig}. If the file should be one, restore it from a copy; "
            "otherwise give another file."
        ) from error


def database_path(url: str) -> Path | None:
    """The file a SQLite URL names; None for one in memory.

    Raises:
        ValueError: Not a SQLite URL.
    """
    if url == IN_MEMORY:
        return None
    prefix = "sqlite:///"
    name = url[len(prefix) :] if isinstance(url, str) and url.startswith(prefix) else ""
    if not name or name == ":memory:":
        shown = re.sub(r"//[^/]*@", "//***@", str(url))  # a password must not reach a log
        raise ValueError(
            f'Expected a study URL such as "sqlite:///search.db" (or "sqlite://" to keep nothing), got {shown!r}.'
        )
    return Path(name)


def _engine(path: Path | None, *, writing: bool) -> sa.Engine:
    """Connections to a file, or to a database in memory; readers cannot change the file.

    Python's sqlite3 would commit each CREATE TABLE by itself; with transactions of our own a file is made whole, or
    stays empty.
    """
    if path is None:
        engine = sa.create_engine(IN_MEMORY, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        path = path.resolve()
        mode = "rwc" if writing else "ro"
        if not writing and not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists():
            mode = "ro&immutable=1"  # WAL needs a file beside the database, which cannot be made here, nor changed
        uri = f"{path.as_uri()}?mode={mode}"
        engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=30))

    @sa.event.listens_for(engine, "connect")
    def _take_over_transactions(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _to_row(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "structure": json.dumps(trial.structure),
        "macs": trial.cost.macs,
        "params": trial.cost.params,
        "score": trial.score,
        "failure": trial.failure,
        "seconds": trial.seconds,
        "searcher": trial.searcher,
        "evaluator": trial.evaluator,
        "worker": trial.worker,
    }


def _to_trial(row: sa.Row[Any], number: int) -> Trial:
    """Check a row, which somebody may have edited, and turn it into a trial."""
    structure: Structure = tuple(int(width) for width in json.loads(row.structure))
    if row.number != number:
        raise ValueError(f"trial {number} is missing")
    if (row.score is None) == (row.failure is None):
        raise ValueError(f"trial {number} needs either a score or a failure")
    if row.score is not None and not (isinstance(row.score, float) and math.isfinite(row.score)):
        raise ValueError(f"the score of trial {number} is {row.score!r}")
    return Trial(
        number=row.number,
        structure=structure,
        cost=Cost(int(row.macs), int(row.params)),
        score=row.score,
        failure=row.failure,
        seconds=row.seconds,
        searcher=row.searcher,
        evaluator=row.evaluator,
        worker=row.worker,
    )
