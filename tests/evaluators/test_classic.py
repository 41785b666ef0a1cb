"""The papers' protocols, against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunesearch.evaluators.accuracy import top1
from prunesearch.evaluators.batchnorm import adaptive_bn, precise_bn
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.classic import ClassicEvaluator, adaptive_bn_evaluator, precise_bn_evaluator
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights


def test_precise_statistics_are_those_of_all_images_together() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, momentum=0.3)).train()
    images = torch.randn(64, 2, 4, 4) * 2 + torch.arange(64).view(-1, 1, 1, 1) / 10  # batches of different means
    precise_bn(model, images, batch_size=16)
    with torch.no_grad():
        everything = model[0](images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean, everything.mean(1))
    torch.testing.assert_close(model[1].running_var, everything.var(1, correction=0), rtol=1e-4, atol=1e-5)
    assert model[1].momentum == 0.3
    assert model.training


def test_adaptive_statistics_are_exponential_averages_from_those_that_were_there() -> None:
    norm = nn.BatchNorm1d(3, momentum=0.25)
    images = torch.randn(30, 3) + 4
    mean = torch.zeros(3)
    for batch in images.split(10):
        mean = 0.75 * mean + 0.25 * batch.mean(0)
    adaptive_bn(norm, images, batch_size=10)
    torch.testing.assert_close(norm.running_mean, mean)


@pytest.mark.parametrize("make", [adaptive_bn_evaluator, precise_bn_evaluator])
def test_the_score_is_the_accuracy_after_estimating_on_the_calibration_images(
    make: type[ClassicEvaluator], network: Network, images: Tensor, labels: Tensor
) -> None:
    weights = InheritedWeights(network, L1Criterion().rank(network))
    half = tuple(group.widths[len(group.widths) // 2] for group in network.space.groups)
    evaluator = make(weights, images[:128], labels[:128], calibration=images[128:], batch_size=64)
    model = weights.build(half).eval()
    {adaptive_bn_evaluator: adaptive_bn, precise_bn_evaluator: precise_bn}[make](model, images[128:], batch_size=64)
    assert evaluator.score([half]) == [top1(model, images[:128], labels[:128])]
    assert "images=128, calibration=128" in evaluator.description


def test_scoring_without_labels_is_refused(network: Network, images: Tensor) -> None:
    weights = InheritedWeights(network, L1Criterion().rank(network))
    with pytest.raises(ValueError, match="got 256 images and no labels"):
        adaptive_bn_evaluator(weights, images, None)
