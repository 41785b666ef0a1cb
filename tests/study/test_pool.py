"""The pool, with a backend whose workers die and hang when told to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from prunesearch.structure import Structure
from prunesearch.study.pool import Done, Lost, Pool, PoolExecutor
from prunesearch.study.process_backend import cores
from prunesearch.study.scoring import Outcome
from prunesearch.study.workers import Workers
from tests.toys import trials_of

BATCH: list[Structure] = [(i,) for i in range(20)]


def float_of(structure: Structure) -> float:
    return float(structure[0])


class Backend:
    """Scores a structure with its width; the latest piece given is the first that is done.

    Args:
        size: How many workers.
        deaths: How often a worker dies over each structure.
        hanging: Structures that are never done.
    """

    def __init__(
        self, size: int, deaths: dict[Structure, int] | None = None, hanging: Sequence[Structure] = ()
    ) -> None:
        self.size = size
        self.given: list[Sequence[Structure]] = []
        self.dismissed: list[int] = []
        self._deaths = dict(deaths or {})
        self._hanging = set(hanging)
        self._busy: dict[int, Sequence[Structure]] = {}

    def idle(self) -> int:
        return self.size - len(self._busy)

    def give(self, piece: int, part: int, structures: Sequence[Structure]) -> None:
        self.given.append(structures)
        self._busy[piece] = structures

    def wait(self, seconds: float) -> list[Done | Lost]:
        for piece, structures in reversed(self._busy.items()):
            if self._hanging & set(structures):
                continue
            del self._busy[piece]
            deadly = [structure for structure in structures if self._deaths.get(structure)]
            if deadly:
                self._deaths[deadly[0]] -= 1
                return [Lost(piece, "SIGKILL")]
            return [Done(piece, tuple(Outcome(float(s[0]), None, None, 0.0, "w") for s in structures))]
        return []

    def dismiss(self, piece: int) -> None:
        self.dismissed.append(piece)
        del self._busy[piece]

    def close(self) -> None:
        self._busy.clear()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("recorded", [0, 5, 19, 20])
def test_outcomes_come_in_the_order_asked_whoever_was_first(size: int, recorded: int) -> None:
    backend = Backend(size)
    outcomes = list(PoolExecutor(Pool(backend)).run(BATCH, trials_of(BATCH[:recorded], float_of)))
    assert [outcome.score for outcome in outcomes] == [float(i) for i in range(recorded, 20)]
    assert sum(map(len, backend.given)) == 20 - recorded


def test_each_structure_of_a_lost_piece_is_tried_alone_and_only_the_deadly_one_fails() -> None:
    backend = Backend(2, deaths={(2,): 99})
    outcomes = list(PoolExecutor(Pool(backend, max_retries=1)).run(BATCH))
    assert [i for i, outcome in enumerate(outcomes) if outcome.score is None] == [2]
    assert outcomes[2].failure == "Its worker died (SIGKILL), 2 times of 2."
    times = [sum((i,) in piece for piece in backend.given) for i in range(20)]
    assert times == [2] * 2 + [3] + [2] * 2 + [1] * 15  # a piece of five, then each alone, the deadly one twice


@pytest.mark.parametrize(("deaths", "retries", "survives"), [(1, 0, True), (2, 0, False), (3, 2, True), (4, 2, False)])
def test_a_structure_is_tried_again_as_often_as_allowed(deaths: int, retries: int, survives: bool) -> None:
    """The first death in company does not count."""
    outcomes = list(PoolExecutor(Pool(Backend(1, deaths={(2,): deaths}), max_retries=retries)).run(BATCH))
    assert (outcomes[2].score == 2.0) is survives


def test_a_structure_over_the_time_limit_fails_alone_and_its_worker_is_replaced() -> None:
    backend = Backend(2, hanging=[(7,)])
    outcomes = list(PoolExecutor(Pool(backend, time_limit=0.01)).run(BATCH))
    assert [i for i, outcome in enumerate(outcomes) if outcome.score is None] == [7]
    assert outcomes[7].failure == "It took longer than the time limit of 0.01 s."
    assert len(backend.dismissed) == 2  # once in company, once alone


def test_an_abandoned_batch_leaves_nothing_behind() -> None:
    backend = Backend(2)
    pool = Pool(backend)
    run = PoolExecutor(pool).run(BATCH)
    next(run)
    run.close()
    assert backend.idle() == 2
    assert [outcome.score for outcome in PoolExecutor(pool).run([(50,)])] == [50.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "at least one worker"),
        ({"max_retries": -1}, "max_retries >= 0"),
        ({"time_limit": 0.0}, "above 0 s"),
        ({"time_limit": float("nan")}, "above 0 s"),
        ({"executor": "threads"}, "Unknown executor 'threads'; there are auto, inline, processes, ray"),
        ({"executor": "inline", "count": 2}, "cannot be stopped at a time limit"),
        ({"executor": "inline", "time_limit": 3.0}, "cannot be stopped at a time limit"),
        ({"address": "auto"}, "settings of the executor 'ray'"),
        ({"gpus": 1.0}, "settings of the executor 'ray'"),
    ],
)
def test_workers_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Workers(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "here"),
    [(Workers(), True), (Workers(2), False), (Workers(1, time_limit=1.0), False), (Workers(1, "processes"), False)],
)
def test_one_worker_without_a_time_limit_is_this_process(workers: Workers, here: bool) -> None:
    assert workers.are_here is here


def test_minus_one_is_a_worker_per_core_and_less_is_refused_alone() -> None:
    assert Workers(-1).count == cores()
    with pytest.raises(ValueError, match=r"^Expected at least one worker, or -1 for one per core, got -2\.$"):
        Workers(-2)
