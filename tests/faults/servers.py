"""A PostgreSQL server and a PgBouncer of our own, for as long as tests need them."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PASSWORD = "s3cret-word"


def server_commands() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them out of the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "pg_ctl").exists()), None)


def pooler_command() -> str | None:
    """PgBouncer, which Debian keeps among programs for administrators."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@dataclass
class Postgres:
    """A server with one database.

    Attributes:
        commands: The folder of its programs.
        folder: Where it lies; a short path, as its socket lies in it.
        port: Where it listens.
    """

    commands: Path
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pg")))
    port: int = field(default_factory=lambda: free_port())

    def __post_init__(self) -> None:
        _give_away(self.folder)
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "password").chmod(0o644)
        self._call("initdb", "-D", "data", "-U", "prune", "-A", "scram-sha-256", "--pwfile", "password", "-N")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://prune:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._call("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", "data", "-m", "immediate", "stop")

    def remove(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.commands / program, *arguments], check=True, capture_output=True, timeout=60, cwd=self.folder,
            user=_user() if os.geteuid() == 0 else None,
        )  # fmt: skip


class Pooler:
    """A PgBouncer before a server.

    Args:
        command: The program.
        server: The server.
        mode: `transaction` or `session`.
    """

    def __init__(self, command: str, server: Postgres, mode: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pgb"))
        self.port = free_port()
        (self.folder / "users").write_text(f'"prune" "{PASSWORD}"\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = users\npool_mode = {mode}\ndefault_pool_size = 20\n"
            "server_round_robin = 1\n"
        )
        _give_away(self.folder)
        self._process = subprocess.Popen(
            [command, "pgbouncer.ini"], cwd=self.folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            user=_user() if os.geteuid() == 0 else None,
        )  # fmt: skip
        self._wait()

    @property
    def url(self) -> str:
        return f"postgresql://prune:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def remove(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < end
                time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _user() -> str:
    """Who runs the servers, which refuse to run as root."""
    return "postgres" if os.geteuid() == 0 else getpass.getuser()


def _give_away(folder: Path) -> None:
    if os.geteuid() == 0:
        record = pwd.getpwnam(_user())
        for path in (folder, *folder.iterdir()):
            os.chown(path, record.pw_uid, record.pw_gid)
