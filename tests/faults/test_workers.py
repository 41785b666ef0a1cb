"""F9, F21, F22: evaluators and workers that do what they should not."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from prunesearch.errors import EvaluationFailed
from prunesearch.structure import Structure
from prunesearch.study.executors import InlineExecutor
from prunesearch.study.packing import pack
from prunesearch.study.pool import Pool, PoolExecutor
from prunesearch.study.process_backend import ProcessBackend
from prunesearch.study.workers import Workers, open_pool
from prunesearch.trial import best
from tests.faults.processes import finish, start, stored, uninterrupted, wait_for
from tests.faults.tally import Tally, repeats
from tests.faults.toy import history, run
from tests.toys import trials_of

pytestmark = pytest.mark.faults
TRIALS = 60


def evaluations(log: Path) -> Counter[str]:
    return Counter(log.read_text().splitlines())


def test_the_history_is_the_same_for_any_number_of_workers(tally: Tally) -> None:
    whole = uninterrupted(TRIALS)
    for count in (1, 2, 3, 4):
        assert history(run("sqlite://", TRIALS, executor="processes", count=count)) == whole
    tally.add("F22", f"{TRIALS} candidates inline, and by 1 to 4 local workers: identical", 5)


def test_a_worker_that_is_killed_costs_only_its_own_structure(tmp_path: Path, tally: Tally) -> None:
    log, whole = tmp_path / "log", uninterrupted(TRIALS)
    killers = [whole[place][1] for place in (3, 17, 40)]
    faults = {str(structure): "kill once" for structure in killers}
    trials = run("sqlite://", TRIALS, log=str(log), faults=faults, count=4)
    assert history(trials) == whole
    again = repeats(log, trials)
    assert all(evaluations(log)[str(structure)] >= 2 for structure in killers)
    assert again <= len(killers) * 8  # those of the same piece are scored again, nothing else
    tally.add("F21", "1 of 4 local workers kills itself, once per structure", len(killers), repeated=again)


def test_a_structure_that_kills_every_worker_fails_after_its_retries_and_the_search_goes_on(
    tmp_path: Path, tally: Tally
) -> None:
    log, whole = tmp_path / "log", uninterrupted(TRIALS, searcher="random")
    killer = whole[20][1]
    trials = run(
        "sqlite://", TRIALS, log=str(log), faults={str(killer): "kill"}, count=4, max_retries=2, searcher="random"
    )
    assert trials[20].failure == "Its worker died (SIGKILL), 3 times of 3."
    assert [line for line in history(trials) if line[0] != 20] == [line for line in whole if line[0] != 20]
    assert evaluations(log)[str(killer)] <= 4  # once with others of its piece, then three times alone
    tally.add("F21", "a structure that kills every worker: failed after 2 retries", 1, repeated=repeats(log, trials))


def test_workers_killed_from_outside_at_random_are_replaced(tmp_path: Path, tally: Tally) -> None:
    url, log = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "log"
    process = start(url, TRIALS, log, seconds=0.1, count=2, max_retries=5)
    kills = 0
    while process.poll() is None and kills < 4:
        wait_for(url, 10 * kills, process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            with suppress(ProcessLookupError):
                os.kill(int(children[-1]), signal.SIGKILL)
                kills += 1
    finish(process)
    assert kills >= 2
    assert stored(url) == uninterrupted(TRIALS)
    tally.add("F21", "1 of 2 local workers killed from outside", kills, repeated=repeats(log, range(TRIALS)))


@pytest.mark.parametrize("count", [1, 3])
def test_a_structure_that_hangs_fails_at_the_time_limit_and_holds_nobody_up(
    tmp_path: Path, tally: Tally, count: int
) -> None:
    whole = uninterrupted(TRIALS, searcher="random")
    hanging = [whole[place][1] for place in (5, 30)]
    faults = {str(structure): "hang" for structure in hanging}
    log = tmp_path / "log"
    trials = run("sqlite://", TRIALS, log=str(log), faults=faults, count=count, time_limit=0.5, searcher="random")
    assert [trial.failure for trial in trials if trial.structure in hanging] == [
        "It took longer than the time limit of 0.5 s."
    ] * 2
    assert [line for line in history(trials) if line[1] not in hanging] == [
        line for line in whole if line[1] not in hanging
    ]
    tally.add("F9", f"hangs, time limit 0.5 s, {count} workers", 2, repeated=repeats(log, trials))


def test_structures_that_raise_exit_or_give_no_number_fail_alone(tally: Tally) -> None:
    whole = uninterrupted(TRIALS, searcher="random")
    faults = {str(whole[place][1]): fault for place, fault in ((2, "raise"), (9, "exit"), (16, "nan"))}
    expected = {2: "RuntimeError: raised on purpose", 9: "SystemExit: 3", 16: "The score is nan."}
    for options in ({}, {"count": 2}):
        trials = run("sqlite://", TRIALS, faults=faults, searcher="random", **options)
        assert {trial.number: trial.failure for trial in trials if trial.failure is not None} == expected
        winner = best(trials)
        assert winner is not None
        assert winner.number not in expected
    tally.add("F9", "raises, exits, NaN; inline and with 2 workers", 6)


class Greedy:
    """Wants more memory than there is."""

    def score(self, structures: Sequence[Structure]) -> list[float]:
        import resource

        limit = 1 << 32
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return [float(len(bytearray(limit)))] * len(structures)


def test_memory_that_runs_out_is_a_failure_with_a_sentence(tally: Tally) -> None:
    with open_pool(Workers(1, "processes"), lambda: (Greedy(),)) as pool:
        (outcome,) = PoolExecutor(pool).run([(1,)])
    assert outcome.failure == "MemoryError: no message"
    tally.add("F9", "memory runs out in a worker", 1)


def test_ten_failures_in_a_row_stop_with_the_first_traceback_also_with_workers(tally: Tally) -> None:
    faults = {str(structure): "raise" for _, structure, _ in uninterrupted(64, searcher="random")}
    with pytest.raises(EvaluationFailed, match=r"10 structures in a row.*raised on purpose") as caught:
        run("sqlite://", TRIALS, faults=faults, count=2, searcher="random")
    assert "in _score" in str(caught.value)
    tally.add("F9", "every candidate raises: stops after 10", 1)


class Broken:
    def __init__(self) -> None:
        raise OSError("no such network")


def test_an_evaluator_that_cannot_be_made_stops_with_its_traceback() -> None:
    backend = ProcessBackend(pack(lambda: (Broken(),)), 2)
    try:
        with pytest.raises(EvaluationFailed, match=r"(?s)could not make the evaluator.*no such network"):
            list(PoolExecutor(Pool(backend)).run([(1,), (2,)]))
    finally:
        backend.close()


class Dying:
    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_never_get_ready_stop_the_search_with_a_sentence() -> None:
    backend = ProcessBackend(pack(lambda: (Dying(),)), 1)
    try:
        with pytest.raises(EvaluationFailed, match=r"3 workers in a row ended before they were ready.*SIGKILL"):
            list(PoolExecutor(Pool(backend)).run([(1,)]))
    finally:
        backend.close()


def test_a_slow_structure_does_not_hold_up_the_others_if_order_is_given_up(tmp_path: Path, tally: Tally) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    slow = str(uninterrupted(1, searcher="random")[0][1])
    options = {"count": 2, "searcher": "random", "as_finished": True, "faults": {slow: "hang"}, "time_limit": 5.0}
    process = start(url, 30, **options)
    assert wait_for(url, 20, process) > 20  # while the first one still hangs
    finish(process)
    with_slow_last = stored(url)
    assert len({structure for _, structure, _ in with_slow_last}) == 30
    more = run(url, 40, **{**options, "faults": {}})
    assert history(more)[:30] == with_slow_last
    assert len({trial.structure for trial in more}) == 40
    tally.add("F9", "hangs, order given up: the others are told meanwhile", 1)


def test_no_process_is_left_behind() -> None:
    with open_pool(Workers(3, "processes"), lambda: (InlineOnly(),)) as pool:
        list(PoolExecutor(pool).run([(1,), (2,), (3,)]))
        backend = pool._backend
        assert isinstance(backend, ProcessBackend)
        pids = [worker._process.pid for worker in backend._workers]
    time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


class InlineOnly:
    def score(self, structures: Sequence[Structure]) -> list[float]:
        return [float(structure[0]) for structure in structures]


def test_inline_and_pooled_agree_on_outcomes() -> None:
    batch = [(i,) for i in range(1, 40)]
    recorded = trials_of(batch[:3], lambda structure: 0.0)
    with open_pool(Workers(2), lambda: (InlineOnly(),)) as pool:
        pooled = [outcome.score for outcome in PoolExecutor(pool).run(batch, recorded)]
    assert pooled == [outcome.score for outcome in InlineExecutor(InlineOnly()).run(batch, recorded)]
