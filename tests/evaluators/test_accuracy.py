"""The accuracy evaluator against an obvious witness, and BatchNorm recalibration against closed forms."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators.accuracy import AccuracyEvaluator, recalibrate_bn, split, top1
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.models.network import Network
from prunesearch.models.slim import slim
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
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
        (score,) = AccuracyEvaluator(weights, images, labels, metric=metric).score([half])  # type: ignore[arg-type]
        assert score == pytest.approx(value, abs=1e-5), metric


def test_agreement_is_with_the_unpruned_network_in_eval_mode_whatever_its_mode_is(
    weights: InheritedWeights, images: Tensor
) -> None:
    expected = AccuracyEvaluator(weights, images, metric="agreement").score([weights.network.space.full])
    still = copy.deepcopy(weights.network.model)
    training = InheritedWeights(replace(weights.network, model=still.train()), weights.ranking)
    assert AccuracyEvaluator(training, images, metric="agreement").score([weights.network.space.full]) == expected
    assert still.training


def test_images_are_scored_in_batches_of_nearly_equal_size() -> None:
    assert [len(batch) for batch in split(torch.zeros(257), 256)] == [129, 128]
    assert [len(batch) for batch in split(torch.zeros(3), 256)] == [3]


def test_a_network_without_batch_norm_is_scored_as_it_is() -> None:
    torch.manual_seed(0)
    network = trace(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 1, 4, 4))
    images, labels = torch.randn(32, 1, 4, 4), torch.randint(0, 3, (32,))
    weights = InheritedWeights(network, L1Criterion().rank(network))
    (score,) = AccuracyEvaluator(weights, images, labels, metric="accuracy").score([network.space.full])
    assert score == pytest.approx(top1(network.model, images, labels))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "speed"}, "Unknown metric 'speed'; there are loss, accuracy, agreement"),
        ({"labels": None}, "needs labels, got none"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, r"one label per image \(256\), got 3"),
        ({"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0, dtype=torch.long)}, "got none"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    weights: InheritedWeights, images: Tensor, labels: Tensor, changes: dict[str, object], message: str
) -> None:
    arguments = {"images": images, "labels": labels, "metric": "loss", **changes}
    with pytest.raises(ValueError, match=message):
        AccuracyEvaluator(weights, arguments.pop("images"), arguments.pop("labels"), **arguments)  # type: ignore[arg-type]


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
