"""Layers that are spelt in different ways: what they are given, how they are ranked and what they are fitted to."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators import layer_inputs as gathering
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.compensation import CompensatedWeights
from prunesearch.evaluators.layer_inputs import layer_inputs
from prunesearch.evaluators.reconstructed import ReconstructedWeights
from prunesearch.evaluators.refitted import RefittedWeights
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.follow import fidelity
from tests.models.networks import Enlarging, image, random_ranking, randomised

IMAGES = image(120, 2, 4, 4, seed=3)

# torch says it once a process, so which test would fail of it depends on the order.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


class PaddedByItself(nn.Conv2d):
    """As EfficientNet-Lite's and timm's: what pads is not the convolution."""

    def forward(self, x: Tensor) -> Tensor:
        k = self.weight.shape[-1]
        return F.conv2d(F.pad(x, (k // 2,) * 4), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Functional(nn.Module):
    """A convolution with a weight of its own, and keywords."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(x, self.weight, bias=self.bias, padding=self.weight.shape[-1] // 2)


class Same(Functional):
    """Padding that torch is asked to find."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding="same")


class TransposedFunction(Functional):
    """A transposed convolution that is called as a function, with keywords."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(outputs, inputs, kernel)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, 2, padding=1, output_padding=1)


class Standardised(nn.Conv2d):
    """A weight that is computed for each forward."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class Conv2dSame(nn.Conv2d):
    """As timm's, by whose name it goes: padded by the size of the input, as TensorFlow does it."""

    __module__ = "timm.layers.conv2d_same"

    def forward(self, x: Tensor) -> Tensor:
        sides: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride)


Make = Callable[[int, int, int], nn.Module]
SPELLINGS: dict[str, Make] = {
    "module": lambda c, k, n: nn.Conv2d(c, k, n, padding=n // 2),
    "its own padding": PaddedByItself,
    "function": Functional,
    "function, same": Same,
    "module, same": lambda c, k, n: nn.Conv2d(c, k, n, padding="same"),
    "two layers": lambda c, k, n: nn.Sequential(nn.ZeroPad2d(n // 2), nn.Conv2d(c, k, n, padding="valid")),
}


class Residual(nn.Module):
    """A stream of 6 channels and a branch with a BatchNorm at its end."""

    def __init__(self, conv: Make) -> None:
        super().__init__()
        self.stem, self.inner, self.back = conv(2, 6, 1), conv(6, 5, 3), conv(5, 6, 3)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.norm(self.back(F.relu(self.inner(x))))
        return self.head(x.mean((2, 3)))


def traced(spelling: str) -> Network:
    return trace(randomised(Residual(SPELLINGS[spelling])).eval(), image(2, 2, 4, 4))


def chain(layer: nn.Module, images: Tensor, inputs: int = 2) -> Network:
    """The layer, 6 channels to 3, behind a pointwise convolution; its outputs are those of the network."""
    first = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[images.dim()](inputs, 6, 1)
    return trace(randomised(nn.Sequential(first, nn.ReLU(), layer)).eval(), images[:2])


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    **{name: (make(6, 3, 3), (4, 4)) for name, make in SPELLINGS.items()},
    "even kernel, same": (nn.Conv2d(6, 3, (2, 3), padding="same", dilation=(1, 2)), (4, 4)),
    "strided and dilated": (nn.Conv2d(6, 3, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 1)), (5, 4)),
    "same by size": (Conv2dSame(6, 3, (3, 2), stride=(2, 1)), (4, 5)),
    "reflected": (nn.Conv2d(6, 3, 3, padding=1, padding_mode="reflect"), (4, 4)),
    "circular": (nn.Conv2d(6, 3, 3, padding=(1, 0), padding_mode="circular"), (4, 4)),
    "replicated, same": (nn.Conv2d(6, 3, 2, padding="same", padding_mode="replicate"), (4, 4)),
    "in groups": (nn.Conv2d(6, 4, 3, padding=1, groups=2), (4, 4)),
    "standardised": (Standardised(6, 3, 3, padding=1), (4, 4)),
    "transposed": (nn.ConvTranspose2d(6, 3, 2, stride=2), (2, 2)),
    "transposed, overlapping": (nn.ConvTranspose2d(6, 3, 3, (2, 1), (1, 0), (1, 0)), (2, 2)),
    "transposed and cut": (nn.ConvTranspose2d(6, 3, (1, 2), padding=(1, 0)), (5, 3)),
    "transposed function": (TransposedFunction(6, 3, 3), (2, 2)),
    "transposed and dilated, of one dimension": (nn.ConvTranspose1d(6, 3, 3, stride=3, padding=1, dilation=2), (4,)),
    "transposed, of three dimensions": (nn.ConvTranspose3d(6, 3, (1, 2, 2), stride=(1, 1, 2)), (2, 1, 2)),
    "of one dimension": (nn.Conv1d(6, 3, 3, stride=2, padding=1), (9,)),
    "of three dimensions": (nn.Conv3d(6, 3, (1, 2, 3), padding=(0, 1, 1)), (2, 1, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_layer_is_given_makes_what_it_returns(name: str) -> None:
    """All positions are sampled, so mean and covariance of its outputs follow from its weights and inputs."""
    layer, size = LAYERS[name]
    images = image(60, 2, *size, seed=4)
    network = chain(layer, images)
    (reader,) = layer_inputs(network, images)
    with torch.no_grad():
        bias = next((b for n, b in layer.named_parameters() if n.endswith("bias")))
        outputs = network.model(images).flatten(2).movedim(1, 2).flatten(0, 1).double() - bias.double()
    np.testing.assert_allclose(reader.weights @ reader.mean, outputs.mean(0), atol=1e-5)
    np.testing.assert_allclose(reader.cross @ reader.weights.T, torch.cov(outputs.T, correction=0), atol=1e-5)
    assert reader.units.tolist() == network.reads[0].units.tolist()


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("in groups", "standardised")])
@pytest.mark.parametrize("kind", [CompensatedWeights, ReconstructedWeights])
def test_no_other_weights_reproduce_the_outputs_better(name: str, kind: Callable[..., RefittedWeights]) -> None:
    """All positions are sampled, so the squared error on the same images is what is minimised, but for the ridge."""
    layer, size = LAYERS[name]
    images = image(60, 2, *size, seed=4)
    network = chain(layer, images)
    ranking = random_ranking(network)
    weights = kind(network, ranking, images)
    assert weights.notes == ()

    def error(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(images) - network.model(images)).double().square().mean())

    least = error(weights.build((3,)))
    assert least < 0.9 * error(InheritedWeights(network, ranking).build((3,)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        changed: Any = weights.build((3,))
        with torch.no_grad():
            for parameter in changed[2].parameters():
                parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
        assert error(changed) > least


@pytest.fixture(scope="module")
def module() -> Network:
    return traced("module")


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if name != "module"])
@pytest.mark.parametrize("criterion", ["cap", "lasso", "genetic"])
def test_equal_weights_are_ranked_alike(module: Network, spelling: str, criterion: str) -> None:
    other = traced(spelling)
    assert other.space.full == module.space.full
    one, two = (make_criterion(criterion).rank(net, Examples(IMAGES, fidelity())) for net in (module, other))
    for g, units in enumerate(module.units):
        for n in range(1, len(units)):
            assert one.keep(g, n).tolist() == two.keep(g, n).tolist()


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if name != "module"])
@pytest.mark.parametrize("kind", [CompensatedWeights, ReconstructedWeights])
def test_equal_weights_are_fitted_alike(module: Network, spelling: str, kind: Callable[..., RefittedWeights]) -> None:
    other = traced(spelling)
    structure = (4, 3)
    found = []
    for network in (module, other):
        weights = kind(network, random_ranking(network), IMAGES)
        assert weights.notes == ()
        with torch.no_grad():
            found.append(weights.build(structure).train()(IMAGES))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    inherited = InheritedWeights(module, random_ranking(module)).build(structure).train()
    with torch.no_grad():
        assert float((inherited(IMAGES) - found[1]).abs().max()) > 0.01


def test_weights_that_are_computed_are_ranked_by_but_not_fitted() -> None:
    network = chain(Standardised(6, 3, 3, padding=1), IMAGES)
    (layer,) = network.linear_maps
    assert (layer.weight, layer.is_refitted) == (None, False)
    for kind in (CompensatedWeights, ReconstructedWeights):
        weights: RefittedWeights = kind(network, random_ranking(network), IMAGES)
        assert not weights.refitted
        assert weights.notes[0].startswith("100% of the MACs of what reads channels that may be dropped are of oper")
        built, sliced = weights.build((3,)), weights.inherited.build((3,))
        assert torch.equal(built(IMAGES), sliced(IMAGES))


class Shared(nn.Module):
    """One weight, used at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight = nn.Linear(4, 6), nn.Parameter(torch.zeros(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(F.relu(self.first(x)), self.weight)), self.weight).sum(1)


def test_a_weight_that_is_used_twice_is_not_fitted() -> None:
    network = trace(randomised(Shared()).eval(), image(2, 4))
    assert [layer.weight for layer in network.linear_maps] == [None, None]
    assert len(list(layer_inputs(network, image(50, 4)))) == 2


def test_depthwise_layers_lose_nothing_and_one_that_is_told_its_size_is_told_of() -> None:
    depthwise = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 3, 1))
    network = trace(randomised(depthwise).eval(), IMAGES[:2])
    assert CompensatedWeights(network, random_ranking(network), IMAGES).notes == ()
    enlarging = Enlarging(nn.Conv2d(2, 6, 1), nn.ConvTranspose2d(6, 3, 2), 5, 5)
    network = trace(randomised(enlarging).eval(), IMAGES[:2])
    notes = CompensatedWeights(network, random_ranking(network), IMAGES).notes
    assert len(notes) == 1
    assert "compensated weights do not fit" in notes[0]


def test_reconstructed_weights_of_functions_go_to_another_process(module: Network) -> None:
    network = traced("function")
    weights = ReconstructedWeights(network, random_ranking(network), IMAGES)
    other = pickle.loads(pickle.dumps(weights))
    for name, tensor in weights.build((4, 3)).state_dict().items():
        assert torch.equal(other.build((4, 3)).state_dict()[name], tensor)


def test_a_network_whose_hooks_changed_since_it_was_traced_is_refused() -> None:
    network = traced("module")
    network.model.inner.register_forward_pre_hook(lambda _, inputs: None)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"inner.*trace it again"):
        list(layer_inputs(network, IMAGES))


class Twice(nn.Module):
    """A layer that runs twice, before all others that read what may go."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.twice(F.relu(self.twice(F.relu(self.first(x)))))))


def test_what_runs_twice_is_fitted_to_both_by_compensation_and_not_by_reconstruction() -> None:
    images = image(50, 4)
    network = trace(randomised(Twice()).eval(), images[:2])
    ranking = random_ranking(network)
    compensated, reconstructed, inherited = (
        weights.build((4,)).state_dict()
        for weights in (
            CompensatedWeights(network, ranking, images),
            ReconstructedWeights(network, ranking, images),
            InheritedWeights(network, ranking),
        )
    )
    assert not torch.equal(compensated["twice.weight"], inherited["twice.weight"])
    assert torch.equal(reconstructed["twice.weight"], inherited["twice.weight"])
    assert not torch.equal(reconstructed["last.weight"], inherited["last.weight"])


def test_depthwise_layers_lose_nothing_that_moments_would_say(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 3, 2))
    network = trace(randomised(layers).eval(), IMAGES[:2])
    assert [reader.name for reader in layer_inputs(network, IMAGES)] == ["3"]
    monkeypatch.setattr(gathering, "_BYTES", 1)
    assert [reader.name for reader in layer_inputs(network, IMAGES)] == ["3"]
