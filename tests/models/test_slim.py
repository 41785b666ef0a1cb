"""Slimmed networks: the same class, nothing shared, ready to be trained, and right by hand."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import kept_of_group, kept_units, slim
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights
from prunesearch.models.zoo import make_model
from prunesearch.models.zoo.densenet import densenet
from prunesearch.models.zoo.layers import PadShortcut
from prunesearch.structure import IntArray
from tests.models.networks import (
    SMALL,
    Depthwise,
    Inception,
    Shared,
    SqueezeExcite,
    Tied,
    flat,
    image,
    random_ranking,
    randomised,
    snapshot,
    some_structures,
)
from tests.models_state import generators

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "inception": Inception,
    "squeeze-excite": SqueezeExcite,
    "depthwise": Depthwise,
    "shared": Shared,
    "tied": Tied,
    "flat": flat,
    "resnet8": lambda: make_model("resnet8", image_size=6),
    "densenet10": lambda: densenet(10, growth=4),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return trace(randomised(NETWORKS[request.param]()), SMALL)


def storages(model: nn.Module) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}


@torch.no_grad()
def output(model: nn.Module, x: Tensor = SMALL) -> Tensor:
    return model.eval()(x)


# --- what the result is -----------------------------------------------------------------------------------------------


def test_the_full_structure_is_the_network_itself_bit_for_bit(network: Network) -> None:
    full = slim(network, network.space.full, random_ranking(network))
    assert torch.equal(output(full), output(copy.deepcopy(network.model)))
    assert {name: tensor.tolist() for name, tensor in full.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in network.model.state_dict().items()
    }


def test_a_slimmed_network_has_the_same_classes_names_and_modes(network: Network) -> None:
    network.model.train()
    small = slim(network, network.space.minimum, random_ranking(network))
    assert type(small) is type(network.model)
    assert [(name, type(module), module.training) for name, module in small.named_modules()] == [
        (name, type(module), module.training) for name, module in network.model.named_modules()
    ]
    assert list(small.state_dict()) == list(network.model.state_dict())
    assert sum(parameter.numel() for parameter in small.parameters()) < sum(
        parameter.numel() for parameter in network.model.parameters()
    )


def test_parameters_that_do_not_learn_still_do_not_after_slimming() -> None:
    model = Inception()
    for parameter in model.a.parameters():
        parameter.requires_grad_(False)
    network = trace(model, SMALL)
    small = slim(network, network.space.minimum, random_ranking(network))
    assert [name for name, parameter in small.named_parameters() if not parameter.requires_grad] == [
        "a.weight",
        "a.bias",
    ]


def test_a_slimmed_network_shares_no_storage_with_the_original_or_with_another(network: Network) -> None:
    for structure in (network.space.full, network.space.minimum):
        one, two = (slim(network, structure, random_ranking(network)) for _ in range(2))
        assert not storages(one) & storages(network.model)
        assert not storages(one) & storages(two)


def test_slimming_and_training_the_result_leave_the_callers_model_untouched(network: Network) -> None:
    before, state = snapshot(network.model), generators()
    small = slim(network, network.space.minimum, random_ranking(network))
    assert generators() == state
    optimiser = torch.optim.SGD(small.train().parameters(), lr=0.1)
    small(SMALL).square().sum().backward()
    optimiser.step()
    assert snapshot(network.model) == before


def test_a_slimmed_network_learns(network: Network) -> None:
    small = slim(network, network.space.minimum, random_ranking(network)).train()
    optimiser = torch.optim.SGD(small.parameters(), lr=1e-4)
    before = copy.deepcopy(small.state_dict())
    loss = small(SMALL).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    optimiser.step()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    assert small(SMALL).square().sum() < loss


def test_a_slimmed_network_round_trips_through_its_state_dict_and_deepcopy(network: Network) -> None:
    structure = some_structures(network)[1]
    small = slim(network, structure, random_ranking(network))
    twin = randomised(slim(network, structure, random_ranking(network)), seed=7)
    assert not torch.equal(output(twin), output(small))
    stream = io.BytesIO()
    torch.save(small.state_dict(), stream)
    stream.seek(0)
    assert str(twin.load_state_dict(torch.load(stream, weights_only=True))) == "<All keys matched successfully>"
    assert torch.equal(output(twin), output(small))
    assert torch.equal(output(copy.deepcopy(small)), output(small))


def test_a_slimmed_network_prints_its_new_widths(network: Network) -> None:
    small = slim(network, network.space.minimum, random_ranking(network))
    assert any(isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) for module in small.modules())
    for name, module in small.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            out, inner = module.weight.shape[:2]
            groups = getattr(module, "groups", 1)
            declared = (
                (module.out_channels, module.in_channels)
                if isinstance(module, nn.Conv2d)
                else (module.out_features, module.in_features)
            )
            assert declared == (out, inner * groups), name
        elif isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.weight) == len(module.running_mean)


def test_inherited_weights_are_the_slimmed_network(network: Network) -> None:
    source = InheritedWeights(network, random_ranking(network))
    structure = network.space.minimum
    assert torch.equal(output(source.build(structure)), output(slim(network, structure, source.ranking)))


# --- right by hand ----------------------------------------------------------------------------------------------------


@dataclass
class Keep:
    """A ranking that keeps the given units of every group."""

    chosen: tuple[tuple[int, ...], ...]

    def keep(self, group: int, units: int) -> IntArray:
        return np.array(self.chosen[group])


def test_a_chain_is_sliced_as_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Flatten(), nn.Linear(80, 2)
    )
    network = trace(randomised(model).eval(), SMALL)
    a, b = [0, 3, 5], [1, 4]
    conv1, norm, _, conv2, _, fc = model
    h = F.conv2d(SMALL, conv1.weight[a], conv1.bias[a], padding=1)
    h = F.batch_norm(h, norm.running_mean[a], norm.running_var[a], norm.weight[a], norm.bias[a])
    h = F.conv2d(h.relu(), conv2.weight[b][:, a], conv2.bias[b]).flatten(1)
    expected = F.linear(h, fc.weight.reshape(2, 5, 16)[:, b].flatten(1), fc.bias)
    small = slim(network, (3, 2), Keep((tuple(a), tuple(b))))
    torch.testing.assert_close(output(small), expected.detach())


def test_a_residual_stream_with_a_padded_shortcut_is_sliced_as_by_hand() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
            self.shortcut, self.fc = PadShortcut(4, 8, 2), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.fc((self.conv(x) + self.shortcut(x)).relu().mean((2, 3)))

    model = randomised(Net())
    network = trace(model, SMALL, min_channels=1)
    assert [(group.name, group.width) for group in network.space.groups] == [("stem", 4), ("conv", 4)]
    a = [1, 3]  # of the stem, which are channels 2 + 1 and 2 + 3 of the sum
    b = [0, 3, 5, 7]  # of the sum: of the channels 0, 1, 6 and 7, which the shortcut pads, the first and the last stay
    stem = F.conv2d(SMALL, model.stem.weight[a], model.stem.bias[a], padding=1)
    branch = F.conv2d(stem, model.conv.weight[b][:, a], model.conv.bias[b], stride=2, padding=1)
    zero = torch.zeros(2, 1, 3, 3)
    total = branch + torch.cat([zero, stem[:, :, ::2, ::2], zero], 1)
    expected = F.linear(total.relu().mean((2, 3)), model.fc.weight[:, b], model.fc.bias)
    small = slim(network, (2, 2), Keep(((1, 3), (0, 3))))
    torch.testing.assert_close(output(small), expected.detach())
    assert (small.shortcut.before, small.shortcut.after) == (1, 1)


def test_a_grouped_convolution_is_sliced_as_by_hand() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1, groups=2), nn.Flatten(), nn.Linear(144, 2)))
    network = trace(model, SMALL, min_channels=1)
    assert [(group.width, group.unit) for group in network.space.groups] == [(8, 2), (4, 2)]
    conv1, conv2, _, fc = model
    a, b = [1, 2, 5, 6], [1, 3]  # channels 1 and 2 of each group of four, channel 1 of each group of two
    h = F.conv2d(SMALL, conv1.weight[a], conv1.bias[a])
    h = F.conv2d(h, conv2.weight[b][:, [1, 2]], conv2.bias[b], groups=2).flatten(1)
    expected = F.linear(h, fc.weight.reshape(2, 4, 36)[:, b].flatten(1), fc.bias)
    torch.testing.assert_close(output(slim(network, (4, 2), Keep(((1, 2), (1,))))), expected.detach())


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ((6,), r"Expected one width per group \(2\), got 1"),
        ((6, 5, 5), "got 3"),
        ((0, 5), "'0' allows the widths .* got 0"),
        ((7, 5), "got 7"),
        ((-1, 5), "got -1"),
    ],
)
def test_structures_of_another_space_are_refused(structure: tuple[int, ...], message: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    network = trace(model, image(2, 4))
    with pytest.raises(ValueError, match=message):
        slim(network, structure, random_ranking(network))


@pytest.mark.parametrize(
    ("chosen", "got"),
    [((0, 1, 2), r"\[0 1 2\]"), ((4,), r"\[4\]"), ((2, 2), r"\[2\]"), ((1, 6), r"\[1 6\]"), ((-1, 0), r"\[-1  0\]")],
)
def test_a_ranking_that_keeps_something_else_than_asked_is_refused(chosen: tuple[int, ...], got: str) -> None:
    network = trace(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), image(2, 4))
    with pytest.raises(ValueError, match=f"keeps 2 of the 6 units of group '0', got {got}"):
        slim(network, (2,), Keep((chosen,)))


def test_which_units_of_one_group_stay_is_what_the_whole_structure_says() -> None:
    """Of a ranking in one order, and of one that says nothing but what it keeps."""
    network = trace(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), image(2, 4))
    nested, full = random_ranking(network), network.space.full
    for index, group in enumerate(network.space.groups):
        for width in group.widths:
            structure = (*full[:index], width, *full[index + 1 :])
            kept = kept_of_group(network, index, width, nested)
            assert np.array_equal(kept, kept_units(network, structure, nested)[network.units[index]])
            assert np.flatnonzero(kept).tolist() == sorted(nested.orders[index][:width])
            other = Keep(tuple(tuple(np.flatnonzero(kept)) for _ in full))
            assert np.array_equal(kept, kept_of_group(network, index, width, other))


def test_an_order_without_every_unit_still_says_what_it_can() -> None:
    assert NestedRanking(((4, 1),)).keep(0, 2).tolist() == [1, 4]


def test_a_nested_ranking_keeps_the_most_important_and_breaks_ties_by_index() -> None:
    ranking = NestedRanking.by_importance([np.array([0.5, 2.0, 0.5, -1.0, 2.0])])
    assert [ranking.keep(0, units).tolist() for units in range(1, 6)] == [
        [1], [1, 4], [0, 1, 4], [0, 1, 2, 4], [0, 1, 2, 3, 4],
    ]  # fmt: skip
