"""F1, F2, F5: `kill -9` at random instants, then the same command again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from prunesearch.errors import StudyLocked
from prunesearch.models.network import Network
from prunesearch.study.study import Study
from tests.faults.processes import CLI, finish, recorded, start, stored, uninterrupted, wait_for, wait_for_growth
from tests.faults.tally import Tally, repeats
from tests.faults.toy import NAME, QUESTION, SPACE, run

pytestmark = pytest.mark.faults
TRIALS = 200


@pytest.mark.parametrize(
    ("kills", "options", "at_once"),
    [(50, {"seconds": 0.008}, 16), (12, {"seconds": 0.008, "count": 2}, 64)],
    ids=["inline", "two workers"],
)
def test_killed_again_and_again_the_history_is_that_of_an_uninterrupted_run(
    tmp_path: Path, tally: Tally, kills: int, options: dict[str, Any], at_once: int
) -> None:
    url, log, instants = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "log", random.Random(0)
    seen = done = lost = 0
    while done < kills:
        process = start(url, TRIALS, log, **options)
        wait_for_growth(log, process)  # it has begun to score
        time.sleep(instants.uniform(0.0, 0.16))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        done += 1
        now = recorded(url)
        lost += max(0, seen - now)
        seen = now
    finish(start(url, TRIALS, log, **options))
    again = repeats(log, range(TRIALS))
    assert done >= kills // 2
    assert lost == 0
    assert again <= done * at_once  # at most what was in flight
    assert stored(url) == uninterrupted(TRIALS)
    how = "two local workers" if "count" in options else "inline"
    tally.add("F1", f"{TRIALS} candidates, {how}", done, lost=lost, repeated=again)
    tally.add("F2", f"{TRIALS} candidates, {how}: identical", done, lost=lost, repeated=again)


@pytest.mark.parametrize("fault", ["hang", "hang with the lock", "hang with children", "stop"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=["KILL", "TERM", "SEGV"])
def test_workers_end_with_their_driver_whatever_they_do(
    tmp_path: Path, tally: Tally, fault: str, number: signal.Signals
) -> None:
    url, log = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "log"
    process = start(url, 20, log, count=2, faults=dict.fromkeys([str(s) for _, s, _ in uninterrupted(4)], fault))
    while not log.exists() or len(log.read_text().splitlines()) < 2:
        time.sleep(0.05)
    time.sleep(0.2)
    workers = _children(process.pid)
    assert len(workers) == 2
    process.send_signal(number)
    process.communicate()
    end = time.monotonic() + 10
    while any(_group(worker) for worker in workers):  # the worker, its watchdog, and what it started
        assert time.monotonic() < end
        time.sleep(0.05)
    tally.add("F21", f"the driver is killed while its workers {fault}: none is left", 2)


_FORKS = """
import os, sys, time
from prunesearch.study.packing import pack
from prunesearch.study.process_backend import ProcessBackend
backend = ProcessBackend(pack(lambda: ()), 1)
while not backend.idle():
    backend.wait(0.1)
child = os.fork()  # as a data loader, which keeps the driver's descriptors
if not child:
    time.sleep(60)
print(child, backend._workers[0]._process.pid, flush=True)
time.sleep(60)
"""


def test_workers_end_with_a_driver_of_which_a_fork_lives_on() -> None:
    driver = subprocess.Popen([sys.executable, "-c", _FORKS], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    child, worker = map(int, driver.stdout.readline().split())
    driver.kill()
    driver.wait()
    try:
        end = time.monotonic() + 10
        while _group(worker):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert _cmdline(child)
    finally:
        os.kill(child, signal.SIGKILL)
        driver.stdout.close()


def test_a_time_limit_ends_what_a_worker_started_too(tmp_path: Path) -> None:
    whole = uninterrupted(6, searcher="random")
    before = _sleepers()
    trials = run(
        "sqlite://", 6, faults={str(whole[3][1]): "hang with children"}, count=2, time_limit=1.0, searcher="random"
    )
    assert trials[3].failure == "It took longer than the time limit of 1 s."
    end = time.monotonic() + 10
    while _sleepers() > before:
        assert time.monotonic() < end
        time.sleep(0.05)


def _sleepers() -> int:
    return sum(_cmdline(int(path.name)).startswith("sleep\x003600") for path in Path("/proc").glob("[0-9]*"))


def _group(leader: int) -> list[int]:
    """The processes of a group that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(path.name))
    return found


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cmdline(pid: int) -> str:
    """Empty for one that has ended and was not yet waited for."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_lock_of_a_killed_driver_is_free_at_once(tmp_path: Path, tally: Tally) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for _ in range(5):
        process = start(url, 100_000, seconds=0.002)
        wait_for(url, recorded(url), process)
        with pytest.raises(StudyLocked):
            Study(url, NAME, QUESTION, SPACE)
        process.kill()
        process.communicate()
        with Study(url, NAME, QUESTION, SPACE):  # the very next attempt, without waiting
            pass
    tally.add("F5", "SQLite: the next attempt succeeds", 5)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_on_the_command_line_killed_again_and_again_ends_like_one_that_was_not(
    tmp_path: Path, network: Network, tally: Tally, workers: int
) -> None:
    safetensors.torch.save_file(network.model.state_dict(), tmp_path / "w.safetensors")
    command = [*CLI, "search", "--model", "zoo:resnet8", "--weights", "w.safetensors", "--data", "digits", "--budget",
               "macs=50%", "--searcher", "evolution", "--n-trials", "100"]  # fmt: skip
    instants, seen, kills = random.Random(1), 0, 0
    url = f"sqlite:///{tmp_path / 'killed.db'}"
    for _ in range(4):
        process = subprocess.Popen(
            [*command, "--study", url, "--workers", str(workers)], cwd=tmp_path, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(url, seen, process, "search")
        time.sleep(instants.uniform(0.0, 0.1))
        process.kill()
        process.communicate()
        kills += process.returncode != 0
        now = recorded(url, "search")
        assert now >= seen
        seen = now
    assert kills
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    for each in (url, whole):
        subprocess.run([*command, "--study", each], cwd=tmp_path, check=True, capture_output=True)
    assert stored(url, "search") == stored(whole, "search")
    how = "inline" if workers == 1 else f"{workers} workers, then inline"
    tally.add("F1", f"`prunesearch search` of a ResNet-8, 100 candidates, {how}", kills)
    tally.add("F2", f"`prunesearch search`, {how}: identical", kills)
