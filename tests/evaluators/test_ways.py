"""The way of running structures is chosen by timing, and one in 16 bits only where it says what 32 bits say.

Times are made up, and what is computed is real: a CPU has no choice of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch import nn

from prunesearch.evaluators import ways
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.batching import BatchedForward
from prunesearch.evaluators.ways import Way, Wish, rank_agreement, unlike
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled

IMAGES = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))
EXAMPLES = labelled(IMAGES, torch.arange(48) % 4)
CPU, CARD = torch.device("cpu"), torch.device("cuda")
EACH = ("sliced", "stacked", "stacked+channels_last")


def small() -> nn.Sequential:
    """A network with outputs that differ by structure."""
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.BatchNorm2d(16), nn.ReLU()]
    head = nn.Linear(16, 4)
    with torch.no_grad():
        head.weight.mul_(8.0)
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


@pytest.fixture(scope="module")
def network() -> Network:
    return trace(small().eval(), IMAGES[:2])


@pytest.fixture
def weights(network: Network) -> InheritedWeights:
    return InheritedWeights(network, NestedRanking(tuple(tuple(range(len(units))) for units in network.units)))


def structures(weights: InheritedWeights, n: int) -> list[Structure]:
    space = weights.network.space
    return [space.check(row.tolist()) for row in space.sample(np.random.default_rng(0), n)]


@pytest.fixture
def evaluator(weights: InheritedWeights, monkeypatch: pytest.MonkeyPatch) -> AccuracyEvaluator:
    """One that may choose, on the CPU."""

    def on(self: Wish, device: torch.device, *, sliced: bool) -> tuple[Way, ...]:
        return tuple(Way(path, self.at_once or 16, precision) for precision in ("fp32", "bf16") for path in EACH)

    monkeypatch.setattr(Wish, "on", on)
    return AccuracyEvaluator(weights, EXAMPLES)


def with_times(monkeypatch: pytest.MonkeyPatch, times: Mapping[str, float]) -> list[tuple[str, int]]:
    """Let each way take some seconds, 9 if they are not told; the list gets what was timed, and of how many."""
    timed: list[tuple[str, int]] = []
    real = BatchedForward.timed

    def pretended(self: BatchedForward, way: Way, some: Sequence[Structure], *rest: Any) -> Any:
        timed.append((str(way), len(some)))
        found, done, _ = real(self, way, some, *rest)
        return found, done, times.get(str(done), 9.0)

    monkeypatch.setattr(BatchedForward, "timed", pretended)
    return timed


def test_on_a_cpu_and_with_fitted_weights_there_is_nothing_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "has_bfloat16", lambda device: True)
    assert Wish().on(CPU, sliced=True) == (Way("sliced", 16, "fp32"),)
    assert Wish().on(CARD, sliced=False) == (Way("sliced", 16, "fp32"),)
    assert Wish("stacked", 8, "bf16").on(CPU, sliced=True) == (Way("stacked", 8, "bf16"),)


@pytest.mark.parametrize(("has_bfloat16", "precisions"), [(True, ["fp32", "bf16"]), (False, ["fp32"])])
def test_on_a_gpu_every_path_is_in_question_in_each_precision_that_it_has(
    monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, precisions: list[str]
) -> None:
    monkeypatch.setattr(ways, "has_bfloat16", lambda device: has_bfloat16)
    found = Wish().on(CARD, sliced=True)
    assert found[0] == Way("sliced")
    assert list(dict.fromkeys(way.precision for way in found)) == precisions
    assert len({way.path for way in found}) == len(found) // len(precisions) == 5
    assert {way.path for way in Wish("stacked+graph").on(CARD, sliced=True)} == {"stacked+graph"}
    assert {way.precision for way in Wish(precision="fp32").on(CARD, sliced=True)} == {"fp32"}
    assert {way.at_once for way in Wish(at_once=8).on(CARD, sliced=True)} == {8}


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"sliced": 1.0}, Way("sliced", 16, "fp32")),
        ({"sliced": 4.0, "stacked": 3.0, "sliced, bf16": 1.0}, Way("sliced", 16, "bf16")),
        ({"stacked": 2.0, "stacked, 64 at once": 1.0, "stacked, 4 at once": 3.0}, Way("stacked", 64, "fp32")),
        ({"stacked, bf16": 2.0, "stacked, 4 at once, bf16": 1.0}, Way("stacked", 4, "bf16")),
    ],
)
def test_the_fastest_path_precision_and_number_at_once_are_taken(
    evaluator: AccuracyEvaluator, weights: InheritedWeights, monkeypatch: pytest.MonkeyPatch, times: Any, chosen: Way
) -> None:
    timed = with_times(monkeypatch, times)
    some = structures(weights, 20)
    evaluator.choose(some)
    assert evaluator.way is not None
    assert (evaluator.way.path, evaluator.way.at_once, evaluator.way.precision) == (
        *(chosen.path, chosen.at_once),
        chosen.precision,
    )
    assert evaluator.way.device == "cpu"
    assert dict(evaluator.way.seconds) == {way: times.get(way, 9.0) for way, _ in timed}
    assert not evaluator.way.left_out
    of_sixteen = [f"{path}{bits}" for bits in ("", ", bf16") for path in EACH]
    assert timed[:6] == [(way, 16) for way in of_sixteen]
    assert dict(timed[6:]) == (
        {}
        if chosen.path == "sliced"
        else {f"stacked, {n} at once{'' if chosen.precision == 'fp32' else ', bf16'}": max(n, 16) for n in (4, 64)}
    )
    assert ("bf16" in evaluator.description) == (chosen.precision == "bf16")
    before = len(timed)
    evaluator.choose(some)
    evaluator.score(some[:20])
    assert len(timed) == before


def test_16_bits_are_not_taken_before_somebody_asks_for_a_choice(
    evaluator: AccuracyEvaluator, weights: InheritedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the first structures would have been scored in other bits than the later ones."""
    timed = with_times(monkeypatch, {"sliced, bf16": 0.1, "stacked": 0.2})
    first = evaluator.score(structures(weights, 3))
    assert (evaluator.way, timed) == (None, [])
    assert evaluator.score(structures(weights, 8))[:3] == pytest.approx(first, abs=1e-4)
    assert [way for way, _ in timed[:3]] == list(EACH)
    assert not any("bf16" in way for way, _ in timed)
    assert evaluator.way is not None
    assert evaluator.way.precision == "fp32"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda outputs, i: outputs + (3.0 if i % 2 else 0.0) * outputs, "Its outputs are not those"),
        (lambda outputs, i: outputs * (1.08 if i % 2 else 0.92), "Its scores are up to"),
        (None, "cannot do that"),
    ],
)
def test_a_way_that_says_something_else_is_left_out_with_the_reason(
    evaluator: AccuracyEvaluator,
    weights: InheritedWeights,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Any,
    reason: str,
) -> None:
    timed = with_times(monkeypatch, {"sliced, bf16": 1.0, "sliced": 2.0})
    real = BatchedForward.run_in

    def run_in(self: BatchedForward, way: Way, some: Sequence[Structure], *rest: Any) -> Any:
        found, done = real(self, way, some, *rest)
        if way.precision == "bf16" and wrong is None:
            raise RuntimeError("It cannot do that.\nMore of it.")
        return [wrong(x, i) for i, x in enumerate(found)] if way.precision == "bf16" else found, done

    monkeypatch.setattr(BatchedForward, "run_in", run_in)
    evaluator.choose(structures(weights, 16))
    assert evaluator.way is not None
    assert (evaluator.way.path, evaluator.way.precision) == ("sliced", "fp32")
    assert len(timed) >= 4
    left_out = dict(evaluator.way.left_out)
    assert list(left_out) == [f"{path}, bf16" for path in EACH]
    assert all(reason in why and "\n" not in why for why in left_out.values())


def test_what_runs_out_of_memory_is_chosen_with_what_fits_and_no_more_is_tried(
    evaluator: AccuracyEvaluator, weights: InheritedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = StackedForward.run

    def little_memory(self: StackedForward, some: list[Structure], *rest: Any, **named: Any) -> list[Any]:
        if len(some) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, some, *rest, **named)

    monkeypatch.setattr(StackedForward, "run", little_memory)
    timed = with_times(monkeypatch, {"stacked, 8 at once": 1.0})
    evaluator.choose(structures(weights, 20))
    assert evaluator.way is not None
    assert (evaluator.way.path, evaluator.way.at_once) == ("stacked", 8)
    assert [way for way, _ in timed[6:]] == ["stacked, 4 at once"]


def test_what_fails_for_the_first_way_is_left_to_whoever_scores(
    evaluator: AccuracyEvaluator, weights: InheritedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(BatchedForward, "run_in", fails)
    evaluator.choose(structures(weights, 16))
    assert evaluator.way == Way("sliced")
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluator.score(structures(weights, 1))


def test_what_was_chosen_before_is_kept_and_of_another_device_only_the_precision(
    evaluator: AccuracyEvaluator,
    weights: InheritedWeights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed = with_times(monkeypatch, {"sliced, bf16": 1.0})
    evaluator.keep(Way("stacked", 4, "bf16", "NVIDIA H200"))
    assert (evaluator.way, evaluator.description.count("bf16")) == (None, 1)
    evaluator.choose(structures(weights, 16))
    assert {way.endswith("bf16") for way, _ in timed} == {True}
    here = Way("stacked", 4, "bf16", "cpu", (("stacked, 4 at once, bf16", 0.1),))
    other = AccuracyEvaluator(weights, EXAMPLES)
    other.keep(here)
    assert other.way == here
    forced = AccuracyEvaluator(weights, EXAMPLES, at_once=8, precision="fp32")
    forced.keep(here)
    assert forced.way is None
    assert "bf16" not in forced.description


@pytest.mark.parametrize("ties", [False, True])
def test_the_agreement_of_ranks_is_kendalls_tau(ties: bool) -> None:
    rng = np.random.default_rng(0)
    for n in (4, 16, 25):
        one = rng.integers(0, 5, n).astype(float) if ties else rng.normal(size=n)
        other = one + rng.normal(size=n)
        found = rank_agreement(one.tolist(), other.tolist())
        assert found == pytest.approx(kendalltau(one, other).statistic)
    assert rank_agreement([1.0, 1.0], [2.0, 2.0]) == 1.0
    assert rank_agreement([1.0, 1.0], [2.0, 3.0]) == 0.0


def test_16_bits_may_move_scores_by_a_hundredth_and_swap_one_pair_of_sixteen() -> None:
    exact = [0.001 * i for i in range(16)]
    swapped = [*exact[:14], exact[15], exact[14]]
    twice = [exact[1], exact[0], *swapped[2:]]
    assert unlike([x + 0.0099 for x in exact], exact) == unlike(swapped, exact) == ""
    assert unlike([*exact[:15], exact[15] + 0.011], exact) == "Its scores are up to 0.011 from those in 32 bits."
    assert unlike(twice, exact) == "It orders structures otherwise than 32 bits do (Kendall's tau 0.967)."
    assert unlike([float("nan")] * 16, exact)
