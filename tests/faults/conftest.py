"""What fault tests share: a tally that becomes the table in the docs, a PostgreSQL server, a Ray cluster."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
def postgres() -> Iterator[str]:
    """URL of a private PostgreSQL server, which ends with the session."""
    commands = _server_commands()
    if commands is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a short path: the socket lies in it
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        record = pwd.getpwnam(user)
        os.chown(folder, record.pw_uid, record.pw_gid)
    port = _free_port()
    as_user = {"user": user, "cwd": folder} if os.geteuid() == 0 else {"cwd": folder}
    (folder / "password").write_text("s3cret-word")
    (folder / "password").chmod(0o644)

    def call(*arguments: str) -> None:
        subprocess.run(arguments, check=True, capture_output=True, timeout=60, **as_user)  # type: ignore[call-overload]

    call(commands / "initdb", "-D", "data", "-U", "prune", "-A", "scram-sha-256", "--pwfile", "password", "-N")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    call(commands / "pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")
    try:
        yield f"postgresql://prune:s3cret-word@127.0.0.1:{port}/postgres"
    finally:
        call(commands / "pg_ctl", "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _server_commands() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them out of the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "pg_ctl").exists()), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that processes find the package and the tests, however this one did."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
