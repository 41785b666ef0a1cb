"""Which database a study URL names, and connections to it. A password reaches the server and nobody else."""

from __future__ import annotations

import os
import selectors
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from prunesearch.errors import InvalidInput, StudyUnreadable
from prunesearch.locking import this_process
from prunesearch.urls import HARMLESS_KEYS, described, is_plain, may_hold_password, redacted, server_url

IN_MEMORY = "sqlite://"
_FILE = "sqlite:///"
_SERVERS = ("postgresql", "postgres", "postgresql+psycopg")
_EXPECTED = (
    'Expected a study URL such as "sqlite:///search.db" or "postgresql://USER@SERVER/NAME", or a file such as '
    '"search.db" (or "sqlite://" to keep nothing)'
)
_SUFFIXES = (".db", ".sqlite", ".sqlite3")
ERRORS = (DBAPIError, UnicodeDecodeError)
"""What connections raise; the second one if a damaged file makes SQLite's own message unreadable."""
_OF_THE_DISK = ("disk I/O error", "disk is full", "unable to open")
_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Database:
    """What a study URL names.

    Attributes:
        shown: The URL as it may be shown, without password.
        path: The file of a SQLite database; None for one in memory or on a server.
        server: Address of a PostgreSQL database; None otherwise.
    """

    shown: str
    path: Path | None = None
    server: sa.URL | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The file's name, or the server's for the database; folder and address are nobody's business."""
        if self.server is not None:
            return str(self.server.database)
        return "memory" if self.path is None else self.path.name

    def engine(self, *, writing: bool) -> sa.Engine:
        """Connections; readers cannot change anything."""
        if self.server is not None:
            return _server_engine(self.server, writing=writing)
        return _sqlite_engine(self.path, writing=writing)

    def describe(self, error: Exception) -> str:
        """What a driver said, without the password, should it have been so careless."""
        said = " ".join(str(getattr(error, "orig", error)).split()).rstrip(".")
        for secret in _secrets(self.server):
            for spelt in (secret, quote(secret, safe=""), quote(secret, safe=" +"), quote_plus(secret)):
                said = said.replace(spelt, "***")
        return redacted(said)

    @contextmanager
    def reading(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """A connection whose errors say which database, in a sentence.

        Raises:
            StudyUnreadable: It cannot be reached or read.
        """
        try:
            with engine.connect() as connection:
                yield connection
        except ERRORS as error:
            said = self.describe(error)
            remedy = "If the file should be one, restore it from a copy; otherwise give another file."
            if self.server is not None:
                remedy = "Check the server, the address and the rights of this user."
            elif any(words in said for words in _OF_THE_DISK):
                remedy = "Check the disk: SQLite keeps two small files beside a study, also for its readers."
            raise StudyUnreadable(f"{self.shown} cannot be read as a study: {said}. {remedy}") from None


def as_url(given: str | Path) -> str:
    """A URL, or the name of a file, as it is; the path of a file as its URL."""
    return f"{_FILE}{given}" if isinstance(given, Path) else given


def parse(url: str) -> Database:
    """Find out which database a URL, or the name of a file, means; opens nothing.

    Raises:
        InvalidInput: Not a URL of a database we know.
    """
    if not isinstance(url, str):
        raise InvalidInput(f"{_EXPECTED}, got {described(url)}.")
    if url == IN_MEMORY:
        return Database(shown=url)
    if url.partition("://")[0] in _SERVERS:
        return _server(url)
    if _is_file(url):
        url = _FILE + url
    name = url[len(_FILE) :] if url.startswith(_FILE) else ""
    if not name or name == ":memory:" or "\0" in name or (may_hold_password(name) and not os.path.exists(name)):
        raise InvalidInput(f"{_EXPECTED}, got {described(url)}.")
    return Database(shown=url, path=Path(name))


def _is_file(text: str) -> bool:
    """Whether this is the name of a file and no URL, not even one with a typing error."""
    if "://" in text or text.startswith(("sqlite:", *(f"{kind}:" for kind in _SERVERS))):
        return False
    return Path(text).suffix in _SUFFIXES or Path(text).is_file()


def show(url: str) -> str:
    """The URL as it may be shown, without password.

    Example:
        >>> show("postgresql://me:secret@server/studies")
        'postgresql://***@server/studies'
    """
    return parse(url).shown


def has_ended(session: Any) -> bool:
    """Whether the server has ended a session that waits for no answer: only then is there something to read.

    Args:
        session: A connection of psycopg.
    """
    if session.closed:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(session.fileno(), selectors.EVENT_READ)
        return bool(selector.select(timeout=0))


def _server(url: str) -> Database:
    hint = "Expected postgresql://USER:PASSWORD@SERVER/DATABASE with special characters of the password as %40 (@) etc."
    try:
        address = sa.make_url(url).set(drivername="postgresql+psycopg")
    except (ValueError, sa.exc.ArgumentError):
        raise InvalidInput(f"{hint}; this URL cannot be read, and is not shown as it may hold a password.") from None
    if not address.database:
        raise InvalidInput(f"{hint}; this URL names no database.")
    if not is_plain(address.database) or not is_plain(address.host or "localhost"):
        raise InvalidInput(f"{hint}; the server or the database of this URL has no name that one can have.")
    parts = {"host": address.host, "port": address.port, "database": address.database}
    named = bool(address.username or address.password or {"user", "password"} & set(address.query))
    return Database(shown=server_url("postgresql", parts, address.query, named=named), server=address)


def _secrets(address: sa.URL | None) -> list[str]:
    if address is None:
        return []
    known = [
        str(address.password or ""),
        *(str(value) for key, value in address.query.items() if key not in HARMLESS_KEYS),
    ]
    if not is_plain(address.username or "me"):  # a password may be in it
        known.append(str(address.username))
    words = {part for secret in known for part in (secret, " ".join(secret.split())) if part}
    return sorted(words, key=len, reverse=True)


def _server_engine(address: sa.URL, *, writing: bool) -> sa.Engine:
    """Connections to PostgreSQL that say in the server's list of sessions who they are.

    A pooler may give each transaction another session of the server, so nothing is prepared in one.
    """
    arguments: dict[str, Any] = {"application_name": f"prunesearch, {this_process()}"[:63], "prepare_threshold": None}
    arguments |= {} if "connect_timeout" in address.query else {"connect_timeout": _CONNECT_SECONDS}
    try:
        engine = sa.create_engine(address, connect_args=arguments, hide_parameters=True)
    except ImportError as error:
        raise InvalidInput(
            f"Studies on a server need one more package: pip install 'prunesearch[postgres]' ({error})."
        ) from None

    @sa.event.listens_for(engine, "checkout")
    def _replace_ended(session: Any, *_: Any) -> None:
        if has_ended(session):
            raise sa.exc.DisconnectionError  # the pool makes another

    return engine if writing else engine.execution_options(postgresql_readonly=True)


def _sqlite_engine(path: Path | None, *, writing: bool) -> sa.Engine:
    """Connections to a file, or to a database in memory.

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
    def _take_over(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA trusted_schema=OFF")  # what a foreign file defines calls no function
        connection.execute("PRAGMA cell_size_check=ON")  # damaged pages are noticed early

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine
