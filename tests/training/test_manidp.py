from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunesearch.budget import Budget
from prunesearch.errors import CheckpointError, InfeasibleBudget
from prunesearch.models.count import count
from prunesearch.models.gates import gated, gated_layers, macs_per_image
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.tasks.classify import labelled
from prunesearch.training.data import Data
from prunesearch.training.manidp import Manifold, _similarity_loss, manidp
from prunesearch.training.recipe import Recipe
from prunesearch.training.reports import StepReport
from prunesearch.training.settings import ManifoldSettings
from tests.models_state import generators, state_of
from tests.training.test_paam import few

RECIPE = Recipe(epochs=4, batch_size=64, lr=0.02)


def manifold(network: Network, data: Data, **settings: float) -> Manifold:
    images, labels = data.calibration_set()
    limit = network.space.cost(network.space.full).macs // 2
    model = gated(network.model, network.example_inputs)
    return Manifold(
        model, network.model, labelled(images[:64], labels[:64]), limit, ManifoldSettings(**settings), RECIPE
    )


def test_hard_images_have_no_weight_and_simple_ones_the_more_the_simpler(network: Network, digits_data: Data) -> None:
    learner = manifold(network, digits_data, simple=0.5)
    learner.last_loss.fill_(2.0)
    weights = learner.simplicity(torch.tensor([0.0, 0.25, 0.5, 1.0, 3.0]))
    assert weights.tolist() == [1.0, 0.75, 0.5, 0.0, 0.0]


def test_similarity_is_of_cosines_between_images() -> None:
    saliencies = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    # cosines (0,1), (0,2), (1,2): of saliencies 1, 0, 0; of features 0, 0, 1; each pair stands twice in n^2 = 9
    assert float(_similarity_loss(saliencies, features)) == pytest.approx(4 / 9)
    assert float(_similarity_loss(saliencies, 3 * saliencies)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_thresholds_keep_a_share_of_each_layer_in_the_mean(network: Network, digits_data: Data, share: float) -> None:
    learner = manifold(network, digits_data)
    layers = list(gated_layers(learner.network).values())
    means = [torch.rand(layer.conv.out_channels) + 0.1 for layer in layers]
    learner._keep(means, share)
    for mean, layer in zip(means, layers, strict=True):
        kept = int(layer.is_active(mean[None]).sum())
        assert kept == max(1, math.ceil(share * layer.conv.out_channels))


def test_sparsity_passes_no_gradient_to_the_loss_of_simple_images(network: Network, digits_data: Data) -> None:
    images, labels = (part[:32] for part in digits_data.train)  # type: ignore[union-attr]
    gradients = []
    for sparsity in (0.0, 1e3):
        learner = manifold(network, digits_data, sparsity=sparsity, similarity=0.0)
        learner.last_loss.fill_(1e6)  # all are simple
        learner.eval()((images, labels)).backward()
        gradients.append(learner.network.linear.bias.grad)  # type: ignore[union-attr]
    assert torch.allclose(gradients[0], gradients[1])  # which sparsity reaches through the loss only


def test_the_average_image_meets_the_budget_and_the_parameters_grow(network: Network, digits_data: Data) -> None:
    before = state_of(network.model), generators()
    budget = Budget(macs="60%")
    result = manidp(network, few(digits_data), budget=budget, recipe=RECIPE)
    images = few(digits_data).calibration_set()[0]
    measured = macs_per_image(result.model, images).double().mean()
    full = network.space.cost(network.space.full)
    assert result.average_macs == float(measured) <= 0.6 * full.macs
    assert result.dense_macs == full.macs
    assert count(result.model, images[:1]).params > full.params
    assert (state_of(network.model), generators()) == before
    assert not result.model.training


def test_a_budget_of_less_than_a_channel_of_each_layer_is_met() -> None:
    """One channel of the second convolution for every image is too many."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2))
    images = torch.randn(48, 3, 8, 8)
    traced = trace(model.eval(), images[:2])
    data = Data(train=(images, torch.arange(48) % 2), calibration=48)
    limit = round(0.376 * traced.space.cost(traced.space.full).macs)
    result = manidp(traced, data, budget=Budget(macs=limit), recipe=Recipe(epochs=3, batch_size=16, lr=0.02))
    spent = macs_per_image(result.model, images).double()
    assert result.average_macs == float(spent.mean()) <= limit


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_the_same_thresholds(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"budget": Budget(macs="60%"), "recipe": replace(RECIPE, epochs=3)}
    whole = manidp(network, few(digits_data), **settings)

    def interrupt(report: StepReport) -> None:
        if report.step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manidp(network, few(digits_data), checkpoint=tmp_path / "run", on_step=interrupt, **settings)
    again = manidp(network, few(digits_data), checkpoint=tmp_path / "run", **settings)
    assert state_of(again.model) == state_of(whole.model)


def test_a_checkpoint_with_other_labels_for_the_first_loss_is_refused(
    network: Network, digits_data: Data, tmp_path: Path
) -> None:
    images, labels = (part[:64] for part in digits_data.train)  # type: ignore[union-attr]

    def run(labels: Tensor, **more: Any) -> object:
        data = replace(few(digits_data), calibrate_on=(images, labels))
        return manidp(network, data, budget="macs=60%", recipe=RECIPE, checkpoint=tmp_path / "run", **more)

    def interrupt(report: StepReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(labels, on_step=interrupt)
    with pytest.raises(CheckpointError, match="of another training: calibration was"):
        run((labels + 1) % 10)


def test_what_gates_cannot_do_is_refused(network: Network, digits_data: Data) -> None:
    for change, message in (
        ({"budget": Budget(macs="60%", params="60%")}, "gates add parameters"),
        ({"recipe": replace(RECIPE, ema=0.9)}, "no moving average"),
        ({"recipe": replace(RECIPE, epochs=2)}, "at least 3 epochs"),
    ):
        with pytest.raises(ValueError, match=message):
            manidp(network, digits_data, **{"budget": Budget(macs="60%"), "recipe": RECIPE, **change})  # type: ignore[arg-type]
    shut = gated(network.model, network.example_inputs)
    for layer in gated_layers(shut).values():
        layer.threshold.fill_(math.inf)
    least = int(macs_per_image(shut, network.example_inputs[0])[0])
    with pytest.raises(InfeasibleBudget, match="cannot be met by gates") as caught:
        manidp(network, digits_data, budget=Budget(macs=least), recipe=RECIPE)
    assert caught.value.reachable[0] == caught.value.limit == least


class Backwards(nn.Module):
    """Its second gated convolution is registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.norm2 = nn.Conv2d(6, 20, 3), nn.BatchNorm2d(20)
        self.stem, self.first, self.norm1 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.head = nn.Linear(20, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm1(self.first(torch.relu(self.stem(x)))))
        return self.head(torch.relu(self.norm2(self.second(x))).mean((2, 3)))


def test_each_layer_has_its_own_saliencies_whatever_the_order_of_its_modules() -> None:
    torch.manual_seed(0)
    model, images = Backwards().eval(), torch.randn(16, 1, 8, 8)
    gates = gated(model, images[:2])
    layers = gated_layers(gates)
    for name, value in (("first", 1.0), ("second", 5.0)):
        excite = layers[name].gate.excite
        excite.weight.data.zero_()
        excite.bias.data.fill_(value)
    examples = labelled(images, torch.arange(16) % 2)
    learner = Manifold(gates, model, examples, 100_000, ManifoldSettings(), RECIPE)
    learner.train()(examples.batch)
    means = torch.split(learner.sums / learner.seen, [layer.conv.out_channels for layer in layers.values()])
    assert {name: set(mean.tolist()) for name, mean in zip(layers, means, strict=True)} == {
        "second": {5.0},
        "first": {1.0},
    }


@pytest.mark.parametrize("more", [{"patience": 1}, {"features": ("conv",)}])
def test_a_recipe_that_would_end_before_the_budget_is_met_is_refused(
    more: dict[str, Any], network: Network, digits_data: Data
) -> None:
    with pytest.raises(ValueError, match=r"patience=None|features=\(\)"):
        manidp(network, few(digits_data), budget="macs=60%", recipe=replace(RECIPE, **more))
