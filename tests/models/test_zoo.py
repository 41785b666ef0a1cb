"""The zoo's networks: their names and sizes are those of the literature, and every one is pruned rightly."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from prunesearch.models.count import count
from prunesearch.models.network import Network
from prunesearch.models.slim import slim
from prunesearch.models.trace import trace
from prunesearch.models.zoo import FAMILIES, ZOO, make_model
from prunesearch.models.zoo.densenet import densenet
from prunesearch.models.zoo.mlp import mlp
from prunesearch.models.zoo.mobilenet import mobilenet_v1, mobilenet_v2
from prunesearch.models.zoo.resnet import ResNet, resnet
from prunesearch.models.zoo.vgg import vgg
from prunesearch.structure import Space, Structure, Term, Width
from tests.models.networks import image, names, prove, random_ranking, randomised, some_structures

SIZE = 8


SMALL = ("resnet8", "resnet8b", "vgg11", "mobilenet_v1", "mobilenet_v2", "densenet40", "mlp")
"""One of each kind; the others are the same with more layers, so their tests are slow."""


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[] if name in SMALL else [pytest.mark.slow]) for name in ZOO]
)
def network(request: pytest.FixtureRequest) -> Network:
    """Every zoo network on small images, all of its numbers random."""
    model = make_model(request.param, image_size=SIZE)
    return trace(randomised(model), image(2, 3, SIZE, SIZE), min_channels=0.2)


# --- pruning each of them ---------------------------------------------------------------------------------------------


def test_random_structures_equal_the_masked_network_and_cost_what_is_counted(network: Network) -> None:
    prove(network, n=2)


def test_the_narrowest_structure_costs_what_is_counted_and_no_less_is_possible(network: Network) -> None:
    space = network.space
    narrowest = slim(network, space.minimum, random_ranking(network))
    assert count(narrowest, network.example_inputs) == space.cost(space.minimum)
    full = space.cost(space.full)
    assert full == count(network.model, network.example_inputs)
    assert space.cost(space.minimum).macs < 0.5 * full.macs


def test_the_full_structure_is_the_network_itself(network: Network) -> None:
    full = slim(network, network.space.full, random_ranking(network)).eval()
    original = copy.deepcopy(network.model).eval()
    with torch.no_grad():
        assert torch.equal(full(*network.example_inputs), original(*network.example_inputs))


def test_only_the_classifier_is_frozen(network: Network) -> None:
    assert set(network.frozen.values()) == {"is an output of the network"}
    assert len(network.frozen) == 1
    assert network.outputs == 10
    assert len(set(names(network))) == len(network.space.groups)


def test_costs_of_many_structures_at_once_equal_the_sum_of_their_terms(network: Network) -> None:
    space = network.space
    structures = some_structures(network, 5)
    assert space.macs(structures).tolist() == [witness(space, space.macs_terms, s) for s in structures]
    assert space.params(np.array(structures)).tolist() == [witness(space, space.params_terms, s) for s in structures]
    assert sum(space.layer_macs(structures[0]).values()) == space.cost(structures[0]).macs


def witness(space: Space, terms: Iterable[Term], structure: Structure) -> int:
    """A cost, term by term, in Python integers."""

    def channels(width: Width) -> int:
        return width.constant + sum(structure[g] // space.groups[g].unit * each for g, each in width.terms)

    return sum(term.coefficient * channels(term.left) * channels(term.right) for term in terms)


# --- names and known sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("resnet20", 269_722, 40_551_040),  # He et al. 2016, table 6: 0.27M
        ("resnet32", 464_154, 68_862_592),  # 0.46M
        ("resnet44", 658_586, 97_174_144),  # 0.66M
        ("resnet56", 853_018, 125_485_696),  # 0.85M
        pytest.param("resnet110", 1_727_962, 252_887_680, marks=pytest.mark.slow),  # 1.7M
        pytest.param("densenet100", 769_162, None, marks=pytest.mark.slow),  # Huang et al. 2017, table 2: 0.8M
    ],
)
def test_sizes_are_those_of_the_papers(name: str, params: int, macs: int | None) -> None:
    found = count(make_model(name), image(1, 3, 32, 32))
    assert found.params == params
    assert macs is None or found.macs == macs


def test_the_space_of_resnet56_predicts_the_papers_numbers() -> None:
    space = trace(make_model("resnet56"), image(1, 3, 32, 32)).space
    assert (space.cost(space.full).params, space.cost(space.full).macs) == (853_018, 125_485_696)


def basic_block(prefix: str, *, projects: bool) -> list[str]:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    listed = []
    for i in (1, 2):
        listed += [f"{prefix}.conv{i}.weight", *(f"{prefix}.bn{i}.{part}" for part in norm)]
    shortcut = [f"{prefix}.shortcut.0.weight", *(f"{prefix}.shortcut.1.{part}" for part in norm)]
    return listed + shortcut if projects else listed


@pytest.mark.parametrize(("name", "blocks", "projects"), [("resnet20", 3, False), ("resnet32b", 5, True)])
def test_resnet_tensors_are_named_as_in_public_checkpoints(name: str, blocks: int, projects: bool) -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = ["conv1.weight", *(f"bn1.{part}" for part in norm)]
    for stage in (1, 2, 3):
        for block in range(blocks):
            expected += basic_block(f"layer{stage}.{block}", projects=projects and stage > 1 and block == 0)
    assert list(make_model(name).state_dict()) == [*expected, "linear.weight", "linear.bias"]


def test_mobilenet_v2_has_torchvisions_parameters_and_on_large_images_its_macs() -> None:
    ours, theirs = mobilenet_v2(image_size=64), torchvision.models.mobilenet_v2(num_classes=10)
    assert count(ours, image(1, 3, 64, 64)) == count(theirs, image(1, 3, 64, 64))
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


def test_vgg_has_torchvisions_convolutions_without_their_bias() -> None:
    with torch.device("meta"):
        networks = vgg(16), torchvision.models.vgg16_bn()
    ours, theirs = ([module for module in net.modules() if isinstance(module, nn.Conv2d)] for net in networks)
    assert [module.weight.shape for module in ours] == [module.weight.shape for module in theirs]
    assert count(vgg(16), image(1, 3, 32, 32)).params == 14_724_042  # 14,728,266 with the bias of its 4,224 channels


def test_mobilenet_v1_has_the_parameters_of_its_table() -> None:
    table = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    expected = 27 * 32 + 2 * 32 + sum(9 * a + 2 * a + a * b + 2 * b for a, b in itertools.pairwise(table))
    assert count(mobilenet_v1(), image(1, 3, 32, 32)).params == expected + 1024 * 10 + 10 == 3_217_226


def test_an_mlp_has_the_sizes_it_was_asked_for() -> None:
    found = count(mlp(hidden=(7, 5), num_classes=3, in_channels=2, image_size=4), image(1, 2, 4, 4))
    assert (found.macs, found.params) == (32 * 7 + 7 * 5 + 5 * 3, 33 * 7 + 8 * 5 + 6 * 3)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, size) for name in ("resnet8", "resnet8b", "densenet40", "mlp") for size in (4, 7)),
        *((name, size) for name in ("vgg11", "mobilenet_v1", "mobilenet_v2") for size in (4, 7, 33, 64)),
    ],
)
def test_networks_take_images_of_the_size_and_give_the_classes_they_were_made_for(name: str, size: int) -> None:
    model = make_model(name, num_classes=7, in_channels=1, image_size=size).eval()
    with torch.no_grad():
        assert model(image(2, 1, size, size)).shape == (2, 7)


def test_every_family_has_a_name_in_the_zoo() -> None:
    assert set(ZOO.values()) == set(FAMILIES.values()) == {ZOO[name] for name in SMALL}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_model("resnet65"), "Unknown zoo network 'resnet65'.*Did you mean 'resnet56'"),
        (lambda: resnet(18), "depth of 6n + 2, such as 20, 32, 44, 56 or 110, got 18"),
        (lambda: resnet(2), "got 2"),
        (lambda: ResNet(3, shortcut="C"), 'shortcut "A" or "B", got \'C\''),
        (lambda: vgg(15), "depth of 11, 13, 16, 19, got 15"),
        (lambda: densenet(41), "depth of 6n + 4, such as 40 or 100, got 41"),
        (lambda: densenet(4), "got 4"),
    ],
)
def test_networks_that_do_not_exist_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")):
        make()
