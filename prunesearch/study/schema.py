"""The tables of a database of studies, and how older releases' become today's."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import sqlalchemy as sa

from prunesearch.errors import StudyUnreadable
from prunesearch.study.database import Database

SCHEMA_VERSION = 2
_LOCK_KEY = 7_205_759  # of PostgreSQL's advisory lock while tables are made; any number will do

_metadata = sa.MetaData()
schema = sa.Table(
    "prunesearch_schema",
    _metadata,
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("driver", sa.Text),  # who holds the lock of the file, or held it when its process died
)
study = sa.Table(
    "study",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("space", sa.Text, nullable=False),
    sa.Column("summary", sa.Text),
    sa.Column("n_trials", sa.Integer),  # how many the latest run wants in all; since version 2
)
trial = sa.Table(
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
    sa.Column("checksum", sa.BigInteger),  # of all the others, so that damage is noticed; since version 2
)
CONTENT = tuple(column.name for column in trial.columns if column.name not in ("study_id", "checksum"))
"""Columns of a trial that its checksum covers."""

_ACTIVE = sa.text("SELECT count(*) FROM sqlite_master WHERE type IN ('view', 'trigger')")
_log = logging.getLogger("prunesearch")


def checksum(row: Mapping[str, Any]) -> int:
    """CRC-32 of a trial's row, equal however often it was stored and read."""
    return checksum_of([row[name] for name in CONTENT])


def checksum_of(values: Sequence[Any]) -> int:
    """The same of the values of `CONTENT`, in that order."""
    return zlib.crc32("\x1f".join(map(repr, values)).encode("utf-8", "backslashreplace"))


def version_of(connection: sa.Connection, database: Database) -> int | None:
    """The schema version of a database; None if it is empty.

    Raises:
        StudyUnreadable: It is another program's, of a newer release, or has more in it than rows.
    """
    tables = set(sa.inspect(connection).get_table_names())
    if connection.dialect.name == "sqlite" and connection.scalar(_ACTIVE):
        raise StudyUnreadable(
            f"{database.shown} has views or triggers, which no study has: it was made to do something else. "
            "Nothing was written. Give another file."
        )
    if schema.name not in tables:
        ours = tables & {study.name, trial.name} if database.server is not None else tables
        if ours:
            raise StudyUnreadable(
                f"{database.shown} is a database of another program (it has the tables {', '.join(sorted(tables))}). "
                "Nothing was written. Give another file or database."
            )
        return None
    version = connection.scalar(sa.select(schema.c.version))
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise StudyUnreadable(
            f"{database.shown} has schema version {version}, this release reads 1 to {SCHEMA_VERSION}. "
            "Use the release that wrote it, or a newer one."
        )
    return version


def bring_up_to_date(engine: sa.Engine, database: Database, version: int | None) -> None:
    """Make the tables, or change an older release's; whole or not at all."""
    if version == SCHEMA_VERSION:
        return
    if version is None and engine.dialect.name == "sqlite":
        with closing(engine.raw_connection()) as raw:  # a mode cannot be changed within a transaction
            raw.cursor().execute("PRAGMA journal_mode=WAL")
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
        found = version_of(connection, database)  # another process may have been first
        if found is None:
            _metadata.create_all(connection)
            connection.execute(schema.insert().values(version=SCHEMA_VERSION))
        elif found < SCHEMA_VERSION:
            for step in range(found, SCHEMA_VERSION):
                _UPGRADES[step](connection)
            connection.execute(schema.update().values(version=SCHEMA_VERSION))
            _log.warning("%s: upgraded from schema version %s to %s.", database.shown, found, SCHEMA_VERSION)


def _from_1_to_2(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE study ADD COLUMN n_trials INTEGER")
    connection.exec_driver_sql("ALTER TABLE trial ADD COLUMN checksum BIGINT")
    rows = connection.execute(sa.select(trial)).mappings().all()
    mine = trial.update().where(trial.c.study_id == sa.bindparam("_study"), trial.c.number == sa.bindparam("_number"))
    sums = [{"_study": row["study_id"], "_number": row["number"], "checksum": checksum(dict(row))} for row in rows]
    if sums:
        connection.execute(mine, sums)


_UPGRADES: Mapping[int, Callable[[sa.Connection], None]] = {1: _from_1_to_2}


def columns_since(version: int, table: sa.Table) -> list[Any]:
    """The columns of a table, those that a version did not have yet as NULL, so that readers need not upgrade."""
    new = {study.name: {"n_trials"}, trial.name: {"checksum"}}[table.name] if version < 2 else set()
    return [sa.null().label(column.name) if column.name in new else column for column in table.columns]
