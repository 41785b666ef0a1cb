"""`kill -9` at random instants, then the same command again: the history is that of a run that was never killed.

A few of them, at once; `tests/faults` has more, and more kinds.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunesearch.study.store import Store
from tests.study.toy import history, run

PROGRAM = """
import sys, time
from tests.study.toy import SCORE, Scorer, run
def slowly(structure):
    time.sleep(0.01)
    return SCORE(structure)
run(sys.argv[1], int(sys.argv[2]), scorer=Scorer(slowly))
"""
TRIALS = 120
KILLS = 3


def start(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, url, str(TRIALS)], stderr=subprocess.PIPE)


def recorded(url: str, path: Path) -> int:
    if not path.exists():
        return 0
    store = Store(url, create=False)
    try:
        return len(store.trials("toy")) if "toy" in store.studies() else 0
    finally:
        store.close()


@pytest.mark.slow  # it starts four processes, one after the other
def test_a_search_killed_again_and_again_ends_with_the_uninterrupted_history(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    url = f"sqlite:///{path}"
    instants = random.Random(0)
    killed = seen = 0
    while killed < KILLS:
        process = start(url)
        while process.poll() is None and recorded_or_zero(url, path) <= seen:  # at least one trial further each time
            time.sleep(0.005)
        time.sleep(instants.uniform(0.0, 0.1))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.communicate()
        killed += 1
        now = recorded(url, path)
        assert now >= seen  # nothing recorded is ever lost
        seen = now
    assert killed >= 2
    last = start(url)
    _, errors = last.communicate()
    assert last.returncode == 0, errors.decode()
    store = Store(url, create=False)
    assert history(store.trials("toy")) == history(run("sqlite://", TRIALS))
    store.close()


def recorded_or_zero(url: str, path: Path) -> int:
    """The file may be in the middle of being made."""
    from prunesearch.errors import StudyUnreadable

    try:
        return recorded(url, path)
    except StudyUnreadable:
        return 0
