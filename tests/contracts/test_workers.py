"""Every weight source with every evaluator scores in other processes as it does in this one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.errors import EvaluationFailed
from prunesearch.evaluators import EVALUATORS, WEIGHT_SOURCES, make_evaluator, make_weights
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.models.hypernet import PruningNet
from prunesearch.models.hypernet_file import save_pruningnet
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.models.weights import WeightSource
from prunesearch.structure import Structure
from prunesearch.study import process_backend
from prunesearch.study.packing import pack, unpack
from prunesearch.study.pool import Done, Pool, PoolExecutor
from prunesearch.study.process_backend import ProcessBackend
from prunesearch.study.scoring import ScorerFactory
from prunesearch.study.workers import Workers, open_pool
from prunesearch.tasks.classify import labelled

PAIRS = [(source, evaluator) for source in WEIGHT_SOURCES for evaluator in EVALUATORS]
OPTIONS = {"adaptive_bn": {"batches": 3}}
POSIX = pytest.mark.skipif(os.name != "posix", reason="local workers need a POSIX system")
EXECUTORS = [
    pytest.param("processes", marks=POSIX),
    pytest.param(
        "ray",
        marks=[
            pytest.mark.skipif(
                find_spec("ray") is None, reason="ray is not installed (pip install 'prunesearch[ray]')"
            ),
            pytest.mark.filterwarnings("ignore::FutureWarning"),  # Ray's about its own next release
            pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files of its processes open
            pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        ],
    ),
]


class Tiny(nn.Module):
    """A residual branch with a BatchNorm at its end, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.back, self.norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.norm(self.back(F.relu(self.inner(x)))))
        return self.head(x.mean((2, 3)))


IMAGES, LABELS = torch.randn(24, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trace(Tiny(), IMAGES[:2])


@pytest.fixture(scope="module")
def structures(network: Network) -> list[Structure]:
    space = network.space
    return [space.minimum, tuple(group.widths[len(group.widths) // 2] for group in space.groups)]


@pytest.fixture(scope="module")
def sources(network: Network, tmp_path_factory: pytest.TempPathFactory) -> dict[str, WeightSource]:
    ranking, file = L1Criterion().rank(network), tmp_path_factory.mktemp("nets") / "net.safetensors"
    save_pruningnet(PruningNet(network, ranking=ranking), file)
    names = {name: f"{name}:{file}" if name == "generated" else name for name in WEIGHT_SOURCES}
    return {name: make_weights(full, network, ranking, IMAGES) for name, full in names.items()}


def scorer(weights: WeightSource, evaluator: str) -> Evaluator:
    return make_evaluator(evaluator, weights, labelled(IMAGES, LABELS), **OPTIONS.get(evaluator, {}))


def recipe_of(weights: WeightSource, *evaluators: str) -> ScorerFactory:
    return lambda: tuple(scorer(weights, evaluator) for evaluator in evaluators)


@pytest.mark.parametrize("source", sorted(WEIGHT_SOURCES))
def test_what_a_worker_is_handed_scores_alike_also_after_it_has_scored_here(
    source: str, sources: dict[str, WeightSource], structures: list[Structure]
) -> None:
    """In this very process, so that the source that cannot be copied is named."""
    recipe = recipe_of(sources[source], *EVALUATORS)
    here = [evaluator.score(structures) for evaluator in recipe()]
    assert [evaluator.score(structures) for evaluator in unpack(pack(recipe))()] == here


@pytest.fixture(scope="module", params=EXECUTORS)
def pool(request: pytest.FixtureRequest, sources: dict[str, WeightSource]) -> Iterator[Pool]:
    """Workers that have the scorers of all pairs, as starting some for each would take long."""
    recipes = [recipe_of(sources[source], evaluator) for source, evaluator in PAIRS]
    with open_pool(Workers(1, request.param), lambda: tuple(made for recipe in recipes for made in recipe())) as pool:
        yield pool


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_a_score_of_a_worker_is_that_of_this_process(
    pool: Pool, pair: tuple[str, str], sources: dict[str, WeightSource], structures: list[Structure]
) -> None:
    outcomes = list(PoolExecutor(pool, part=PAIRS.index(pair)).run(structures))
    assert [outcome.failure for outcome in outcomes] == [None, None]
    source, evaluator = pair
    here = scorer(sources[source], evaluator).score(structures)
    assert [outcome.score for outcome in outcomes] == pytest.approx(here, rel=1e-5)


@pytest.mark.parametrize("source", sorted(WEIGHT_SOURCES))
def test_no_traced_graph_is_handed_over(source: str, sources: dict[str, WeightSource]) -> None:
    """It could not be put together again: torch traces it anew, in ways that change with its version."""
    assert b"torch.fx" not in pack(recipe_of(sources[source], "accuracy"))


@POSIX
def test_each_local_process_has_a_gpu_of_its_own_also_one_that_takes_the_place_of_another() -> None:
    class Seeing:
        def score(self, structures: Sequence[Structure]) -> list[float]:
            return [float(os.environ["CUDA_VISIBLE_DEVICES"]) for _ in structures]

    backend = ProcessBackend(pack(lambda: (Seeing(),)), 3, cards=("5", "7"))

    def seen(pieces: range) -> list[float | None]:
        found: dict[int, float | None] = {}
        while backend.idle() < len(pieces):
            backend.wait(1.0)
        for piece in pieces:
            backend.give(piece, 0, [(1,)])
        while len(found) < len(pieces):
            news = [done for done in backend.wait(1.0) if isinstance(done, Done)]
            found.update((done.piece, done.outcomes[0].score) for done in news)
        return [found[piece] for piece in pieces]

    try:
        assert seen(range(3)) == [5.0, 7.0, 5.0]
        backend.give(3, 0, [(1,)])
        backend.dismiss(3)
        assert seen(range(4, 7)) == [5.0, 7.0, 5.0]
    finally:
        backend.close()


@POSIX
def test_a_worker_that_cannot_be_started_is_said_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def refuse_the_second(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        if started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(start(*arguments, **options))
        return started[0]

    monkeypatch.setattr(process_backend.subprocess, "Popen", refuse_the_second)  # type: ignore[attr-defined]
    descriptors = descriptors_here()
    with pytest.raises(EvaluationFailed, match=r"cannot be started: .*temporarily unavailable.* use fewer workers"):
        ProcessBackend(pack(lambda: ()), 2)
    assert descriptors_here() == descriptors
    assert started[0].poll() is not None


@POSIX
def test_a_worker_that_cannot_be_replaced_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(24, "Too many open files")

    backend = ProcessBackend(pack(lambda: ()), 1)
    try:
        backend._workers[0].piece = 0
        monkeypatch.setattr(process_backend.subprocess, "Popen", refuse)  # type: ignore[attr-defined]
        with pytest.raises(EvaluationFailed, match=r"cannot be started: .*Too many open files"):
            backend.dismiss(0)
    finally:
        backend.close()


def descriptors_here() -> set[str]:
    return set(os.listdir("/dev/fd"))


@pytest.mark.slow
def test_workers_end_a_search_with_the_history_of_one_process(network: Network) -> None:
    import prunesearch as ps

    def history(workers: int) -> list[tuple[Structure, float | None]]:
        found = ps.search(
            network,
            ps.Data(train=(IMAGES, LABELS), calibration=24),
            budget=ps.Budget(macs="70%"),
            searcher="random",
            n_trials=3,
            scoring=ps.Scoring(weight_source="reconstructed"),
            running=ps.Running(workers=workers),
        )
        return [(trial.structure, trial.score) for trial in found.trials]

    there, here = history(2), history(1)
    assert [structure for structure, _ in there] == [structure for structure, _ in here]
    assert [score for _, score in there] == pytest.approx([score for _, score in here], rel=1e-5)
