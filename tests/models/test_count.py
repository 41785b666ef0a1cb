"""Counting by hooks: closed forms, torch's own counter, and a model left as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunesearch.models.count import count
from prunesearch.models.trace import trace
from prunesearch.models.zoo import make_model
from prunesearch.structure import Cost
from tests.models.networks import (
    SMALL,
    Depthwise,
    Inception,
    Shared,
    SqueezeExcite,
    Tied,
    Tokens,
    TwoInputs,
    image,
    randomised,
    snapshot,
)
from tests.models_state import generators


@pytest.mark.parametrize(
    ("layer", "shape", "macs", "params"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 6, 6), 9 * 3 * 8 * 36, 9 * 3 * 8 + 8),
        (nn.Conv2d(4, 8, (3, 1), stride=2, groups=2, bias=False), (4, 7, 7), 3 * 2 * 8 * 3 * 4, 3 * 2 * 8),
        (nn.Conv2d(8, 16, 3, groups=8), (8, 5, 5), 9 * 1 * 16 * 9, 9 * 16 + 16),
        (nn.Conv1d(2, 4, 3, dilation=2), (2, 9), 3 * 2 * 4 * 5, 3 * 2 * 4 + 4),
        (nn.Conv3d(2, 4, 2), (2, 3, 3, 3), 8 * 2 * 4 * 8, 8 * 2 * 4 + 4),
        (nn.Linear(5, 7), (5,), 5 * 7, 5 * 7 + 7),
        (nn.Linear(5, 7, bias=False), (3, 2, 5), 6 * 5 * 7, 5 * 7),
        (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (4, 3, 3), 9 * 4 * 3 * 4, 4 * 3 * 4 + 6),
        (nn.BatchNorm2d(4), (4, 3, 3), 0, 8),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), (4, 4, 4), 0, 0),
    ],
)
def test_single_layers_cost_their_closed_form(layer: nn.Module, shape: tuple[int, ...], macs: int, params: int) -> None:
    assert count(layer, image(2, *shape)) == Cost(macs=macs, params=params)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "inception": Inception,
    "squeeze-excite": SqueezeExcite,
    "depthwise": Depthwise,
    "shared": Shared,
    "tied": Tied,
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2), nn.ConvTranspose2d(4, 2, 1)),
    **{name: lambda name=name: make_model(name, image_size=6) for name in ("resnet8b", "mobilenet_v2", "mlp")},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_are_half_the_flops_that_torch_counts(name: str) -> None:
    model = NETWORKS[name]().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(SMALL)
    assert 2 * count(model, SMALL).macs * len(SMALL) == counter.get_total_flops()


def test_several_inputs_and_three_dimensions_are_counted_like_torch_does() -> None:
    for model, inputs in ((TwoInputs(), (SMALL, image(2, 5))), (Tokens(), (image(2, 7, 6),))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(*inputs)
        assert 2 * count(model, inputs).macs * 2 == counter.get_total_flops()


@pytest.mark.parametrize("n", [1, 3])
def test_macs_are_of_one_image(n: int) -> None:
    assert count(Inception(), image(n, 3, 6, 6)) == count(Inception(), SMALL)


def test_shared_layers_count_each_time_they_run_and_shared_parameters_once() -> None:
    layer = nn.Linear(4, 4)
    assert count(nn.Sequential(layer, layer, layer), image(2, 4)) == Cost(macs=48, params=20)


def test_layers_that_do_not_run_count_as_parameters_only() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    model[0].spare = nn.Linear(9, 9)
    assert count(model, image(2, 4)) == Cost(macs=8, params=10 + 90)


def test_layers_called_by_keyword_are_counted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(input=self.a(input=x))

    assert count(Net(), SMALL).macs == 36 * (3 * 4 + 4 * 2)


class Draws(nn.Sequential):
    """Random in eval mode, writes to its input, and may fail."""

    fails = False

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(nn.functional.dropout(x.mul_(2)))
        if self.fails:
            raise RuntimeError("on purpose")
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_counting_leaves_the_model_its_input_and_the_generators_as_they_were(fails: bool) -> None:
    model = randomised(Draws(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Sequential(nn.Conv2d(4, 2, 1))))
    model.train()
    model[1].eval()
    model(SMALL.clone()).sum().backward()
    model[0].register_forward_hook(lambda module, inputs, output: None)
    model.fails, inputs = fails, SMALL.clone()
    before, state = snapshot(model), generators()
    if fails:
        with pytest.raises(ValueError, match="on purpose"):
            count(model, inputs)
    else:
        count(model, inputs)
    assert snapshot(model) == before
    assert generators() == state
    assert torch.equal(inputs, SMALL)


class Table(nn.Module):
    """A layer that works on a table of 9 positions, the same for every image of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(0, 1, 9).view(9, 1))
        self.bias = nn.Sequential(nn.Linear(1, 6), nn.ReLU(), nn.Linear(6, 4))
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).flatten(2).mean(2) + self.bias(self.table).mean(0)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_layer_that_does_not_work_on_the_batch_counts_whole(n: int) -> None:
    images = torch.randn(n, 3, 2, 2)
    assert count(Table(), images).macs == 9 * (6 + 6 * 4) + 4 * 3 * 4
    network = trace(Table(), images)
    assert network.space.cost(network.space.full) == count(Table(), images)
    assert network.verify().costs_exact


def test_inputs_that_the_network_does_not_take_are_told_with_what_to_do() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    says = r"Sequential cannot run on images of shape \(2, 6, 6, 3\) .* give \(n, channels, height, width\)"
    with pytest.raises(ValueError, match=says):
        count(model, torch.zeros(2, 6, 6, 3))
    with pytest.raises(ValueError, match=r"Sequential cannot run on inputs of .*\(2, 3, 6, 6\)"):
        count(model, (SMALL, SMALL))
