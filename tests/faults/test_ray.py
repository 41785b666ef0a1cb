"""Ray, a real cluster of several nodes on this machine: nodes and workers that die (F1, F2, F9, F21, F22)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

ray = pytest.importorskip("ray", reason="ray is not installed (pip install 'prunesearch[ray]')")

from prunesearch.errors import EvaluationFailed  # noqa: E402
from prunesearch.models.network import Network  # noqa: E402
from prunesearch.structure import Structure  # noqa: E402
from prunesearch.study.packing import pack  # noqa: E402
from prunesearch.study.pool import Pool, PoolExecutor  # noqa: E402
from prunesearch.training.data import Data  # noqa: E402
from tests.faults.processes import finish, recorded, start, stored, uninterrupted, wait_for  # noqa: E402
from tests.faults.servers import free_port  # noqa: E402
from tests.faults.tally import Tally, repeats  # noqa: E402
from tests.faults.toy import history, run  # noqa: E402

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # Ray's about its own next release
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files of its processes open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TRIALS = 80


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs for workers, and two nodes of two CPUs."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.add_node(num_cpus=2)
    made.add_node(num_cpus=2)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_cluster_gives_the_history_of_one_process(cluster: Any, tally: Tally) -> None:
    assert history(run("sqlite://", TRIALS, executor="ray", count=4)) == uninterrupted(TRIALS)
    tally.add("F22", f"{TRIALS} candidates by 4 actors on a Ray cluster of 3 nodes: identical", 1)


def test_a_node_killed_in_mid_batch_costs_only_what_it_had(cluster: Any, tmp_path: Path, tally: Tally) -> None:
    url, log = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "log"
    victim = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    killed: list[int] = []

    def kill() -> None:
        while recorded(url) < 20:
            time.sleep(0.02)
        killed.append(recorded(url))
        cluster.remove_node(victim, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    # more workers than two nodes have CPUs for, so that some are on the third
    trials = run(url, TRIALS, log=str(log), seconds=0.1, executor="ray", count=6)
    killer.join()
    assert killed[0] < TRIALS
    assert history(trials) == stored(url) == uninterrupted(TRIALS)
    again = repeats(log, trials)
    assert again <= 2 * 8  # the pieces of two actors
    tally.add("F21", "Ray: a node with 2 of 6 actors killed in mid-batch", 1, repeated=again)
    tally.add("F2", "Ray, a node killed in mid-batch: identical", 1, repeated=again)


def test_actors_that_kill_themselves_are_restarted(cluster: Any, tmp_path: Path, tally: Tally) -> None:
    log, whole = tmp_path / "log", uninterrupted(40, searcher="random")
    once, always = str(whole[5][1]), str(whole[20][1])
    trials = run(
        "sqlite://", 40, log=str(log), faults={once: "kill once", always: "kill"}, executor="ray", count=3,
        max_retries=1, searcher="random",
    )  # fmt: skip
    assert trials[5].score == whole[5][2]
    assert (trials[20].failure or "").endswith("2 times of 2.")
    assert [line for line in history(trials) if line[0] != 20] == [line for line in whole if line[0] != 20]
    tally.add("F21", "Ray: actors that kill themselves, once and always", 2, repeated=repeats(log, trials))


def test_an_actor_that_hangs_is_stopped_at_the_time_limit(cluster: Any, tally: Tally) -> None:
    whole = uninterrupted(20, searcher="random")
    trials = run(
        "sqlite://", 20, faults={str(whole[3][1]): "hang"}, executor="ray", count=2, time_limit=1.0, searcher="random"
    )
    assert trials[3].failure == "It took longer than the time limit of 1 s."
    assert [line for line in history(trials) if line[0] != 3] == [line for line in whole if line[0] != 3]
    tally.add("F9", "Ray: hangs, time limit 1 s", 1)


class Broken:
    def __init__(self) -> None:
        raise OSError("no such network")

    def score(self, structures: Sequence[Structure]) -> list[float]:
        return [0.0]


def test_an_evaluator_that_cannot_be_made_stops_with_its_reason(cluster: Any) -> None:
    from prunesearch.study.ray_backend import RayBackend

    backend = RayBackend(pack(lambda: (Broken(),)), 2)
    try:
        with pytest.raises(EvaluationFailed, match=r"(?s)could not make the evaluator.*no such network"):
            list(PoolExecutor(Pool(backend)).run([(1,)]))
    finally:
        backend.close()


def test_a_real_network_is_scored_on_the_cluster_as_in_this_process(
    cluster: Any, network: Network, digits_data: Data, tally: Tally
) -> None:
    import prunesearch as ps

    budget = ps.Budget(macs="50%")
    inline, remote = (
        ps.search(
            network, digits_data, budget=budget, n_trials=24, searcher="evolution", running=ps.Running(workers=workers)
        ).trials
        for workers in (1, ps.Workers(2, "ray"))
    )
    assert [(t.structure, t.score) for t in inline] == [(t.structure, t.score) for t in remote]
    tally.add("F22", "a ResNet-8 by 2 actors on a Ray cluster: identical", 1)


def test_a_driver_and_a_node_that_are_killed_leave_the_history_as_it_is(
    cluster: Any, tmp_path: Path, tally: Tally
) -> None:
    url, log = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "log"
    options = {"executor": "ray", "address": cluster.address, "count": 6, "seconds": 0.05}
    victim = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    for fault in ("driver", "node and driver"):
        process = start(url, TRIALS, log, **options)
        seen = wait_for(url, recorded(url), process)
        if fault != "driver":
            cluster.remove_node(victim, allow_graceful=False)
            seen = wait_for(url, seen, process)
        process.kill()
        process.communicate()
    finish(start(url, TRIALS, log, **options))
    assert stored(url) == uninterrupted(TRIALS)
    how = "driver of a Ray cluster killed twice, and one of its nodes"
    tally.add("F1", how, 3, repeated=repeats(log, range(TRIALS)))
    tally.add("F2", f"{how}: identical", 3)


class Elsewhere:
    """A cluster of three nodes in processes of its own.

    Args:
        port: Where its head listens.
    """

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.ray_cluster", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._said()

    def tell(self, word: str) -> None:
        """Have a node killed, or one added."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        assert self._said() == "done"

    def kill(self) -> None:
        """End the head and every node at once."""
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self._process.communicate()

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def test_a_head_that_restarts_ends_the_driver_and_the_same_command_goes_on_where_it_was(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards a node of the new cluster is killed, and another one comes."""
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")  # Ray waits a minute for a head
    url, port, log = f"sqlite:///{tmp_path / 'study.db'}", free_port(), tmp_path / "log"
    first = Elsewhere(port)
    options = {"executor": "ray", "address": first.address, "count": 4, "seconds": 0.1}
    driver = start(url, 200, log, **options)
    wait_for(url, 10, driver)
    first.kill()
    lost = time.monotonic()
    driver.communicate(timeout=120)
    waited = time.monotonic() - lost
    assert driver.returncode != 0
    before = recorded(url)
    assert 10 < before < 200
    assert stored(url) == uninterrupted(200)[:before]
    second = Elsewhere(port)
    try:
        driver = start(url, 200, log, **options)
        for word in ("kill", "add"):
            wait_for(url, recorded(url) + 10, driver)
            second.tell(word)
        finish(driver)
    finally:
        second.kill()
    assert stored(url) == uninterrupted(200)
    again = repeats(log, range(200))
    assert waited < 60
    how = "Ray: the head and all nodes killed and started again, then a node killed and one added"
    tally.add("F21", how, 3, repeated=again)
    tally.add("F2", "Ray: head restarted, a node killed, one added: identical", 3, repeated=again)
