"""The accuracy evaluator against an obvious witness, and BatchNorm recalibration against closed forms."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators.accuracy import AccuracyEvaluator, top1
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.classic import precise_bn_evaluator
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.evaluators.recalibration import recalibrate_bn, split
from prunesearch.models.network import Network
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.slim import slim
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.follow import fidelity
from tests.models_state import generators, state_of


@pytest.fixture
def weights(network: Network) -> InheritedWeights:
    return InheritedWeights(network, L1Criterion().rank(network))


def batch_statistics_logits(weights: InheritedWeights, structure: tuple[int, ...], images: Tensor) -> Tensor:
    """The whole model in train mode on all images at once: every BatchNorm uses the batch's own statistics."""
    with torch.no_grad():
        return slim(weights.network, structure, weights.ranking).train()(images)


def test_each_metric_equals_its_definition(weights: InheritedWeights, images: Tensor, labels: Tensor) -> None:
    half = tuple(group.widths[len(group.widths) // 2] for group in weights.network.space.groups)
    logits = batch_statistics_logits(weights, half, images)
    with torch.no_grad():
        unpruned = weights.network.model.eval()(images).argmax(1)
    expected = {
        "loss": -float(F.cross_entropy(logits, labels)),
        "accuracy": float((logits.argmax(1) == labels).float().mean()),
        "agreement": float((logits.argmax(1) == unpruned).float().mean()),
    }
    for metric, value in expected.items():
        (score,) = AccuracyEvaluator(weights, labelled(images, labels), metric=metric).score([half])  # type: ignore[arg-type]
        assert score == pytest.approx(value, abs=1e-5), metric


@pytest.mark.parametrize("path", ["sliced", "stacked"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_metrics_of_networks_in_other_precisions_are_summed_in_float32_at_least(
    network: Network, images: Tensor, labels: Tensor, kind: torch.dtype, path: Any
) -> None:
    """In 16 bits a sum over 64 images would have two or three digits."""
    pixels, labels = images[:64].to(kind), labels[:64]
    traced = trace(copy.deepcopy(network.model).to(kind), pixels[:2])
    weights = InheritedWeights(traced, L1Criterion().rank(traced))
    forward = (StackedForward if path == "stacked" else SharedForward)(weights)
    for structure in (traced.space.full, traced.space.minimum):
        (logits,) = forward.run([structure], pixels)
        exact = -F.cross_entropy(logits.double(), labels).item()
        assert logits.dtype == kind
        (loss,) = AccuracyEvaluator(weights, labelled(pixels, labels), path=path).score([structure])
        assert loss == pytest.approx(exact, rel=1e-14 if kind == torch.float64 else 1e-6)
        (accuracy,) = AccuracyEvaluator(weights, labelled(pixels, labels), metric="accuracy", path=path).score(
            [structure]
        )
        assert accuracy == int((logits.argmax(1) == labels).sum()) / len(labels)


def test_agreement_is_with_the_unpruned_network_in_eval_mode_whatever_its_mode_is(
    weights: InheritedWeights, images: Tensor
) -> None:
    expected = AccuracyEvaluator(weights, Examples(images, fidelity()), metric="agreement").score(
        [weights.network.space.full]
    )
    still = copy.deepcopy(weights.network.model)
    training = InheritedWeights(replace(weights.network, model=still.train()), weights.ranking)
    assert (
        AccuracyEvaluator(training, Examples(images, fidelity()), metric="agreement").score(
            [weights.network.space.full]
        )
        == expected
    )
    assert still.training


def test_stacked_scores_are_sliced_ones_to_four_digits(
    weights: InheritedWeights, images: Tensor, labels: Tensor
) -> None:
    space = weights.network.space
    structures = [space.full, space.minimum, *(space.check(row.tolist()) for row in space.sample(_rng(), 5))]
    sliced = AccuracyEvaluator(weights, labelled(images, labels), batch_size=100)
    stacked = AccuracyEvaluator(weights, labelled(images, labels), batch_size=100, path="stacked", at_once=3)
    assert stacked.score(structures) == pytest.approx(sliced.score(structures), rel=1e-4)
    assert "path=stacked" in stacked.description


def test_when_memory_runs_out_fewer_structures_are_stacked(
    weights: InheritedWeights, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches: list[int] = []
    run = StackedForward.run

    def little_memory(self: StackedForward, structures: list[Structure], *rest: Any, **named: Any) -> list[Any]:
        launches.append(len(structures))
        if len(structures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, structures, *rest, **named)

    structures = [weights.network.space.check(row.tolist()) for row in weights.network.space.sample(_rng(), 6)]
    expected = AccuracyEvaluator(weights, labelled(images, labels)).score(structures)
    monkeypatch.setattr(StackedForward, "run", little_memory)
    evaluator = AccuracyEvaluator(weights, labelled(images, labels), path="stacked", at_once=8)
    assert evaluator.score(structures) == pytest.approx(expected, rel=1e-4)
    assert launches == [6, 4, 2, 2, 2]


def test_an_error_that_is_not_about_memory_is_passed_on(
    weights: InheritedWeights, images: Tensor, labels: Tensor
) -> None:
    evaluator = AccuracyEvaluator(weights, labelled(images.double(), labels), path="stacked")
    with pytest.raises(RuntimeError, match="type"):
        evaluator.score([weights.network.space.full])


def test_statistics_come_from_the_calibration_images_when_there_are_some(
    weights: InheritedWeights, images: Tensor, labels: Tensor
) -> None:
    half = tuple(group.widths[len(group.widths) // 2] for group in weights.network.space.groups)
    model = weights.build(half).eval()
    recalibrate_bn(model, images[:128])
    with torch.no_grad():
        expected = -float(F.cross_entropy(model(images[128:]), labels[128:]))
    evaluator = AccuracyEvaluator(
        weights, labelled(images[128:], labels[128:]), calibration=images[:128], batch_size=64
    )
    assert evaluator.score([half]) == pytest.approx([expected], rel=0.02)  # that variance is unbiased, this one is not
    assert "calibration=128" in evaluator.description


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_images_are_scored_in_batches_of_nearly_equal_size() -> None:
    assert [len(batch) for batch in split(torch.zeros(257), 256)] == [129, 128]
    assert [len(batch) for batch in split(torch.zeros(3), 256)] == [3]


class Chooses(nn.Module):
    """Scales what it is given by numbers that Python and numpy draw."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > -math.inf:  # a branch by values, for which it is kept whole
            return x * random.random() * float(np.random.random())  # noqa: NPY002
        return x


class Draws(nn.Module):
    """Draws as the noise says, between layers, and from Python and numpy behind them, in eval mode, too."""

    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 12)
        self.last, self.noise, self.chooses = nn.Linear(12, 3), noise, Chooses()

    def forward(self, x: Tensor) -> Tensor:
        x = self.noise(F.relu(self.norm(self.first(x))))
        return self.chooses(self.last(self.noise(F.relu(self.second(x)))))


NOISES: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.5),
    "dropout in place": lambda x: F.dropout(x, 0.5, inplace=True),
    "noise": lambda x: x + torch.randn(x.shape[0], 1),
    "a mask": lambda x: x * torch.empty_like(x).bernoulli_(0.5),
}


@pytest.mark.parametrize(
    "make",
    [
        partial(AccuracyEvaluator, path="sliced"),
        partial(AccuracyEvaluator, path="sliced", statistics="corrected"),
        partial(AccuracyEvaluator, path="sliced", metric="fidelity"),
        partial(AccuracyEvaluator, path="stacked"),
        precise_bn_evaluator,
    ],
    ids=["sliced", "corrected", "fidelity", "stacked", "precise_bn"],
)
@pytest.mark.parametrize("noise", NOISES)
def test_scores_of_forwards_that_draw_do_not_depend_on_what_else_is_scored(
    make: Callable[..., Evaluator], noise: str
) -> None:
    torch.manual_seed(0)
    network = trace(Draws(NOISES[noise]), torch.randn(2, 8))
    weights = InheritedWeights(network, L1Criterion().rank(network))
    examples = labelled(torch.randn(60, 8), torch.randint(0, 3, (60,)))
    structures = [(16, 12), (16, 6), (8, 12), (8, 6), (4, 4)]
    before = generators()
    together = make(weights, examples, batch_size=32).score(structures)
    assert generators() == before
    torch.manual_seed(1)
    evaluator = make(weights, examples, batch_size=32)
    assert [evaluator.score([structure])[0] for structure in structures[::-1]] == together[::-1]
    assert evaluator.score(structures[2:])[::-1] == together[:1:-1]


def test_a_network_without_batch_norm_is_scored_as_it_is() -> None:
    torch.manual_seed(0)
    network = trace(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 1, 4, 4))
    images, labels = torch.randn(32, 1, 4, 4), torch.randint(0, 3, (32,))
    weights = InheritedWeights(network, L1Criterion().rank(network))
    (score,) = AccuracyEvaluator(weights, labelled(images, labels), metric="accuracy").score([network.space.full])
    assert score == pytest.approx(top1(network.model, images, labels))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "fast"}, "Unknown path 'fast'; there are auto, sliced, stacked"),
        ({"path": "stacked+graph"}, "There are no CUDA graphs on cpu"),
        ({"metric": "speed"}, "Unknown metric 'speed'; for the task classification there are loss, accuracy, fidelity"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, r"one label per image \(256\), got 3"),
        ({"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0, dtype=torch.long)}, "got none"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    weights: InheritedWeights, images: Tensor, labels: Tensor, changes: dict[str, object], message: str
) -> None:
    arguments = {"images": images, "labels": labels, "metric": "loss", **changes}

    def scored() -> None:
        examples = labelled(arguments.pop("images"), arguments.pop("labels"))  # type: ignore[arg-type]
        AccuracyEvaluator(weights, examples, **arguments).score([weights.network.space.full])  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=message):
        scored()


def test_recalibration_gives_the_mean_and_unbiased_variance_of_the_batches() -> None:
    norm = nn.BatchNorm2d(3)
    images = torch.randn(64, 3, 5, 5) * 3 + 7
    recalibrate_bn(norm, images, batch_size=32)
    halves = [half.transpose(0, 1).flatten(1) for half in images.split(32)]
    assert torch.allclose(norm.running_mean, sum(half.mean(1) for half in halves) / 2, atol=1e-4)
    assert torch.allclose(norm.running_var, sum(half.var(1) for half in halves) / 2, rtol=1e-4)


def test_recalibration_restores_modes_and_momenta_and_changes_no_weight() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5)).train()
    model[2].eval()
    weights = copy.deepcopy(list(model.parameters()))
    before = generators()
    recalibrate_bn(model, torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in model] == [True, True, False]
    assert model[1].momentum == 0.3
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert generators() == before


class Parts(nn.Module):
    """A BatchNorm that runs, one that runs in training alone, and one whose forward is called without its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.aux, self.bare = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Any:
        found = self.norm(x) + self.bare.forward(x)
        return (found, self.aux(x)) if self.training else found


def test_recalibration_leaves_the_statistics_of_what_does_not_run() -> None:
    torch.manual_seed(0)
    model, images = Parts(), torch.randn(64, 3) * 3 + 7
    model(torch.randn(16, 3) + 1)
    before = state_of(model.aux)
    recalibrate_bn(model, images, batch_size=32)
    assert state_of(model.aux) == before
    for norm in (model.norm, model.bare):
        torch.testing.assert_close(norm.running_mean, images.mean(0))


def test_recalibrating_a_network_without_batch_norm_does_nothing() -> None:
    model = nn.Linear(4, 2)
    before = state_of(model)
    recalibrate_bn(model, torch.randn(8, 4))
    assert state_of(model) == before


def test_top1_counts_what_is_right_and_restores_the_mode() -> None:
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.9)).train()
    logits = torch.eye(4)
    assert top1(model, logits, torch.tensor([0, 1, 2, 0]), batch_size=3) == 0.75
    assert model.training
    assert model[1].training
