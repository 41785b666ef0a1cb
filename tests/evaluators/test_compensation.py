"""Compensated weights: identity at full width, exact where nothing is lost, optimal, and the same by every path."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators.compensation import CompensatedWeights
from prunesearch.evaluators.reconstructed import ReconstructedWeights
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.stacked_forward import StackedForward
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


@pytest.mark.parametrize("kind", [CompensatedWeights, ReconstructedWeights])
def test_weights_of_a_layer_without_a_bias_make_up_for_the_mean(
    kind: type[CompensatedWeights | ReconstructedWeights],
) -> None:
    """As near as a least-squares fit of the outputs as they are to the inputs that stay."""
    model = randomised(nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1, bias=False))).eval()
    network = trace(model, image(2, 2, 4, 4))
    ranking = random_ranking(network)
    built = kind(network, ranking, IMAGES).build((3,))
    with torch.no_grad():
        inputs, wanted, found = (
            part(IMAGES).movedim(1, -1).flatten(0, 2).double()
            for part in (model[:2], model, built)  # type: ignore[operator, index]
        )
    inputs = inputs[:, torch.from_numpy(ranking.keep(0, 3))]
    least = (inputs @ torch.linalg.lstsq(inputs, wanted).solution - wanted).square().mean()
    assert (found - wanted).square().mean() < 1.02 * least


@pytest.mark.parametrize("kind", [CompensatedWeights, ReconstructedWeights])
def test_in_front_of_a_batchnorm_weights_are_the_same_with_a_bias_and_without(
    kind: type[CompensatedWeights | ReconstructedWeights],
) -> None:
    """Its statistics are re-estimated, so a mean that is lost costs nothing; modules that do nothing may be between."""
    found = []
    for bias in (True, False):
        layers = nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1, bias=bias), nn.Identity(), nn.BatchNorm2d(3)
        model = randomised(nn.Sequential(*layers)).eval()
        network = trace(model, image(2, 2, 4, 4))
        found.append(kind(network, random_ranking(network), IMAGES).build((3,))[2].weight)  # type: ignore[index, union-attr]
    assert torch.equal(*found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("after", "last"),
    [
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)), 2),
        (nn.BatchNorm1d(5), 3),  # of (n, 5, 3): its channels are no outputs
        (nn.LayerNorm(3), 2),
    ],
)
def test_only_a_batchnorm_of_the_outputs_takes_their_mean_away(after: nn.Module, last: int) -> None:
    model = randomised(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False), after)).eval()
    (layer,) = trace(model, image(2, 5, 4) if last == 3 else image(2, 4)).linear_maps
    assert not layer.normalised


def test_the_mean_of_the_outputs_stays_where_a_layer_has_a_bias() -> None:
    network = trace(pair(), image(2, 2, 4, 4))
    built = CompensatedWeights(network, random_ranking(network), IMAGES).build((2,))
    with torch.no_grad():
        assert built(IMAGES).mean((0, 2, 3)) == pytest.approx(network.model(IMAGES).mean((0, 2, 3)), abs=1e-4)


class OwnKernels(nn.Module):
    """Convolutions as functions, of parameters that the network has itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(6, 2, 1, 1))
        self.second = nn.Parameter(torch.randn(3, 6, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(F.conv2d(x, self.first)), self.second, padding=1)


def test_fitted_weights_that_an_operator_reads_are_not_run_stacked() -> None:
    torch.manual_seed(0)
    network = trace(OwnKernels().eval(), image(2, 2, 4, 4))
    with pytest.raises(ValueError, match=r"second other values in other structures.*path=\"sliced\""):
        StackedForward(CompensatedWeights(network, random_ranking(network), IMAGES))
