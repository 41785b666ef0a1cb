"""Searches in processes of their own, and what can be seen of them from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from prunesearch.errors import StudyUnreadable
from prunesearch.study.store import Store
from tests.faults.toy import NAME, history, run

CLI = (sys.executable, "-c", "from prunesearch.cli import main; main()")


def start(url: str, n_trials: int, log: Path | None = None, **options: Any) -> subprocess.Popen[str]:
    """A toy search."""
    command = [sys.executable, "-m", "tests.faults.toy", url, str(n_trials), str(log or ""), json.dumps(options)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], seconds: float = 120) -> str:
    """Wait for a process that must succeed; return what it said."""
    _, said = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    return said


def recorded(url: str, name: str = NAME) -> int:
    """How many trials there are, 0 as long as the database is being made."""
    try:
        with closing(Store(url, create=False)) as store:
            progress = store.progress(name)
    except StudyUnreadable:
        return 0
    return 0 if progress is None else progress.trials


def wait_for(url: str, more_than: int, process: subprocess.Popen[Any], name: str = NAME, seconds: float = 60) -> int:
    """Wait until more trials are recorded, or the process ends."""
    end = time.monotonic() + seconds
    while True:
        now = recorded(url, name)
        if now > more_than or process.poll() is not None:
            return now
        assert time.monotonic() < end, f"no further than trial {now} in {seconds} s"
        time.sleep(0.01)


def wait_for_growth(log: Path, process: subprocess.Popen[Any], seconds: float = 60) -> None:
    """Wait until more is noted in a file than now, or the process ends."""
    before, end = log.stat().st_size if log.exists() else 0, time.monotonic() + seconds
    while process.poll() is None and (log.stat().st_size if log.exists() else 0) <= before:
        assert time.monotonic() < end, f"nothing was scored in {seconds} s"
        time.sleep(0.002)


def stored(url: str, name: str = NAME) -> list[Any]:
    """The history in a database."""
    with closing(Store(url, create=False)) as store:
        return history(store.trials(name))


def uninterrupted(n_trials: int, **options: Any) -> list[Any]:
    """What the history must be."""
    return history(run("sqlite://", n_trials, **options))
