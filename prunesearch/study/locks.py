"""Who may drive: a lock of the operating system or of the server, free again however its owner ends.

A lock can be lost without a word: a file is deleted, a server restarts. So it is checked at every write, and taken
again if nobody else has it. That nobody wrote in between is for `Store.take` to see to.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from prunesearch.errors import StudyLocked, StudyUnreadable, StudyUnwritable
from prunesearch.locking import Held, PathLock
from prunesearch.study.database import Database, has_ended, parse
from prunesearch.study.store import Driver, Store

_PAUSE = 0.1  # seconds

_OWNER = sa.text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_database d"
    " ON d.oid = l.database WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted"
    " AND l.objsubid = 1 AND l.classid::bigint = :high AND l.objid::bigint = :low"
)
_WHILE_IDLE = sa.text(  # the lock's transaction may last for days, but not longer than this machine
    "SELECT set_config(name, CASE name WHEN 'tcp_keepalives_idle' THEN '30' WHEN 'tcp_keepalives_interval' THEN '10'"
    " WHEN 'tcp_keepalives_count' THEN '3' ELSE '0' END, true) FROM pg_settings WHERE name IN ('tcp_keepalives_idle',"
    " 'tcp_keepalives_interval', 'tcp_keepalives_count', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
)


class Lock(Protocol):
    """What a driver holds."""

    def check(self) -> None:
        """Make sure that it is held, at a cost that no write notices; take it again if it was lost.

        Raises:
            StudyLocked: Another process has it now.
            StudyUnwritable: It cannot be made, or the server cannot be reached.
        """
        ...

    def release(self) -> None:
        """Let the next driver in."""
        ...


def drive(database: Database, url: str, name: str, *, patience: float = 0.0) -> Lock:
    """Take the lock for this process.

    A file has one driver at a time, on a server each study has its own. A database in memory needs no lock.

    Args:
        database: Which.
        url: Its URL.
        name: The study that is to be driven.
        patience: Seconds to wait for another driver to end.

    Raises:
        StudyLocked: Another process has it; the message says which.
        StudyUnreadable: The server cannot be reached.
        StudyUnwritable: The lock cannot be made, as in a folder that is read only.
    """
    if database.server is not None:
        return _ServerLock(database, name, patience)
    if database.path is not None:
        return _LockBesideFile(database.path, url, patience)
    return _NoLock()


@contextmanager
def driving(url: str, name: str, *, patience: float = 0.0) -> Iterator[Store]:
    """The database of a study, opened for writing while nobody else drives it.

    Args:
        url: The database.
        name: The study, which must exist.
        patience: Seconds to wait for another driver to end.

    Raises:
        StudyLocked: Another process drives it.
        StudyUnreadable: The database cannot be read.
        StudyUnwritable: It cannot be written, or there is no such study any more.
    """
    lock = drive(parse(url), url, name, patience=patience)
    try:
        with closing(Store(url, still_ours=lock.check)) as store:
            store.take(name)
            yield store
    finally:
        lock.release()


def driver_of(store: Store, database: Database, name: str) -> Driver | None:
    """Who drives a study, for whoever watches; reads only."""
    if database.server is None:
        return store.driver()
    engine = database.engine(writing=False)
    try:
        with database.reading(engine) as connection:
            owner = connection.scalar(_OWNER, _halves(_key(name)))
    finally:
        engine.dispose()
    return None if owner is None else Driver(_process(str(owner)), running=True)


class _NoLock:
    def check(self) -> None:
        pass

    def release(self) -> None:
        pass


class _LockBesideFile:
    """The lock of a file of studies.

    Args:
        path: The database.
        url: Its URL.
        patience: Seconds to wait for another driver to end.
    """

    def __init__(self, path: Path, url: str, patience: float) -> None:
        self._path = path
        self._url = url
        with self._errors():
            self._lock = PathLock(path, patience)

    def check(self) -> None:
        with self._errors():
            self._lock.check()

    def release(self) -> None:
        self._lock.release()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Held:
            raise StudyLocked(
                f"{self._path} is in use by another run ({_recorded_driver(self._url)}). Wait for it to end, or use "
                "another file."
            ) from None
        except OSError as error:
            raise StudyUnwritable(
                f"{error.filename} cannot be created: {error.strerror}. Give a file in another folder."
            ) from None


def _recorded_driver(url: str) -> str:
    try:
        with closing(Store(url, create=False)) as store:
            driver = store.driver()
    except StudyUnreadable:  # the other one is just making it
        driver = None
    return "unknown" if driver is None else driver.name


class _ServerLock:
    """PostgreSQL's advisory lock, held by a transaction that stays open, and ends with its process.

    A pooler that gives each transaction another session of the server (transaction mode of PgBouncer) would lose or
    share the lock of a session; the session of an open transaction it leaves alone. Such a transaction has no snapshot
    and no number, so it keeps no old rows from being cleaned up.

    Args:
        database: Where.
        name: The study.
        patience: Seconds to wait for another driver to end.
    """

    def __init__(self, database: Database, name: str, patience: float) -> None:
        self._database = database
        self._name = name
        self._key = _key(name)
        self._engine = database.engine(writing=True).execution_options(isolation_level="READ COMMITTED")
        self._connection: sa.Connection | None = self._taken(patience)

    def check(self) -> None:
        if self._connection is None or has_ended(self._connection.connection.dbapi_connection):
            self.release()
            try:
                self._connection = self._taken(0.0)
            except StudyUnreadable as error:
                raise StudyUnwritable(
                    f"{error} What was recorded before is kept; run the same command again."
                ) from None

    def release(self) -> None:
        if self._connection is not None:
            with suppress(DBAPIError):
                self._connection.rollback()  # the lock is free at once, also behind a pooler
            self._connection.invalidate()  # closes the session, and with it the lock, whatever state it is in
            self._connection.close()
            self._connection = None
        self._engine.dispose()

    def _taken(self, patience: float) -> sa.Connection:
        end = time.monotonic() + patience
        try:
            connection = self._engine.connect()
            while True:
                connection.execute(_WHILE_IDLE)
                if connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(self._key))):
                    return connection
                owner = connection.scalar(_OWNER, _halves(self._key))
                connection.rollback()
                if time.monotonic() >= end:
                    break
                time.sleep(_PAUSE)
            connection.close()
        except DBAPIError as error:
            self._engine.dispose()
            raise StudyUnreadable(
                f"{self._database.shown} cannot be locked: {self._database.describe(error)}."
            ) from None
        self._engine.dispose()
        driver = "unknown" if owner is None else _process(str(owner))
        raise StudyLocked(
            f"Study {self._name!r} in {self._database.shown} is in use by another run ({driver}). Wait for it to end, "
            "or use another study name."
        )


def _process(application: str) -> str:
    return application.removeprefix("prunesearch, ")


def _key(name: str) -> int:
    digest = hashlib.sha256(f"prunesearch study {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _halves(key: int) -> dict[str, int]:
    """The key as PostgreSQL's list of locks shows it: two unsigned halves."""
    unsigned = key % 2**64
    return {"high": unsigned >> 32, "low": unsigned % 2**32}
