"""Who may drive: a lock of the operating system or of the server, free again however its owner ends."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import closing

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.exc import DBAPIError

from prunesearch.errors import StudyLocked, StudyUnreadable, StudyUnwritable
from prunesearch.study.database import Database
from prunesearch.study.store import Driver, Store

Release = Callable[[], None]

_PAUSE = 0.1  # seconds

_OWNER = sa.text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_database d"
    " ON d.oid = l.database WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted"
    " AND l.objsubid = 1 AND l.classid::bigint = :high AND l.objid::bigint = :low"
)


def drive(database: Database, url: str, name: str, *, patience: float = 0.0) -> Release:
    """Take the lock for this process, and return what gives it back.

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
        return _lock_on_server(database, name, patience)
    if database.path is not None:
        return _lock_beside_file(database, url, patience)
    return lambda: None


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


def _lock_beside_file(database: Database, url: str, patience: float) -> Release:
    assert database.path is not None
    file = database.path.resolve()  # a link to a database is the same database
    place = file.with_name(file.name + ".lock")
    lock = FileLock(place, timeout=patience)
    try:
        os.close(os.open(place, os.O_RDWR | os.O_CREAT, 0o644))  # filelock takes some files it cannot make for locked
        lock.acquire()
    except Timeout:
        raise StudyLocked(
            f"{database.path} is in use by another run ({_recorded_driver(url)}). Wait for it to end, or use another "
            "file."
        ) from None
    except OSError as error:
        raise StudyUnwritable(f"{place} cannot be created: {error.strerror}. Give a file in another folder.") from None
    return lock.release


def _recorded_driver(url: str) -> str:
    try:
        with closing(Store(url, create=False)) as store:
            driver = store.driver()
    except StudyUnreadable:  # the other one is just making it
        driver = None
    return "unknown" if driver is None else driver.name


def _lock_on_server(database: Database, name: str, patience: float) -> Release:
    """PostgreSQL's advisory lock: it belongs to a session, which ends with its process."""
    engine = database.engine(writing=True)
    key = _key(name)
    end = time.monotonic() + patience
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        while not (taken := connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key)))):
            if time.monotonic() >= end:
                break
            time.sleep(_PAUSE)
        owner = None if taken else connection.scalar(_OWNER, _halves(key))
    except DBAPIError as error:
        engine.dispose()
        raise StudyUnreadable(f"{database.shown} cannot be locked: {database.describe(error)}.") from None

    def release() -> None:
        connection.invalidate()  # closes the session, and with it the lock, whatever state it is in
        connection.close()
        engine.dispose()

    if not taken:
        release()
        driver = "unknown" if owner is None else _process(str(owner))
        raise StudyLocked(
            f"Study {name!r} in {database.shown} is in use by another run ({driver}). Wait for it to end, or use "
            "another study name."
        )
    return release


def _process(application: str) -> str:
    return application.removeprefix("prunesearch, ")


def _key(name: str) -> int:
    digest = hashlib.sha256(f"prunesearch study {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _halves(key: int) -> dict[str, int]:
    """The key as PostgreSQL's list of locks shows it: two unsigned halves."""
    unsigned = key % 2**64
    return {"high": unsigned >> 32, "low": unsigned % 2**32}
