"""F6, F7, F18, F20: other processes, signals, and very large studies."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import safetensors.torch
import sqlalchemy as sa

from prunesearch.errors import StudyLocked
from prunesearch.models.network import Network
from prunesearch.search import make_searcher
from prunesearch.study import schema
from prunesearch.study.executors import InlineExecutor
from prunesearch.study.store import Store, _to_row
from prunesearch.study.study import Study
from prunesearch.trial import Trial
from tests.faults.processes import CLI, finish, recorded, start, stored, uninterrupted, wait_for
from tests.faults.tally import Tally
from tests.faults.toy import BUDGET, NAME, QUESTION, SCORE, SPACE, Scorer

pytestmark = pytest.mark.faults


def test_a_second_driver_is_refused_at_once_with_the_owners_host_and_pid(tmp_path: Path, tally: Tally) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    process = start(url, 400, seconds=0.005)
    wait_for(url, 0, process)
    for _ in range(20):
        with pytest.raises(StudyLocked, match=rf"host .+, pid {process.pid}\b"):
            Study(url, NAME, QUESTION, SPACE)
    finish(process)
    assert stored(url) == uninterrupted(400)
    tally.add("F6", "SQLite: refused, naming host and process", 20)


def test_many_drivers_at_once_one_wins_and_nothing_is_lost_or_doubled(tmp_path: Path, tally: Tally) -> None:
    url, log = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "log"
    drivers = [start(url, 100, log, seconds=0.01) for _ in range(4)]
    said = [driver.communicate()[1] for driver in drivers]
    assert sum(driver.returncode == 0 for driver in drivers) >= 1
    assert all("StudyLocked" in words for driver, words in zip(drivers, said, strict=True) if driver.returncode)
    assert stored(url) == uninterrupted(100)
    assert len(log.read_text().splitlines()) == 100
    tally.add("F6", "SQLite: four drivers started together", 1)


def test_a_reader_at_10_hertz_changes_nothing(tmp_path: Path, tally: Tally) -> None:
    url, reads, stop = f"sqlite:///{tmp_path / 'study.db'}", 0, threading.Event()
    process = start(url, 300, seconds=0.01)
    wait_for(url, 0, process)
    while process.poll() is None and not stop.wait(0.1):
        with closing(Store(url, create=False)) as store:
            progress, trials = store.progress(NAME), store.trials(NAME)
        assert progress is not None
        assert progress.trials <= len(trials)
        assert [trial.number for trial in trials] == list(range(len(trials)))
        reads += 1
    finish(process)
    assert reads
    assert stored(url) == uninterrupted(300)
    tally.add("F7", "SQLite: `status` and every trial read", reads)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, network: Network) -> tuple[Path, list[str]]:
    """A folder, and a search on the command line that would take long."""
    folder = tmp_path_factory.mktemp("signals")
    safetensors.torch.save_file(network.model.state_dict(), folder / "w.safetensors")
    return folder, [*CLI, "search", "--model", "zoo:resnet8", "--weights", "w.safetensors", "--data", "digits",
                    "--budget", "macs=50%", "--searcher", "random", "--n-trials", "100000"]  # fmt: skip


SIGNALS = {
    "SIGINT once": ([signal.SIGINT], 130, "Interrupted."),
    "SIGINT twice": ([signal.SIGINT, signal.SIGINT], 130, "Interrupted."),
    "SIGTERM": ([signal.SIGTERM], 143, "Terminated."),
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("signals", "status", "word"), SIGNALS.values(), ids=SIGNALS)
def test_a_signal_ends_a_search_in_order_and_the_same_command_goes_on(
    command: tuple[Path, list[str]], tally: Tally, signals: list[int], status: int, word: str, workers: int
) -> None:
    folder, search = command
    name = f"{'-'.join(map(str, signals))}-{workers}.db"
    process = subprocess.Popen(
        [*search, "--study", f"sqlite:///{name}", "--workers", str(workers)], cwd=folder, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    url = f"sqlite:///{folder / name}"
    seen = wait_for(url, 3, process, "search")
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status, said
    assert f"{word} Everything scored is kept" in " ".join(said.split())
    kept = recorded(url, "search")
    assert kept >= seen
    history = stored(url, "search")
    again = [word if word != "100000" else str(kept + 1) for word in search]
    subprocess.run([*again, "--study", f"sqlite:///{name}"], cwd=folder, check=True, capture_output=True)
    assert stored(url, "search")[:kept] == history
    tally.add("F18", f"{' and '.join(signal.Signals(n).name for n in signals)}, {workers} workers: exit {status}", 1)


def test_a_hundred_thousand_trials_open_and_go_on(tmp_path: Path, tally: Tally) -> None:
    """How long it takes is measured in benchmarks/studies.py; here it must be right."""
    url, n = f"sqlite:///{tmp_path / 'large.db'}", 100_000
    structure, cost = SPACE.minimum, SPACE.cost(SPACE.minimum)
    with Study(url, NAME, QUESTION, SPACE):
        pass
    with closing(Store(url)) as store:
        rows = []
        for number in range(n):
            trial = Trial(number, structure, cost, float(number), None, 0.1, "s", "e", "here:1")
            row = _to_row(trial)
            rows.append({**row, "study_id": 1, "checksum": schema.checksum(row)})
        with store._engine.begin() as connection:
            connection.execute(sa.insert(schema.trial), rows)
        assert len(store.trials(NAME)) == n
        progress = store.progress(NAME)
    assert progress is not None
    assert (progress.trials, progress.best and progress.best.number) == (n, n - 1)
    with Study(url, "another", QUESTION, SPACE) as study:
        found = study.run(
            make_searcher("random", SPACE, BUDGET, seed=0), InlineExecutor(Scorer(None, 0.0, {})), 20,
            searcher_name="random", evaluator_name="toy",
        )  # fmt: skip
    assert [trial.score for trial in found] == [SCORE(trial.structure) for trial in found]
    tally.add("F20", "opened, checked row by row, and another study added", 1)
