"""The tables of a database of studies, and how older releases' become today's."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache
from typing import Any

import sqlalchemy as sa

from prunesearch.errors import StudyUnreadable
from prunesearch.study import upgrades
from prunesearch.study.database import Database

SCHEMA_VERSION = 5
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
    sa.Column("holder", sa.Text),  # who took it last, other each time: only they may write; since version 4
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
    sa.Column("images", sa.Integer),  # since version 3, as are the next two
    sa.Column("error", sa.Float),
    sa.Column("parts", sa.Text),
    sa.Column("costs", sa.Text),  # of resources besides MACs and parameters; since version 5, as is the next one
    sa.Column("source", sa.Text),  # the trial of another study whose score it is; NULL if it was scored for this one
    sa.Column("checksum", sa.BigInteger),  # of all the others, so that damage is noticed; since version 2
)
fact = sa.Table(  # what followed a study, such as a finetuning; since version 5
    "fact",
    _metadata,
    sa.Column("study_id", sa.ForeignKey("study.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
)
_SINCE: Mapping[int, Mapping[str, tuple[str, ...]]] = {
    2: {study.name: ("n_trials",), trial.name: ("checksum",)},
    3: {trial.name: ("images", "error", "parts")},
    4: {study.name: ("holder",)},
    5: {trial.name: ("costs", "source")},
}
"""Columns that each version added, by table."""

_ACTIVE = sa.text("SELECT count(*) FROM sqlite_master WHERE type IN ('view', 'trigger')")
_log = logging.getLogger("prunesearch")


def checksum(row: Mapping[str, Any], version: int = SCHEMA_VERSION) -> int:
    """CRC-32 of a trial's row as a version stored it, equal however often it was stored and read."""
    values = map(row.__getitem__, _sealed(version))
    return zlib.crc32("\x1f".join(map(repr, values)).encode("utf-8", "backslashreplace"))


@cache
def _sealed(version: int) -> tuple[str, ...]:
    """The columns that a version's checksums are of."""
    later = _added_after(version, trial)
    return tuple(column.name for column in trial.columns if column.name not in ("study_id", "checksum", *later))


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
    _seal(connection, 2)


def _from_2_to_3(connection: sa.Connection) -> None:
    _check_seals(connection, 2)
    kinds = {"images": "INTEGER", "error": "FLOAT" if connection.dialect.name == "sqlite" else "DOUBLE PRECISION"}
    for name in _SINCE[3][trial.name]:
        connection.exec_driver_sql(f"ALTER TABLE trial ADD COLUMN {name} {kinds.get(name, 'TEXT')}")
    connection.execute(trial.update().values(error=0.0, parts="[]"))
    _seal(connection, 3)


def _from_3_to_4(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE study ADD COLUMN holder TEXT")


def _from_4_to_5(connection: sa.Connection) -> None:
    _check_seals(connection, 4)
    fact.create(connection)
    for name in _SINCE[5][trial.name]:
        connection.exec_driver_sql(f"ALTER TABLE trial ADD COLUMN {name} TEXT")
    for row in connection.execute(sa.select(trial.c.study_id, trial.c.number, trial.c.worker)).all():
        mine = trial.update().where(trial.c.study_id == row.study_id, trial.c.number == row.number)
        connection.execute(mine.values(costs="{}", source=upgrades.source_of(row.worker)))
    for stored in connection.execute(sa.select(study.c.id, study.c.question, study.c.space, study.c.summary)).all():
        summary, costs = upgrades.facts_of(stored.question, stored.space, stored.summary)
        question = upgrades.text_of(stored.question)
        connection.execute(study.update().where(study.c.id == stored.id).values(summary=summary, question=question))
        for name, predicted in costs.items():
            for number, found in enumerate(predicted):
                other = sa.select(study.c.id).where(study.c.name == name).scalar_subquery()
                mine = trial.update().where(trial.c.study_id == other, trial.c.number == number)
                connection.execute(mine.values(costs=found))
    _seal(connection, 5)


def _check_seals(connection: sa.Connection, version: int) -> None:
    """Make sure that trials are as a version wrote them, or damage would be sealed in."""
    rows = connection.execute(sa.select(*columns_since(version, trial))).mappings()
    if any(checksum(dict(row), version) != row["checksum"] for row in rows):
        raise StudyUnreadable(
            "A trial is not as it was written, somebody or something changed it. Nothing was upgraded. Restore the "
            "file from a copy."
        )


def _seal(connection: sa.Connection, version: int) -> None:
    """Write the checksum of every trial, as a version computes it."""
    rows = connection.execute(sa.select(*columns_since(version, trial))).mappings().all()
    mine = trial.update().where(trial.c.study_id == sa.bindparam("_study"), trial.c.number == sa.bindparam("_number"))
    sums = [
        {"_study": row["study_id"], "_number": row["number"], "checksum": checksum(dict(row), version)} for row in rows
    ]
    if sums:
        connection.execute(mine, sums)


_UPGRADES: Mapping[int, Callable[[sa.Connection], None]] = {
    1: _from_1_to_2,
    2: _from_2_to_3,
    3: _from_3_to_4,
    4: _from_4_to_5,
}


def columns_since(version: int, table: sa.Table) -> list[Any]:
    """The columns of a table, those that a version did not have yet as NULL, so that readers need not upgrade."""
    new = _added_after(version, table)
    return [sa.null().label(column.name) if column.name in new else column for column in table.columns]


def _added_after(version: int, table: sa.Table) -> set[str]:
    return {name for later, added in _SINCE.items() if later > version for name in added.get(table.name, ())}
