"""Numbers of channels in the code of a forward follow the channels, without a change to anybody's code."""

from __future__ import annotations

import copy
import gc
import linecache
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.models.network import Network
from tests.models.networks import SMALL, Middle, image, names, proven, random_ranking
from tests.models_state import state_of


class LambdaLayer(nn.Module):
    """As in the common public code of the CIFAR ResNets."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = outputs // inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if stride > 1:
            self.shortcut = LambdaLayer(
                lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, outputs // 4, outputs // 4), "constant", 0)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return F.relu(out)


class OptionA(nn.Module):
    """The original CIFAR ResNet, its shortcuts lambdas that pad, its classifier fed by a literal view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.layers = nn.Sequential(Block(8, 8), Block(8, 16), Block(16, 32), Block(32, 32))
        self.linear = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.avg_pool2d(out, 4).view(-1, 32))


class Mnist(nn.Module):
    """The network of PyTorch's MNIST example, in which training differs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.drop = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5), nn.Dropout2d()
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


def cifar() -> Network:
    torch.manual_seed(0)
    return proven(OptionA(), image(2, 3, 16, 16))


def smallest(network: Network) -> nn.Module:
    return ps.slim(network, network.space.minimum, random_ranking(network)).eval()


def test_the_residual_stream_of_the_original_cifar_resnet_is_pruned_through_its_padding() -> None:
    network = cifar()
    assert list(network.frozen) == ["linear"]
    assert names(network)[:1] == ["conv1"]
    least = network.space.cost(network.space.minimum)
    assert least.macs < 0.03 * network.space.cost(network.space.full).macs


def test_a_rewritten_network_is_an_instance_of_the_callers_class_and_the_caller_keeps_his() -> None:
    network = cifar()
    before, shortcut = state_of(network.model), network.model.layers[1].shortcut
    slimmed = smallest(network)
    assert isinstance(slimmed, OptionA)
    assert isinstance(slimmed.layers[1].shortcut, LambdaLayer)
    assert type(network.model) is OptionA
    assert type(shortcut) is LambdaLayer
    assert state_of(network.model) == before
    assert list(slimmed.state_dict()) == list(network.model.state_dict())


def test_only_the_modules_that_hold_a_literal_are_rewritten() -> None:
    slimmed = smallest(cifar())
    rewritten = {
        name
        for name, module in slimmed.named_modules()
        if isinstance(module, (OptionA, Block, LambdaLayer)) and type(module) not in (OptionA, Block, LambdaLayer)
    }
    assert rewritten == {"", "layers.1.shortcut", "layers.2.shortcut"}


def test_training_and_evaluation_keep_their_differences() -> None:
    torch.manual_seed(0)
    images = image(4, 1, 28, 28)
    network = proven(Mnist(), images)
    slimmed = smallest(network)
    assert names(network) == ["conv1", "conv2", "fc1"]
    assert torch.equal(slimmed(images), slimmed(images))
    slimmed.train()
    assert not torch.equal(slimmed(images), slimmed(images))  # dropout is at work again


@pytest.mark.parametrize(
    "make", [pytest.param(cifar, marks=pytest.mark.slow), lambda: proven(Mnist(), image(4, 1, 28, 28))]
)
def test_a_rewritten_network_copies_compiles_exports_and_traces(make: Callable[[], Network]) -> None:
    network = make()
    slimmed, images = smallest(network), network.example_inputs[0]
    with torch.no_grad():
        expected = slimmed(images)
        assert torch.equal(copy.deepcopy(slimmed)(images), expected)
        assert torch.equal(torch.compile(slimmed, backend="eager")(images), expected)
        torch.testing.assert_close(ps.export_program(slimmed, images).module()(images), expected)
    again = ps.trace(slimmed, images, min_channels=1)
    assert again.verify(3).largest_difference <= 1e-5


@pytest.mark.parametrize("make", [OptionA, Mnist])
def test_a_rewritten_network_is_saved_and_loaded_into_a_fresh_instance(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    images = image(2, 3, 16, 16) if make is OptionA else image(2, 1, 28, 28)
    slimmed, path = smallest(ps.trace(make(), images)), tmp_path / "small.safetensors"
    ps.save(slimmed, path)
    loaded = ps.load(path, make().eval())
    with torch.no_grad():
        assert torch.equal(loaded(images), slimmed(images))
    ps.save(loaded, path)  # nothing is lost on the way
    with torch.no_grad():
        assert torch.equal(ps.load(path, make().eval())(images), slimmed(images))


def test_a_literal_of_a_forward_that_differs_in_training_freezes_what_it_counts() -> None:
    def forward(net: Any, h: Tensor, x: Tensor) -> Tensor:
        return h[:, :4] if not net.training else h[:, 4:]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 6, 1), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv2(forward(self, self.conv1(x), x)).mean((2, 3)))

    network = proven(Net(), SMALL)
    assert names(network) == ["conv2"]
    assert "function 'getitem'" in network.frozen["conv1"]


def test_a_module_called_twice_has_one_number_for_both() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :4]  # what is beyond is read by nobody

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.front = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), Half()
            self.c, self.d, self.fc = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((self.c(self.front(self.a(x))) + self.d(self.front(self.b(x)))).mean((2, 3)))

    network = proven(Net(), SMALL)
    assert network.space.groups[0].members == ("a", "c", "b", "d")  # their first halves have one width


LITERALS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "view": lambda net, h, x: h + net.op(h.view(-1, 288)).mean(),
    "view of a size": lambda net, h, x: h + net.op(h.view((h.size(0), 8 * 36))).mean(),
    "reshape by keyword": lambda net, h, x: h + net.op(torch.reshape(h, shape=(-1, 288))).mean(),
    "split into equal parts": lambda net, h, x: torch.cat(torch.split(h, 4, 1), dim=1),
    "split by keywords": lambda net, h, x: torch.cat(h.split(split_size=[3, 5], dim=1), 1),
    "first channels": lambda net, h, x: torch.cat([h[:, :3], h[:, 3:].exp()], 1),
    "a slice beyond the end": lambda net, h, x: h[:, :100],
    "a slice of all": lambda net, h, x: h[:, :8],
    "padding by keyword": lambda net, h, x: F.pad(h, pad=(0, 0, 0, 0, 2, 1))[:, :8],
}


@pytest.mark.parametrize("name", LITERALS)
def test_a_literal_number_of_channels_in_any_notation_is_followed(name: str) -> None:
    network = proven(Middle(LITERALS[name], op=nn.Linear(288, 2)), SMALL)
    assert "conv1" in names(network)


def test_a_literal_in_a_call_of_several_lines_is_followed() -> None:
    # fmt: off
    def operation(net: Any, h: Tensor, x: Tensor) -> Tensor:
        h = (
            h
            .flatten(2)
            .view(
                -1, 8,  # é: columns are counted in bytes
                6,
                6,
            )
        )
        return F.pad(
            h[:, :4],
            (0, 0,
             0, 0,
             0, 4),
        )
    # fmt: on

    network = proven(Middle(operation), SMALL)
    assert list(network.frozen) == ["fc"]


def eight(t: Tensor) -> Tensor:
    return t.view(-1, 8, 6, 6)


def test_a_network_that_holds_a_function_by_name_is_pickled_and_the_function_is_the_callers() -> None:
    network = proven(Middle(identity, held=LambdaLayer(eight)), SMALL)
    slimmed = smallest(network)
    assert network.model.held.function is eight
    loaded = pickle.loads(pickle.dumps(slimmed))
    assert type(loaded.held) is type(slimmed.held)
    with torch.no_grad():
        assert torch.equal(loaded(SMALL), slimmed(SMALL))
        assert torch.equal(copy.deepcopy(loaded)(SMALL), slimmed(SMALL))


def identity(net: Any, h: Tensor, x: Tensor) -> Tensor:
    return net.held(h.flatten(2))


def test_a_held_function_beneath_a_decorator_is_left_alone() -> None:
    network = proven(Middle(identity, held=LambdaLayer(torch.no_grad()(eight))), SMALL)
    assert network.frozen["conv1"].startswith("method 'view'")


REGISTERED: dict[str, type] = {}


class Registered(nn.Module):
    """Remembers every class that is derived from it by its name."""

    def __init_subclass__(cls) -> None:
        REGISTERED[cls.__name__] = cls


class Choosing(Registered):
    """Takes a method from itself once and for all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Linear(6, 2)
        self.run = self._run

    def _run(self, x: Tensor) -> Tensor:
        return self.conv1(x).flatten(2).view(-1, 8, 6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.run(x)).mean((2, 3)))


def test_a_class_is_derived_without_a_word_to_those_who_register_classes() -> None:
    slimmed = smallest(proven(Choosing(), SMALL))
    assert type(slimmed) is not Choosing
    assert isinstance(slimmed, Choosing)
    assert REGISTERED["Choosing"] is Choosing


def test_a_method_that_a_module_took_from_itself_is_the_one_with_the_other_number() -> None:
    slimmed = smallest(proven(Choosing(), SMALL))
    for model in (slimmed, copy.deepcopy(slimmed), pickle.loads(pickle.dumps(slimmed))):
        assert model.run.__self__ is model
        with torch.no_grad():
            assert torch.equal(model(SMALL), slimmed(SMALL))


@pytest.mark.slow
def test_sources_are_readable_as_long_as_a_network_has_them_and_classes_of_callers_are_let_go() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).relu().mean((2, 3)).view(-1, 6))

    def readable() -> set[str]:
        for _ in range(3):  # what a derived class had goes first
            gc.collect()
        return {name for name in linecache.cache if "narrowed" in name}

    kind, before = weakref.ref(Flat), readable()
    network = ps.trace(Flat(), SMALL)
    ranking = random_ranking(network)
    small = [ps.slim(network, (width,), ranking) for width in (2, 3, 4)]
    twin = ps.slim(network, (2,), ranking)
    assert type(twin) is type(small[0])
    assert len(readable() - before) == 3
    del small
    (name,) = readable() - before
    assert "view(-1, 2)" in "".join(linecache.getlines(name))
    assert twin(SMALL).shape == (2, 5)
    del twin, network, ranking, Flat
    assert readable() == before
    assert kind() is None
