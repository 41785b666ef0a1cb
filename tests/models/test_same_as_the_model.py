"""What is traced is the model: branches, modes, wrappers and costs are those of the code that runs."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import prunesearch as ps
from prunesearch.errors import TraceError
from tests.models.networks import SMALL, Middle, image, names, proven, random_ranking

IMAGES = image(2, 3, 8, 8)


class Two(nn.Module):
    """Two stems that may meet, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)


class Asks(Two):
    def forward(self, x: Tensor) -> Tensor:
        a, skip = self.a(x), self.b(x)
        return self.f(a + skip if isinstance(skip, Tensor) else a)


class OtherOperands(Two):
    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return self.f(a * (b if self.training else a).sigmoid())


class AtRandom(Two):
    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return self.f(a + b if self.training and random.random() < 0.5 else a * 1.0)


@pytest.mark.parametrize("kind", [Asks, OtherOperands, AtRandom])
def test_streams_that_meet_in_a_branch_or_in_training_only_are_tied(kind: type[nn.Module]) -> None:
    network = proven(kind(), IMAGES)
    assert names(network) == ["a"]
    assert {"a", "b"} <= set(network.space.groups[0].members)


@pytest.mark.parametrize("state", [1, 2, 3])
def test_the_space_does_not_depend_on_where_global_generators_are(state: int) -> None:
    spaces = set()
    for seed in (state, 100 + state):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        model = AtRandom()
        spaces.add(ps.trace(model, IMAGES).space.fingerprint)
    assert len(spaces) == 1


def test_a_block_that_takes_a_tensor_or_a_tuple_is_followed_as_it_is_called() -> None:
    class Block(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.a = nn.Conv2d(inputs, 12, 1)

        def forward(self, x: Any) -> Any:
            y = self.a(torch.cat(x, 1) if isinstance(x, tuple) else x)
            return y[:, :8], y[:, 8:]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b1, self.b2, self.f = Block(3), Block(12), nn.Conv2d(12, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.f(torch.cat(self.b2(self.b1(x)), 1))

    network = proven(Net(), IMAGES)
    assert {name.partition("#")[0] for name in names(network)} == {"b1.a", "b2.a"}


class LowRank(nn.Conv2d):
    """A convolution by its class, two of them by what it does."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.u, self.v = nn.Conv2d(inputs, 2, 3, padding=1), nn.Conv2d(2, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.v(self.u(x))


class Same(nn.Conv2d):
    """Pads by itself, as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Direct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.forward(x)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.randn(8, 8, 3, 3)), nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, self.shift, padding=1)


class Attending(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return (torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens).transpose(1, 2).view_as(x)


MIDDLES = {
    "a subclass that does something else": lambda: LowRank(8, 8),
    "a subclass that pads": lambda: Same(8, 8, 3),
    "a depthwise subclass that pads": lambda: Same(8, 8, 3, groups=8),
    "a layer whose forward is called": Direct,
    "a function with parameters": Functional,
    "products of features": Attending,
}


@pytest.mark.parametrize("name", MIDDLES)
def test_costs_are_what_torchs_counter_sees_however_a_layer_is_called(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), MIDDLES[name](), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    network = proven(model, IMAGES)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(IMAGES)
    assert network.space.cost(network.space.full).macs * 2 * len(IMAGES) == counter.get_total_flops()
    assert network.space.cost(network.space.full) == ps.count(model, IMAGES)
    assert "0" in names(network)


class Sized(nn.Module):
    """Turns the number of images into a plain number in its own way."""

    def __init__(self, size: Any) -> None:
        super().__init__()
        self.size, self.a, self.f = size, nn.Conv2d(3, 8, 1), nn.Linear(8 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.a(x).reshape(self.size(x), -1))


@pytest.mark.parametrize("size", [len, lambda x: int(x.shape[0]), lambda x: int(x.numel() / x[0].numel())])
def test_a_number_of_images_that_became_a_plain_number_follows_other_batches(size: Any) -> None:
    network = proven(Sized(size), IMAGES)
    assert names(network) == ["a"]
    data = ps.Data(train=(image(32, 3, 8, 8), torch.arange(32) % 4))
    found = ps.search(network, data, budget=ps.Budget(macs="60%"), n_trials=2, searcher="random")
    assert len(found.trials) == 2


def test_a_network_that_does_something_else_each_time_is_refused() -> None:
    calls: list[None] = []

    class Changing(Two):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(None)
            return self.f(self.a(x)) * len(calls)

    with pytest.raises(TraceError, match="on what earlier runs left"):
        ps.trace(Changing().eval(), IMAGES)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_child_that_is_a_torchscript_program_is_kept_whole() -> None:
    script = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()))
    network = proven(nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 1), script, nn.Conv2d(8, 4, 1)), IMAGES)
    assert names(network) == ["0"]
    assert network.leaves == {
        "2": "is a TorchScript program",
        "2.0": "is a TorchScript program",
        "2.1": "is a TorchScript program",
    }


class Constants(nn.Module):
    """Tensors that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU())
        self.scale, self.f = torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1), nn.Linear(24, 4)

    def forward(self, x: Tensor, *rest: Tensor, mask: Tensor | None = None, **more: Tensor) -> Tensor:
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / self.scale
        h = self.body(x).mean((2, 3))
        return self.f(h if mask is None else h * mask)


@pytest.mark.parametrize("source", ["inherited", "compensated", "reconstructed"])
def test_constants_and_arguments_left_out_are_searched_and_refitted(source: str) -> None:
    network = proven(Constants(), IMAGES)
    data = ps.Data(train=(image(48, 3, 8, 8), torch.arange(48) % 4))
    found = ps.search(
        network,
        data,
        budget=ps.Budget(macs="50%"),
        n_trials=3,
        searcher="random",
        scoring=ps.Scoring(weight_source=source),
    )
    small = ps.finetune(found.best.build(), data, recipe=ps.Recipe(epochs=1, batch_size=16))
    assert small(IMAGES).shape == (2, 4)
    assert ps.export_program(small, IMAGES).module()(IMAGES).shape == (2, 4)


def test_inputs_by_name_in_dictionaries_and_lists_are_traced_verified_and_counted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.f = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, batch: dict[str, Tensor], *, second: list[Tensor]) -> dict[str, Tensor]:
            return {"out": self.f(self.a(batch["image"]) + self.b(second[0]))}

    network = proven(Net(), {"batch": {"image": IMAGES}, "second": [IMAGES]})
    assert names(network) == ["a"]
    assert network.space.cost(network.space.full).macs == 64 * (24 + 24 + 32)


class Modes(Middle):
    """Adds one constant in training, another one in use."""

    def __init__(self, operation: Any) -> None:
        super().__init__(operation)
        self.training_offset, self.offset = torch.linspace(0, 1, 8).view(8, 1, 1), torch.zeros(1, 1, 1)
        self.listed = [self.training_offset.clone(), self.offset]


def test_constants_that_differ_between_the_modes_are_seen_in_both() -> None:
    network = proven(Modes(lambda net, h, x: h + net.listed[not net.training]), SMALL)
    assert "combines it with something whose size stays" in network.frozen["conv1"]


def test_a_plain_tensor_of_training_alone_is_narrowed_too() -> None:
    network = proven(Modes(lambda net, h, x: h + (net.training_offset if net.training else net.offset)), SMALL)
    assert "conv1" not in network.frozen
    small: Any = ps.slim(network, network.space.minimum, random_ranking(network))
    assert small.training_offset.shape == (1, 1, 1)


def test_a_network_whose_training_would_fail_with_fewer_channels_is_refused() -> None:
    def operation(net: Any, h: Tensor, x: Tensor) -> Tensor:
        if net.training and math.gcd(h.size(1), 8) != 8:
            raise RuntimeError("of no use")
        return h

    with pytest.raises(TraceError, match="by a share of inf in training mode"):
        ps.trace(Middle(operation), SMALL, min_channels=1)


def test_a_layer_over_positions_is_counted_where_sizes_without_channels_are_equal() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix, self.head = nn.Linear(3, 8), nn.Linear(6, 6), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.embed(x)
            return self.head(h + self.mix(h.transpose(1, 2)).transpose(1, 2))

    network = proven(Mixer(), image(2, 6, 3))
    assert names(network) == ["embed"]
    assert network.space.cost(network.space.full).macs == 6 * 3 * 8 + 8 * 6 * 6 + 6 * 8 * 4
