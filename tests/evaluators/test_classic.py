"""The papers' protocols, against their definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunesearch.evaluators.accuracy import AccuracyEvaluator, top1
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.classic import ClassicEvaluator, adaptive_bn_evaluator, precise_bn_evaluator
from prunesearch.evaluators.recalibration import adaptive_bn, precise_bn, recalibrate_bn
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.follow import fidelity
from tests.models_state import state_of


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


def test_precise_statistics_of_16_bits_are_summed_in_float32() -> None:
    images = (torch.randn(2048, 3) + 8).bfloat16()  # in bfloat16 the square of the mean would swallow the variance
    norm = nn.BatchNorm1d(3).bfloat16()
    precise_bn(norm, images, batch_size=16)
    expected = images.float().var(0, correction=0)
    torch.testing.assert_close(norm.running_var.float(), expected, rtol=0.01, atol=0.0)


class Repeated(nn.Module):
    """Calls one BatchNorm twice, on other numbers of positions, and another one in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.aux = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        found = self.norm(x).mean() + self.norm(x[..., :1] + 10).mean()
        return found + self.aux(x).mean() if self.training else found


def test_precise_statistics_are_those_of_all_calls_and_stay_as_they_are_without_one() -> None:
    model, images = Repeated(), torch.randn(64, 2, 4, 4)
    model(torch.randn(8, 2, 4, 4) + 1)
    before = state_of(model.aux)
    precise_bn(model, images, batch_size=16)
    seen = torch.cat([images, images[..., :1] + 10], 3).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model.norm.running_mean, seen.mean(1))
    torch.testing.assert_close(model.norm.running_var, seen.var(1, correction=0))
    assert state_of(model.aux) == before


def test_adaptive_statistics_are_exponential_averages_over_a_hundred_batches_from_those_that_were_there() -> None:
    norm = nn.BatchNorm1d(3).double()
    images = torch.randn(30, 3, dtype=torch.float64) + 4
    seen = batches_of(norm, images, batch_size=10)
    mean, variance = torch.zeros(3).double(), torch.ones(3).double()
    for batch in seen:
        mean = 0.9 * mean + 0.1 * batch.mean(0)
        variance = 0.9 * variance + 0.1 * batch.var(0)
    assert len(seen) == 100
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.9, None])
@pytest.mark.parametrize("n", [3, 150, 1000])
def test_hardly_anything_is_left_of_the_old_statistics_whatever_momentum_layers_have(
    n: int, momentum: float | None
) -> None:
    """What is left is what two estimates from the same images, but other old statistics, differ by."""
    images = torch.randn(n, 2, dtype=torch.float64)
    norms = [nn.BatchNorm1d(2, momentum=momentum).double() for _ in range(2)]
    norms[1].running_mean += 1000.0
    norms[1].running_var += 1000.0
    for norm in norms:
        norm.num_batches_tracked += 10_000  # as after a training
        adaptive_bn(norm, images)
        assert norm.momentum == momentum
    for name in ("running_mean", "running_var"):
        one, other = (getattr(norm, name) for norm in norms)
        left = (other - one) / 1000.0
        torch.testing.assert_close(left, torch.full_like(left, 0.9**100), rtol=1e-6, atol=1e-12)
        assert bool((left < 1e-4).all())


@pytest.mark.parametrize(("n", "size"), [(7, 7), (128, 128), (300, 128), (1000, 128), (12_800, 128), (20_000, 128)])
def test_every_image_is_as_often_in_the_batches_as_any_other_to_one_time(n: int, size: int) -> None:
    seen = batches_of(nn.BatchNorm1d(1), torch.arange(float(n))[:, None])
    assert [len(batch) for batch in seen] == [size] * 100
    times = torch.cat(seen).long().flatten().bincount(minlength=n)
    assert int(times.max() - times.min()) <= 1
    assert not torch.equal(seen[0].flatten(), torch.arange(float(size)))  # shuffled


def test_the_protocols_agree_on_pruned_networks(network: Network, images: Tensor, labels: Tensor) -> None:
    """Both estimate what is true of the pruned network, so neither may be drawn to what was true of the whole one."""
    weights = InheritedWeights(network, L1Criterion().rank(network))
    space = network.space
    structures = [space.check(row.tolist()) for row in space.sample(np.random.default_rng(0), 4)]
    adaptive = adaptive_bn_evaluator(weights, labelled(images, labels), batch_size=64).score(structures)
    precise = precise_bn_evaluator(weights, labelled(images, labels), batch_size=64).score(structures)
    untouched = [top1(weights.build(structure), images, labels) for structure in structures]
    assert adaptive == pytest.approx(precise, abs=0.05)
    assert untouched != pytest.approx(precise, abs=0.1)


def batches_of(norm: nn.BatchNorm1d, images: Tensor, **settings: int) -> list[Tensor]:
    """What `adaptive_bn` runs a model on."""
    seen: list[Tensor] = []
    with norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone())):
        adaptive_bn(norm, images, **settings)
    return seen


@pytest.mark.parametrize("make", [adaptive_bn_evaluator, precise_bn_evaluator])
def test_the_score_is_the_accuracy_after_estimating_on_the_calibration_images(
    make: type[ClassicEvaluator], network: Network, images: Tensor, labels: Tensor
) -> None:
    weights = InheritedWeights(network, L1Criterion().rank(network))
    half = tuple(group.widths[len(group.widths) // 2] for group in network.space.groups)
    evaluator = make(weights, labelled(images[:128], labels[:128]), calibration=images[128:], batch_size=64)
    model = weights.build(half).eval()
    {adaptive_bn_evaluator: adaptive_bn, precise_bn_evaluator: precise_bn}[make](model, images[128:], batch_size=64)
    assert evaluator.score([half]) == [top1(model, images[:128], labels[:128])]
    assert "images=128, calibration=128" in evaluator.description


def test_without_labels_the_agreement_with_the_unpruned_network_is_scored(network: Network, images: Tensor) -> None:
    weights = InheritedWeights(network, L1Criterion().rank(network))
    evaluator = adaptive_bn_evaluator(weights, Examples(images, fidelity()), batch_size=64)
    full, least = evaluator.score([network.space.full, network.space.minimum])
    assert evaluator.measures == "fidelity"
    assert -0.05 < full <= 0.0
    assert least < full


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (AccuracyEvaluator, "batch_size"),
        (AccuracyEvaluator, "at_once"),
        (adaptive_bn_evaluator, "batch_size"),
        (adaptive_bn_evaluator, "batches"),
        (precise_bn_evaluator, "batch_size"),
    ],
)
def test_sizes_of_batches_are_checked(
    network: Network, images: Tensor, labels: Tensor, make: Callable[..., object], name: str
) -> None:
    weights = InheritedWeights(network, L1Criterion().rank(network))
    for value, error in ((0, ValueError), (-3, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match=f"Expected {name} "):
            make(weights, labelled(images, labels), **{name: value})


@pytest.mark.parametrize("estimate", [recalibrate_bn, adaptive_bn, precise_bn])
def test_statistics_of_batches_of_no_image_are_refused(estimate: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match="Expected batch_size >= 1"):
        estimate(nn.BatchNorm2d(2), torch.randn(4, 2, 3, 3), batch_size=0)
