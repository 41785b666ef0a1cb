"""Trials in a database: one row each, written when it is known, through SQLAlchemy Core.

SQLite in WAL mode: readers never block the driver, and a committed row survives the death of the process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from prunesearch.errors import StudyUnreadable
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
        self._engine = _engine(url, in_memory=path is None)
        with self._reading():
            self._open_schema(create)

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
        return None if row is None else dict(json.loads(row.question))

    def space(self, name: str) -> dict[str, Any]:
        """The facts of a study's space that reports need, as they were stored by `create`."""
        row = self._study_row(name)
        return {} if row is None else dict(json.loads(row.space))

    def create(self, name: str, question: Mapping[str, Any], space: Mapping[str, Any]) -> None:
        """Add a study without trials."""
        row = {
            "name": name,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "question": json.dumps(question),
            "space": json.dumps(space),
        }
        with self._engine.begin() as connection:
            connection.execute(_study.insert().values(row))

    def trials(self, name: str) -> list[Trial]:
        """The trials of a study, in order."""
        query = sa.select(_trial).join(_study).where(_study.c.name == name).order_by(_trial.c.number)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        try:
            return [_to_trial(row) for row in rows]
        except (TypeError, ValueError) as error:
            raise StudyUnreadable(f"{self.url}: a trial of study {name!r} cannot be read: {error}") from error

    def add(self, name: str, trial: Trial) -> None:
        """Append a trial; it is on disk when this returns."""
        study_id = sa.select(_study.c.id).where(_study.c.name == name).scalar_subquery()
        with self._engine.begin() as connection:
            connection.execute(_trial.insert().values(study_id=study_id, **_to_row(trial)))

    def summary(self, name: str) -> dict[str, Any] | None:
        """What was recorded of the study's outcome, if anything."""
        row = self._study_row(name)
        return None if row is None or row.summary is None else dict(json.loads(row.summary))

    def set_summary(self, name: str, summary: Mapping[str, Any]) -> None:
        """Record what became of the study's winner."""
        with self._engine.begin() as connection:
            connection.execute(_study.update().where(_study.c.name == name).values(summary=json.dumps(summary)))

    def _study_row(self, name: str) -> sa.Row[Any] | None:
        with self._reading() as connection:
            return connection.execute(sa.select(_study).where(_study.c.name == name)).one_or_none()

    def _reading(self) -> _Translated:
        return _Translated(self._engine, self.url)

    def driver(self) -> str | None:
        """Who drives, or last drove, the studies of this database."""
        with self._reading() as connection:
            driver: str | None = connection.scalar(sa.select(_schema.c.driver))
        return driver

    def set_driver(self, driver: str) -> None:
        """Record who drives."""
        with self._engine.begin() as connection:
            connection.execute(_schema.update().values(driver=driver))

    def _open_schema(self, create: bool) -> None:
        if sa.inspect(self._engine).has_table(_schema.name):
            return
        if not create:
            raise StudyUnreadable(f"{self.url} holds no studies.")
        with self._engine.connect() as connection:
            connection.execute(sa.text("PRAGMA journal_mode=WAL"))
        with self._engine.begin() as connection:
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
    engine = _engine(url, in_memory=False)
    try:
        with _Translated(engine, url) as connection:
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


class _Translated:
    """A connection whose database errors say which file, in a sentence."""

    def __init__(self, engine: sa.Engine, url: str) -> None:
        self._engine = engine
        self._url = url
        self._connection: sa.Connection | None = None

    def __enter__(self) -> sa.Connection:
        try:
            self._connection = self._engine.connect()
        except DatabaseError as error:
            raise self._translate(error) from error
        return self._connection

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._connection is not None:
            self._connection.close()
        if isinstance(error, DatabaseError):
            raise self._translate(error) from error

    def _translate(self, error: DatabaseError) -> StudyUnreadable:
        return StudyUnreadable(
            f"{self._url} cannot be read as a study: {error.orig}. If the file should be one, restore it from a copy; "
            "otherwise give another file."
        )


def database_path(url: str) -> Path | None:
    """The file a SQLite URL names; None for one in memory.

    Raises:
        ValueError: Not a SQLite URL.
    """
    if url == IN_MEMORY:
        return None
    prefix = "sqlite:///"
    if not url.startswith(prefix) or len(url) == len(prefix):
        shown = re.sub(r"//[^/]*@", "//***@", url)  # a password must not reach a log
        raise ValueError(f'Expected a study URL such as "sqlite:///search.db", got {shown!r}.')
    return Path(url[len(prefix) :])


def _engine(url: str, *, in_memory: bool) -> sa.Engine:
    if in_memory:
        return sa.create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    return sa.create_engine(url, connect_args={"timeout": 30})


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


def _to_trial(row: sa.Row[Any]) -> Trial:
    structure: Structure = tuple(int(width) for width in json.loads(row.structure))
    return Trial(
        number=row.number,
        structure=structure,
        cost=Cost(row.macs, row.params),
        score=row.score,
        failure=row.failure,
        seconds=row.seconds,
        searcher=row.searcher,
        evaluator=row.evaluator,
        worker=row.worker,
    )
