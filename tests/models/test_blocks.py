"""Blocks of a network: together they compute what the network computes, at any width."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.models.blocks import BlockedNetwork
from prunesearch.models.peak_memory import measured_peak_bytes, predicted_peak_bytes
from tests.models_state import generators, state_of

NETWORKS = {"resnet8": (1, 3, 16, 16), "vgg11": (1, 3, 32, 32)}


class Concatenating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        joined = torch.cat([a, self.b(a)], dim=1)
        return self.head(self.c(joined).mean((2, 3)))


class Anchored(nn.Module):
    """Keeps what it makes in its first run, from values that a tensor without data does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.stride, self.anchors, self.shape = torch.tensor(8.0), torch.zeros(0), torch.Size()

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu())
        if self.shape != x.shape[2:]:
            self.anchors, self.shape = x.new_full(x.shape[2:], self.stride.item()), x.shape[2:]
        return x * self.anchors


def traced(name: str) -> ps.Network:
    return ps.trace(
        ps.make_model(name, num_classes=5, image_size=NETWORKS[name][2]).eval(), torch.randn(NETWORKS[name])
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_hold_every_layer_once_and_run_at_any_width(name: str) -> None:
    network = traced(name)
    blocked = BlockedNetwork(network)
    nodes = [node for block in blocked.blocks for node in block.nodes]
    assert len(nodes) == len(set(nodes))
    places = [block.place for block in blocked.blocks]
    layers = [term.layer for term in network.space.macs_terms]
    assert [place for place in places if place in layers] == layers
    structure = tuple(network.space.sample(np.random.default_rng(0), 1)[0].tolist())
    macs = {}
    for block in blocked.blocks:
        module, inputs = blocked.build(block, structure)
        macs[block.place] = ps.count(module, inputs).macs
    assert macs == {**dict.fromkeys(macs, 0), **network.space.layer_macs(structure)}


@pytest.mark.parametrize("name", ["resnet8", pytest.param("vgg11", marks=pytest.mark.slow)])
def test_what_a_block_takes_depends_on_its_axes_alone(name: str) -> None:
    network = traced(name)
    blocked = BlockedNetwork(network)
    rng = np.random.default_rng(1)
    assert blocked.blocks
    for block in blocked.blocks:
        assert len(block.axes) <= 2
        own = {g for axis in block.axes for g, _ in axis.terms}
        one, other = network.space.sample(rng, 2).tolist()
        other = [one[g] if g in own else width for g, width in enumerate(other)]
        shapes = [
            [tuple(x.shape) for x in (*inputs, *module.parameters())]
            for module, inputs in (blocked.build(block, tuple(s)) for s in (one, other))
        ]
        assert shapes[0] == shapes[1]


def test_widths_that_are_joined_count_as_one() -> None:
    network = ps.trace(Concatenating(), torch.randn(1, 3, 8, 8))
    blocks = {block.place: block for block in BlockedNetwork(network).blocks}
    a, b, c = (next(i for i, g in enumerate(network.space.groups) if g.name == name) for name in "abc")
    assert [axis.terms for axis in blocks["c"].axes] == [((c, 1),), ((a, 1), (b, 1))]


def test_the_same_work_in_two_places_is_described_alike() -> None:
    blocks = BlockedNetwork(traced("resnet8")).blocks
    convolutions = [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()] * 3
    chain = ps.trace(nn.Sequential(nn.Conv2d(3, 16, 1), *convolutions, nn.Conv2d(16, 4, 1)), torch.randn(1, 3, 8, 8))
    assert len({block.computes for block in blocks}) > 4
    assert len({block.computes for block in BlockedNetwork(chain).blocks}) == 3


def test_model_and_random_generators_are_left_alone() -> None:
    network = traced("resnet8")
    before = state_of(network.model), generators()
    blocked = BlockedNetwork(network)
    blocked.build(blocked.blocks[1], network.space.minimum)
    assert (state_of(network.model), generators()) == before


def test_peak_memory_of_a_chain_is_the_two_largest_neighbours() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1, bias=False), nn.Conv2d(8, 16, 1, bias=False)).eval()
    x = torch.randn(1, 4, 8, 8)
    weights = 4 * (4 * 8 + 8 * 16)
    predicted = predicted_peak_bytes(
        nn.Sequential(*(nn.Conv2d(m.in_channels, m.out_channels, 1, bias=False) for m in model)).eval(), (x,)
    )
    assert predicted == weights + 4 * 64 * (8 + 16)
    assert predicted <= measured_peak_bytes(model, (x,)) <= weights + 4 * 64 * (4 + 8 + 16)


def test_what_a_first_run_makes_from_values_and_keeps_is_there_without_data() -> None:
    model = Anchored()
    network = ps.trace(model, torch.randn(2, 3, 16, 16))
    places = [block.place for block in BlockedNetwork(network).blocks]
    assert all(any(term.layer in place for place in places) for term in network.space.macs_terms)
    (limit,) = (limit for _, limit in ps.Budget(peak_memory="90%").check(network).limits)
    assert limit < predicted_peak_bytes(network.model, network.inputs)
    assert model.shape == torch.Size()
