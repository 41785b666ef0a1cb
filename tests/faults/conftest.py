"""What fault tests share: a tally that becomes the table in the docs, servers of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import Pooler, Postgres, pooler_command, server_commands
from tests.faults.tally import Tally

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Iterator[Tally]:
    """Counts of the session, written as JSON at its end if `--faults-out` says where."""
    counts = Tally()
    yield counts
    out = pytestconfig.getoption("--faults-out")
    if out:
        counts.write(Path(out))


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A private PostgreSQL server, which ends with the session."""
    commands = server_commands()
    if commands is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    started = Postgres(commands)
    try:
        yield started
    finally:
        started.remove()


@pytest.fixture(scope="session")
def postgres(server: Postgres) -> str:
    """URL of a private PostgreSQL server."""
    return server.url


@pytest.fixture(scope="session")
def poolers(server: Postgres) -> Iterator[dict[str, str]]:
    """URLs of a PgBouncer before the server, by its mode."""
    command = pooler_command()
    if command is None:
        pytest.skip("PgBouncer is not installed")
    started = {mode: Pooler(command, server, mode) for mode in ("transaction", "session")}
    try:
        yield {f"PgBouncer, {mode}s": pooler.url for mode, pooler in started.items()}
    finally:
        for pooler in started.values():
            pooler.remove()


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that processes find the package and the tests, however this one did."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
