"""Reconstructed weights: exact where nothing is lost, layer after layer, and sums instead of branches."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from prunesearch.evaluators import reconstructed
from prunesearch.evaluators.compensation import CompensatedWeights
from prunesearch.evaluators.reconstructed import ReconstructedWeights, ridge_regression
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.stacked_forward import StackedForward
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights, WeightSource
from tests.models.networks import image, random_ranking, randomised

IMAGES = image(200, 2, 4, 4, seed=3)


class Residual(nn.Module):
    """A stream of 8 channels, to which a branch adds, with a BatchNorm at its end or without."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 12, 1)
        self.back = nn.Conv2d(12, 8, 1, bias=not norm)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(x + self.norm(self.back(F.relu(self.inner(x)))))


def error(network: Network, weights: WeightSource, structure: tuple[int, ...]) -> float:
    """Mean squared error of the outputs, BatchNorm normalising with the images' own statistics in both."""
    found = []
    for model in (weights.build(network.space.full), weights.build(structure)):
        with torch.no_grad():
            found.append(model.train()(IMAGES))
    return float((found[0] - found[1]).double().square().mean())


def test_a_duplicate_channel_can_be_dropped_without_any_loss() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))).eval()
    with torch.no_grad():
        model[0].weight[5], model[0].bias[5] = 2 * model[0].weight[0], 2 * model[0].bias[0]  # type: ignore[index,operator]
    network = trace(model, image(2, 2, 4, 4))
    ranking = NestedRanking(((0, 1, 2, 3, 4, 5),))
    sliced = error(network, InheritedWeights(network, ranking), (5,))
    assert (
        error(network, ReconstructedWeights(network, ranking, IMAGES), (5,)) < 1e-3 * sliced
    )  # the ridge of 1e-2 leaves about its square


def test_a_layer_is_fitted_to_what_the_pruned_network_gives_it() -> None:
    """The second of two fitted layers, against scikit-learn on the features that the first one really gives it."""
    layers = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.Conv2d(5, 3, 1))
    network = trace(randomised(layers).eval(), image(2, 2, 4, 4))
    built = ReconstructedWeights(network, random_ranking(network), IMAGES).build((3, 3))
    with torch.no_grad():
        given = built[:4](IMAGES).movedim(1, -1).flatten(0, 2).double().numpy()  # type: ignore[index,operator]
        wanted = network.model(IMAGES).movedim(1, -1).flatten(0, 2).double().numpy()
    kept = random_ranking(network).keep(1, 3)
    start = network.model[4].weight.detach().double().flatten(1)[:, kept].numpy()  # type: ignore[index,operator,union-attr]
    ridge = 1e-2 * given.var(axis=0).mean() * len(given)
    known = Ridge(alpha=ridge).fit(given, wanted - given @ start.T)
    found = built[4].weight.detach().double().flatten(1).numpy()  # type: ignore[index,operator,union-attr]
    np.testing.assert_allclose(found, known.coef_ + start, atol=1e-4)
    np.testing.assert_allclose(built[4].bias.detach(), known.intercept_, atol=1e-4)  # type: ignore[index,operator,union-attr]


def test_a_regression_without_rows_that_say_anything_keeps_the_trained_weights() -> None:
    start = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = ridge_regression(torch.zeros(10, 5).double(), torch.zeros(10, 3).double(), start)
    assert torch.allclose(found, start)


@pytest.mark.parametrize(("norm", "left"), [(False, 0.15), (True, 0.5)])
def test_a_branch_makes_up_for_what_its_shortcut_lost(norm: bool, left: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it without a BatchNorm; with one, but for channels that it scales by next to nothing."""
    model = randomised(Residual(norm)).eval()
    nn.init.constant_(model.inner.bias, 20.0)  # type: ignore[arg-type] # nothing is negative, so what the branch gets says all of the stream
    network = trace(model, image(2, 2, 4, 4))
    structure = (8, 11)

    class Damaged(ReconstructedWeights):
        """The stem's weights are those of another network in all but the full structure."""

        def values(self, tensor: str, structure: tuple[int, ...]) -> Tensor:
            values = super().values(tensor, structure)
            damaged = tensor == "stem.weight" and structure != self.network.space.full
            return values * torch.linspace(0.2, 1.5, 8).reshape(8, 1, 1, 1) if damaged else values

        def build(self, structure: tuple[int, ...]) -> nn.Module:
            model = super().build(structure)
            with torch.no_grad():
                model.stem.weight.copy_(self.values("stem.weight", structure))  # type: ignore[union-attr,operator]
            return model

    def sums(weights: WeightSource, structure: tuple[int, ...]) -> Tensor:
        model = weights.build(structure).train()
        seen: list[Tensor] = []
        model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr,operator]
        with torch.no_grad():
            model(IMAGES)
        return seen[0].double()

    def lost(weights: WeightSource) -> float:
        return float((sums(weights, structure) - sums(weights, network.space.full)).square().mean())

    with_sums = lost(Damaged(network, random_ranking(network), IMAGES))
    monkeypatch.setattr(reconstructed, "_branches", lambda *_: ())
    assert with_sums < left * lost(Damaged(network, random_ranking(network), IMAGES))


class Scaled(nn.Module):
    """Two branches, of which the second makes up for what the first lost; an addend of its addition is multiplied."""

    def __init__(self, add: Callable[[Tensor, Tensor], Tensor], factor: float = 1.0, of_stream: float = 1.0) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 3, 1)
        self.inner, self.back = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)
        self.second, self.last = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)
        randomised(self)
        self.add, self.of_stream = add, of_stream
        with torch.no_grad():
            self.last.weight /= factor
            self.last.bias /= factor

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.back(F.relu(self.inner(x)))
        return self.head(self.add(x / self.of_stream, self.last(F.relu(self.second(x)))))


@pytest.mark.parametrize(
    "scaled",
    [
        Scaled(lambda x, y: torch.add(x, y, alpha=10), 10),
        Scaled(lambda x, y: torch.add(input=x, other=y, alpha=0.1), 0.1),
        Scaled(lambda x, y: x.add(y, alpha=-1), -1),
        Scaled(lambda x, y: x.add_(y, alpha=10), 10),
        Scaled(lambda x, y: torch.add(y, x, alpha=-2), 1, -2),
    ],
)
def test_a_branch_makes_up_for_its_shortcut_as_much_as_it_is_added(scaled: Scaled) -> None:
    """All of them compute what a plain addition does, so what they lose is the same."""
    plain = Scaled(lambda x, y: x + y)
    errors = []
    for model in (scaled, plain):
        network = trace(model.eval(), image(2, 2, 4, 4))
        errors.append(error(network, ReconstructedWeights(network, random_ranking(network), IMAGES), (8, 4, 11)))
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


@pytest.mark.parametrize("subtract", [torch.sub, operator.sub])
def test_a_branch_that_is_subtracted_is_fitted_to_its_own_outputs(subtract: Callable[[Tensor, Tensor], Tensor]) -> None:
    network = trace(Scaled(lambda x, y: subtract(x, y), -1).eval(), image(2, 2, 4, 4))
    ranking = random_ranking(network)
    inherited = error(network, InheritedWeights(network, ranking), (8, 4, 11))
    assert error(network, ReconstructedWeights(network, ranking, IMAGES), (8, 4, 11)) < inherited


def test_a_filter_that_is_empty_leaves_the_others_their_fit() -> None:
    """Its output is always the same, so a BatchNorm divides it by next to nothing."""
    model = randomised(Residual(norm=True)).eval()
    network = trace(model, image(2, 2, 4, 4))
    structure = (8, 8)
    with torch.no_grad():
        model.back.weight[2] = 0  # type: ignore[index,union-attr]
    ranking = random_ranking(network)
    built = ReconstructedWeights(network, ranking, IMAGES).build(structure)
    assert all(bool(tensor.isfinite().all()) for tensor in built.state_dict().values())
    inherited = error(network, InheritedWeights(network, ranking), structure)
    assert error(network, ReconstructedWeights(network, ranking, IMAGES), structure) < 0.5 * inherited


def test_an_empty_filter_in_front_of_a_normalisation_takes_no_error_of_the_shortcut_from_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, missing = (torch.randn(50, 3, generator=generator).double() for _ in range(2))
    outputs[:, 1] = 4.0
    weight, bias = torch.tensor([1.0, 1.0, 0.01]).double(), torch.zeros(3).double()
    found = reconstructed._Norm("norm", weight, bias, 1e-5).before(missing, outputs)
    behind = found / (outputs.var(0, correction=0) + 1e-5).sqrt() * weight
    assert torch.allclose(behind[:, :2], missing[:, :2])
    assert not found[:, 2].any()  # what is scaled by next to nothing would be blown up


class Mixer(nn.Module):
    """Two linear layers over the positions of each channel, as MLP-Mixer has them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(2, channels, 1), nn.Linear(channels, 3)
        self.spread, self.back = nn.Linear(16, 20), nn.Linear(20, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2)  # (n, channels, positions)
        return self.head((x + self.back(F.relu(self.spread(x)))).mean(2))


@pytest.mark.parametrize("channels", [12, 40])  # fewer than are sampled, and more
def test_what_is_applied_to_each_channel_is_not_fitted_to_outputs_of_other_channels(channels: int) -> None:
    network = trace(randomised(Mixer(channels)).eval(), image(2, 2, 4, 4))
    ranking = random_ranking(network)
    assert [group.name for group in network.space.groups] == ["stem", "spread"]
    weights, inherited = ReconstructedWeights(network, ranking, IMAGES), InheritedWeights(network, ranking)
    narrow = (channels // 2, 16)
    assert torch.equal(weights.values("back.weight", narrow), inherited.values("back.weight", narrow))
    assert error(network, weights, narrow) < error(network, inherited, narrow)
    wide = (channels, 16)  # where all channels stay, it is
    assert not torch.equal(weights.values("back.weight", wide), inherited.values("back.weight", wide))


def test_weights_that_change_normalisations_are_not_run_stacked() -> None:
    network = trace(randomised(Residual(norm=True)).eval(), image(2, 2, 4, 4))
    with pytest.raises(ValueError, match=r"norm.weight other values in other structures.*path=\"sliced\""):
        StackedForward(ReconstructedWeights(network, random_ranking(network), IMAGES))


def test_errors_that_add_up_along_the_layers_are_made_up_for(network: Network, images: Tensor) -> None:
    """On a trained network: closer to the original logits than weights fitted to the unpruned network's features."""
    from prunesearch.evaluators.channels.l1 import L1Criterion
    from prunesearch.models.shared_forward import SharedForward

    ranking = L1Criterion().rank(network)
    structure = tuple(group.widths[len(group.widths) // 2] for group in network.space.groups)
    errors = []
    for kind in (ReconstructedWeights, CompensatedWeights):
        full, narrow = SharedForward(kind(network, ranking, images)).run([network.space.full, structure], images)
        errors.append(float((full - narrow).square().mean()))
    assert errors[0] < 0.8 * errors[1]
