"""A lock on a file that several processes might write to: the operating system's, free again however its owner ends."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Held(Exception):
    """Another process has the lock.

    Attributes:
        owner: Its host and process, as far as it is known.
    """

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


class PathLock:
    """A lock on `FILE.lock`, a file that stays and says who had it last.

    Args:
        path: What is locked; it need not exist. A link to it is the same file.
        patience: Seconds to wait for another process to end.

    Attributes:
        place: The locked file.

    Raises:
        Held: Another process has it.
        OSError: It cannot be made, as in a folder that is read only.
    """

    def __init__(self, path: Path, patience: float = 0.0) -> None:
        file = path.resolve()
        self.place = file.with_name(file.name + ".lock")
        self._lock = self._taken(patience)

    def check(self) -> None:
        """Make sure that it is held, at the cost of looking at a file; take it again if that was deleted or replaced.

        Raises:
            Held: Another process has it now.
            OSError: It cannot be made.
        """
        try:
            found = os.stat(self.place)
        except FileNotFoundError:
            found = None
        if found is None or not os.path.samestat(found, self._file):
            lost = self._lock
            self._lock = self._taken(0.0)
            lost.release()

    def release(self) -> None:
        """Let the next one in."""
        self._lock.release()

    def _taken(self, patience: float) -> FileLock:
        os.close(os.open(self.place, os.O_RDWR | os.O_CREAT, 0o666))  # filelock takes what it cannot make for locked
        lock = FileLock(self.place, timeout=patience)
        try:
            lock.acquire()
        except Timeout:
            raise Held(self._owner()) from None
        self._file = os.stat(self.place)
        with suppress(OSError):  # on a full disk, say: it is for messages alone
            self.place.write_text(this_process() + "\n", encoding="utf-8")
        return lock

    def _owner(self) -> str:
        try:
            with self.place.open(encoding="utf-8", errors="replace") as file:
                return file.readline(200).strip() or "unknown"
        except OSError:  # Windows lets nobody else read it
            return "unknown"


def this_process() -> str:
    """Host and process, as others will read who has a lock."""
    return f"host {socket.gethostname()}, pid {os.getpid()}"
