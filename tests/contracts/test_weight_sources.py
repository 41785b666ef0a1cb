"""What every registered weight source promises. A new one inherits it by being listed in `WEIGHT_SOURCES`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunesearch.budget import Budget
from prunesearch.evaluators import WEIGHT_SOURCES, make_weights
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.models.count import count
from prunesearch.models.hypernet import PruningNet
from prunesearch.models.hypernet_file import save_pruningnet
from prunesearch.models.network import Network
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled
from tests.models_state import generators, state_of

pytestmark = pytest.mark.parametrize("name", sorted(WEIGHT_SOURCES))


@pytest.fixture
def source(name: str, network: Network, tmp_path: Path) -> str:
    """What `search` calls it: with the file of a PruningNet, if it is one."""
    if name != "generated":
        return name
    save_pruningnet(PruningNet(network, ranking=L1Criterion().rank(network)), tmp_path / "net.safetensors")
    return f"generated:{tmp_path / 'net.safetensors'}"


@pytest.fixture
def weights(source: str, network: Network, images: Tensor) -> WeightSource:
    return make_weights(source, network, L1Criterion().rank(network), images)


@pytest.fixture
def half(network: Network) -> Structure:
    return uniform_structure(Budget(macs="50%").check(network.space))


def test_the_full_structure_keeps_the_trained_weights(weights: WeightSource, network: Network) -> None:
    built, trained = weights.build(network.space.full).state_dict(), network.model.state_dict()
    assert all(torch.equal(built[name], trained[name]) for name in trained)


def test_tensor_by_tensor_and_whole_are_the_same_network(
    weights: WeightSource, network: Network, images: Tensor
) -> None:
    for row in network.space.sample(np.random.default_rng(0), 3):
        structure = network.space.check(row.tolist())
        built = dict(weights.build(structure).named_parameters())
        assert all(torch.equal(weights.values(name, structure), built[name]) for name in built)
        (logits,) = SharedForward(weights).run([structure], images[:100])
        model = weights.build(structure)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
        with torch.no_grad():
            assert torch.allclose(logits, model(images[:100]), atol=1e-4)


@pytest.mark.slow
def test_values_of_a_tensor_change_only_with_the_groups_that_influence_it(
    weights: WeightSource, network: Network
) -> None:
    space = network.space
    for name, _ in network.model.named_parameters():
        full = weights.values(name, space.full)
        for g, group in enumerate(space.groups):
            other = weights.values(name, (*space.full[:g], group.widths[0], *space.full[g + 1 :]))
            if g not in weights.influences(name):
                assert torch.equal(full, other)


def test_what_is_built_costs_what_the_space_says_and_can_be_trained(
    weights: WeightSource, network: Network, images: Tensor, half: Structure
) -> None:
    model = weights.build(half)
    assert count(model, network.example_inputs) == network.space.cost(half)
    model.train()(images[:8]).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_building_leaves_the_network_and_every_random_generator_as_they_were(
    source: str, network: Network, images: Tensor, half: Structure
) -> None:
    before = state_of(network.model), generators()
    one, two = (make_weights(source, network, L1Criterion().rank(network), images).build(half) for _ in range(2))
    assert (state_of(network.model), generators()) == before
    assert state_of(one) == state_of(two)


def test_it_loses_no_more_than_slicing(
    weights: WeightSource, network: Network, images: Tensor, labels: Tensor, half: Structure
) -> None:
    """At half of the MACs, widths uniform, BatchNorm statistics re-estimated in both."""
    sliced, own = (
        AccuracyEvaluator(source, labelled(images, labels)).score([half])[0]
        for source in (InheritedWeights(network, weights.ranking), weights)
    )
    assert own >= sliced
