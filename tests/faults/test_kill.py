"""F1, F2, F5: `kill -9` at random instants, then the same command again."""

from __future__ import annotations

import random
import subprocess
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
from tests.faults.toy import NAME, QUESTION, SPACE

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


def test_workers_end_with_a_driver_that_was_killed_even_if_they_hang(tmp_path: Path) -> None:
    url, log = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "log"
    hanging = dict.fromkeys([str(structure) for _, structure, _ in uninterrupted(4)], "hang")
    process = start(url, 20, log, count=2, faults=hanging)
    while not log.exists():
        time.sleep(0.05)
    children = _children(process.pid)
    assert len(children) == 2
    process.kill()
    process.communicate()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{child}/cmdline").exists() and _cmdline(child) for child in children):
        assert time.monotonic() < end
        time.sleep(0.05)


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
