"""Scoring by processes on this machine, each with its share of the cores, and a GPU of its own where there are some.

The processes are started as programs of their own (`worker.py`), not forked: that works with any threads and GPUs
here, and the caller's script needs no `if __name__ == "__main__"`. POSIX only.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from prunesearch.errors import EvaluationFailed
from prunesearch.structure import Structure
from prunesearch.study.pool import Done, Lost
from prunesearch.study.scoring import Outcome

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from prunesearch.study.watchdog import watch; watch({driver}, {fds}); "
    "from prunesearch.study.worker import work; work({fds})"
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_FALSE_STARTS = 3


class ProcessBackend:
    """Local processes.

    Args:
        payload: What `packing.pack` made of the factory of their scorers.
        size: How many.
        threads: How many threads each may use; None for its share of the cores, but no more than `OMP_NUM_THREADS`.
        cards: What `CUDA_VISIBLE_DEVICES` calls the GPUs that they take in turn, each as its only one, so that what was
            on the first GPU here is on that one there. If there are none, they see what this process sees.

    Raises:
        ValueError: This system has no POSIX processes.
        EvaluationFailed: A worker cannot be started; those that were have ended.
    """

    def __init__(self, payload: bytes, size: int, *, threads: int | None = None, cards: Sequence[str] = ()) -> None:
        if os.name != "posix":
            raise ValueError('Local workers need a POSIX system (Linux, macOS). Use executor="ray" here.')
        self.size = size
        share = _share(size) if threads is None else threads
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(share))}
        of_cards = [{**environment, "CUDA_VISIBLE_DEVICES": card} for card in cards] or [environment]
        self._environments = [of_cards[place % len(of_cards)] for place in range(size)]
        self._false_starts = 0
        self._workers: list[_Worker] = []
        with ExitStack() as held, _starting():
            self._payload = held.enter_context(tempfile.TemporaryFile())  # has no name, and goes with this process
            self._payload.write(payload)
            self._payload.flush()
            self._ears, mouth = os.pipe()  # closed by the system when this process ends, however: workers listen
            held.callback(os.close, self._ears)
            held.callback(os.close, mouth)
            held.callback(self._end_workers)
            for place in range(size):
                self._workers.append(self._start(place))
            self._held = held.pop_all()

    def idle(self) -> int:
        """Workers that are ready and have nothing to do."""
        return sum(worker.is_ready and worker.piece is None for worker in self._workers)

    def give(self, piece: int, part: int, structures: Sequence[Structure]) -> None:
        """Send structures to an idle worker; if it just died, `wait` will say so."""
        worker = next(worker for worker in self._workers if worker.is_ready and worker.piece is None)
        worker.piece = piece
        worker.send({"part": part, "structures": structures})

    def wait(self, seconds: float) -> list[Done | Lost]:
        """Listen to every worker."""
        wait([worker.connection for worker in self._workers], seconds)
        news: list[Done | Lost] = []
        for worker in list(self._workers):
            message = worker.receive()
            if message is None:
                continue
            if message.get("failure"):
                raise EvaluationFailed(f"A worker could not make the evaluator:\n{message['failure']}")
            if message.get("ended"):
                news += self._bury(worker)
            elif "outcomes" in message and worker.piece is not None:
                news.append(Done(worker.piece, tuple(Outcome(**outcome) for outcome in message["outcomes"])))
                worker.piece = None
            worker.is_ready = True
        return news

    def dismiss(self, piece: int) -> None:
        """Kill who has the piece."""
        for place, worker in enumerate(self._workers):
            if worker.piece == piece:
                worker.end()
                self._workers[place] = self._start(place)

    def close(self) -> None:
        """Kill every worker; what they had recorded nothing of is lost with them."""
        self._held.close()

    def _end_workers(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _bury(self, worker: _Worker) -> list[Done | Lost]:
        """Replace a dead worker, unless none gets as far as its first structure."""
        reason = worker.end()
        self._false_starts = 0 if worker.is_ready else self._false_starts + 1
        if self._false_starts >= _FALSE_STARTS:
            raise EvaluationFailed(
                f"{self._false_starts} workers in a row ended before they were ready, the last one by {reason}. "
                "Perhaps there is too little memory for so many."
            )
        place = self._workers.index(worker)
        self._workers[place] = self._start(place)
        return [] if worker.piece is None else [Lost(worker.piece, reason)]

    def _start(self, place: int) -> _Worker:
        with _starting():
            worker = _Worker(self._payload.fileno(), self._ears, self._environments[place])
        return worker


@contextmanager
def _starting() -> Iterator[None]:
    """Meanwhile what the system refuses is said.

    Raises:
        EvaluationFailed: It refused something.
    """
    try:
        yield
    except OSError as error:
        raise EvaluationFailed(
            f"A worker cannot be started: {error}. Perhaps there are too many processes or open files here; use fewer "
            "workers."
        ) from error


class _Worker:
    """One process and the connection to it."""

    def __init__(self, payload: int, ears: int, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        fds = (theirs.fileno(), payload)
        program = _PROGRAM.format(path=sys.path, driver=ears, fds=", ".join(map(str, fds)))
        flags = [f"-W{option}" for option in sys.warnoptions]
        with ours, theirs:
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-c", program],
                pass_fds=(*fds, ears),
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt at the terminal is for the driver, which will end all of it
            )
            self.connection = Connection(ours.detach())
        self.is_ready = False
        self.piece: int | None = None

    def send(self, message: object) -> None:
        """Send, unless nobody is there any more."""
        try:
            self.connection.send_bytes(json.dumps(message).encode())
        except OSError:
            return

    def receive(self) -> dict[str, Any] | None:
        """A message, `{"ended": True}` if there will be none any more, None if there is none now."""
        try:
            if self.connection.poll():
                message: dict[str, Any] = json.loads(self.connection.recv_bytes())
                return message
        except (OSError, EOFError, ValueError):
            return {"ended": True}
        return None if self._process.poll() is None else {"ended": True}

    def end(self) -> str:
        """Kill it if it lives, and all that it started; say how it ended."""
        try:
            status: int | None = self._process.wait(0.2 if self._is_gone() else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what it had started, which would not end by itself
        self.connection.close()
        assert status is not None
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def _is_gone(self) -> bool:
        """Whether the other end is closed: then the process is ending, and its status worth a moment's wait."""
        try:
            return self.connection.poll()
        except (OSError, EOFError):
            return True


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share(size: int) -> int:
    """Threads of each of so many processes."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores() // size, int(limit) if limit.isdigit() else cores()))
