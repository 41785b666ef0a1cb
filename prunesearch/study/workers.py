"""Who scores: this process, local processes, or actors of a Ray cluster. A help asks: what scores is imported late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunesearch.errors import expect
from prunesearch.ranges import whole_number

if TYPE_CHECKING:
    from prunesearch.study.executors import Executor, Jobs
    from prunesearch.study.pool import Backend, Pool
    from prunesearch.study.scoring import Scorer, ScorerFactory

EXECUTORS = ("auto", "inline", "processes", "ray")


@dataclass(frozen=True)
class Workers:
    """Where structures are scored. None of it changes the history of a study, so all of it may change between runs.

    Attributes:
        count: Processes that score, -1: one per core. The result is the same for any number.
        executor: Where: inline (this process), processes (of this machine), ray (actors of a cluster), or auto.
            `"processes"` have each their share of the cores, and of several GPUs one each, in turn. `"auto"` is inline
            for one worker without a time limit, otherwise processes.
        time_limit: Seconds that one structure may take. Then it has failed. Needs workers that can be killed.
        max_retries: Further tries for a structure whose worker died. Then it has failed.
        address: Address of a Ray cluster, such as `"auto"` or `"ray://head:10001"`. None: one on this machine.
        gpus: GPUs, or a share of one, that each actor of a Ray cluster needs.

    Raises:
        ValueError: A number out of range, an unknown executor, or settings that it does not have.
    """

    count: int = 1
    executor: str = "auto"
    time_limit: float | None = None
    max_retries: int = 2
    address: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.count == -1:
            from prunesearch.study.process_backend import cores

            object.__setattr__(self, "count", cores())
        expect(self.count >= 1, "at least one worker, or -1 for one per core", self.count)
        expect(self.max_retries >= 0, "max_retries >= 0", self.max_retries)
        expect(self.gpus >= 0, "gpus >= 0", self.gpus)
        expect(self.time_limit is None or self.time_limit > 0, "a time limit above 0 s", self.time_limit)
        if self.executor not in EXECUTORS:
            raise ValueError(f"Unknown executor {self.executor!r}; there are {', '.join(EXECUTORS)}.")
        if self.executor == "inline" and (self.count > 1 or self.time_limit is not None):
            raise ValueError(
                "One process scores inline, and cannot be stopped at a time limit. Use the executor 'processes'."
            )
        if self.executor != "ray" and (self.address is not None or self.gpus):
            raise ValueError("An address and GPUs per worker are settings of the executor 'ray'.")

    @property
    def are_here(self) -> bool:
        """Whether this very process scores."""
        return self.executor == "inline" or (self.executor == "auto" and self.count == 1 and self.time_limit is None)


def as_workers(given: int | Workers) -> Workers:
    """Workers, also if only their number is given.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is out of range.
    """
    return given if isinstance(given, Workers) else Workers(whole_number("workers", given, at_least=-1))


@contextmanager
def executor_on(
    workers: Workers, scorer: Scorer, factory: ScorerFactory, cards: Sequence[str] = ()
) -> Iterator[Executor]:
    """An executor for one scorer; the workers end with the context.

    Args:
        workers: Where to score.
        scorer: For this process.
        factory: Makes it in another one.
        cards: What `CUDA_VISIBLE_DEVICES` calls the GPUs that local processes take in turn; if none, they see all.

    Raises:
        ValueError: The factory cannot be copied to another process, or a package is missing.
        EvaluationFailed: No worker can be started.
    """
    from prunesearch.study.executors import InlineExecutor
    from prunesearch.study.pool import PoolExecutor

    if workers.are_here:
        yield InlineExecutor(scorer)
        return
    with open_pool(workers, factory, cards) as pool:
        yield PoolExecutor(pool)


@contextmanager
def jobs_on(
    workers: Workers, scorers: Sequence[Scorer], factory: ScorerFactory, cards: Sequence[str] = ()
) -> Iterator[Jobs]:
    """What scores on parts of the images, with a scorer for each; otherwise as `executor_on`."""
    from prunesearch.study.executors import InlineJobs
    from prunesearch.study.pool import PoolJobs

    if workers.are_here:
        yield InlineJobs(scorers)
        return
    with open_pool(workers, factory, cards) as pool:
        yield PoolJobs(pool)


@contextmanager
def open_pool(workers: Workers, factory: ScorerFactory, cards: Sequence[str] = ()) -> Iterator[Pool]:
    """Workers that are started now and end with the context.

    Raises:
        ValueError: The factory cannot be copied to another process, or a package is missing.
        EvaluationFailed: No worker can be started.
    """
    from prunesearch.study.packing import pack
    from prunesearch.study.pool import Pool

    pool = Pool(_backend(workers, pack(factory), cards), time_limit=workers.time_limit, max_retries=workers.max_retries)
    try:
        yield pool
    finally:
        pool.close()


def _backend(workers: Workers, payload: bytes, cards: Sequence[str]) -> Backend:
    if workers.executor != "ray":
        from prunesearch.study.process_backend import ProcessBackend

        return ProcessBackend(payload, workers.count, cards=cards)
    try:
        from prunesearch.study.ray_backend import RayBackend
    except ImportError as error:
        raise ValueError(
            f"The executor 'ray' needs one more package: pip install 'prunesearch[ray]' ({error})."
        ) from None
    return RayBackend(payload, workers.count, address=workers.address, gpus=workers.gpus)
