"""Compensated weights: identity at full width, exact where nothing is lost, optimal, and the same by every path."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunesearch.evaluators.compensation import CompensatedWeights
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from tests.models.networks import image, random_ranking, randomised

IMAGES = image(200, 2, 4, 4, seed=3)


def pair() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))
    return randomised(model).eval()  # type: ignore[return-value]


def test_a_duplicate_channel_can_be_dropped_without_any_loss() -> None:
    model = pair()
    with torch.no_grad():
        model[0].weight[5], model[0].bias[5] = 2 * model[0].weight[0], 2 * model[0].bias[0]  # type: ignore[index,operator]
    network = trace(model, image(2, 2, 4, 4))
    ranking = NestedRanking(((0, 1, 2, 3, 4, 5),))
    with torch.no_grad():
        whole = model(IMAGES)
        compensated = CompensatedWeights(network, ranking, IMAGES).build((5,))(IMAGES)
        sliced = InheritedWeights(network, ranking).build((5,))(IMAGES)
    assert (compensated - whole).abs().max() < 0.01 * (sliced - whole).abs().max()


def test_no_other_weights_reproduce_the_outputs_better_on_what_was_seen() -> None:
    """All 16 positions are sampled, so the squared error on the same images is what the closed form minimises."""
    network = trace(pair(), image(2, 2, 4, 4))
    weights = CompensatedWeights(network, random_ranking(network), IMAGES)
    built = weights.build((3,))

    def error(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(IMAGES) - network.model(IMAGES)).double().square().mean())

    least = error(built)
    assert least < 0.9 * error(InheritedWeights(network, random_ranking(network)).build((3,)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        changed = weights.build((3,))
        with torch.no_grad():
            for parameter in changed[2].parameters():  # type: ignore[index]
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        assert error(changed) > least * (1 - 1e-4)


def test_the_mean_of_the_outputs_stays_where_a_layer_has_a_bias() -> None:
    network = trace(pair(), image(2, 2, 4, 4))
    built = CompensatedWeights(network, random_ranking(network), IMAGES).build((2,))
    with torch.no_grad():
        assert built(IMAGES).mean((0, 2, 3)) == pytest.approx(network.model(IMAGES).mean((0, 2, 3)), abs=1e-4)
