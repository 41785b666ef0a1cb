"""MetaPruning's networks: genes decode to the published costs, and one decoder serves search and final network."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
import torchvision

from prunesearch.models.count import count
from prunesearch.models.slim import slim
from prunesearch.models.zoo.metapruning import GeneNetwork, metapruning
from tests.models.networks import image, prove, random_ranking

RESNET_2G = (23, 17, 16, 17, 16, 16, 18, 20, 18, 25, 11, 29, 22, 18, 13, 27, 17, 23, 23, 20)  # the authors, issue 13
RESNET_1G = (19, 9, 15, 13, 10, 9, 10, 6, 9, 13, 11, 12, 7, 18, 7, 13, 12, 10, 19, 18)  # resnet/evaluating/resnet.py
V1 = (28, 18, 10, 23, 23, 22, 22, 13, 17, 28, 17, 25, 29)
V2_OUTPUTS = (14, 12, 11, 11, 8, 8, 8, 7, 7, 7, 7, 8, 8, 8, 14, 14, 14, 8)  # mobilenetv2/evaluating/mobilenet_v2.py
V2_MIDDLES = (6, 5, 2, 15, 7, 17, 14, 5, 11, 12, 12, 11, 6, 16, 14, 13, 14)


@pytest.fixture(scope="module")
def resnet50() -> GeneNetwork:
    return metapruning("resnet50")


@cache
def small(name: str) -> GeneNetwork:
    return metapruning(name, image_size=32, num_classes=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("genes", "macs"), [((30,) * 20, 4_089_184_256), (RESNET_2G, 1_989_926_060), (RESNET_1G, 1_027_554_986)]
)
def test_the_published_resnet_50_vectors_have_the_published_macs(
    resnet50: GeneNetwork, genes: tuple[int, ...], macs: int
) -> None:
    assert resnet50.network.space.cost(resnet50.decode(genes)).macs == macs


@pytest.mark.slow
def test_the_final_network_is_what_the_search_decoded(resnet50: GeneNetwork) -> None:
    structure = resnet50.decode(RESNET_1G)
    built = slim(resnet50.network, structure, random_ranking(resnet50.network))
    assert count(built, image(1, 3, 224, 224)) == resnet50.network.space.cost(structure)
    assert (built.conv1.out_channels, built.layer1[0].conv1.out_channels) == (42, 25)  # type: ignore[union-attr,index]
    assert built.layer1[0].conv2.out_channels == 25  # type: ignore[union-attr,index]
    assert built.layer4[2].conv3.out_channels == 2048  # type: ignore[union-attr,index]


def test_resnet_50_has_torchvisions_names_and_shapes() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet50().state_dict()
    ours = metapruning("resnet50", image_size=32).network.model.state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: tensor.shape for n, tensor in theirs.items()}


def share(width: int, gene: int) -> int:
    return int(width * ((10 + 3 * gene) / 100))


def test_mobilenet_v1_costs_what_the_widths_of_its_table_cost_with_gene_i_for_the_output_of_block_i() -> None:
    """The published vector: 313.2 M by convolutions and classifier, 316 M as the authors count (BatchNorm, too)."""
    found = metapruning("mobilenet_v1")
    table = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    widths = [*(share(width, gene) for width, gene in zip(table, V1, strict=False)), 1024]
    sides = (112, 112, 56, 56, 28, 28, 14, 14, 14, 14, 14, 14, 7, 7)  # after the stem, after each block
    macs = 27 * widths[0] * 112**2 + 1024 * 1000
    macs += sum((9 * a + a * b) * side**2 for (a, b), side in zip(pairwise(widths), sides[1:], strict=True))
    assert found.network.space.cost(found.decode(V1)).macs == macs == 313_208_831


def test_mobilenet_v2_costs_what_the_widths_of_its_tables_cost() -> None:
    """The authors call the network of this vector 303 M. By their own released tables it is 104.9 M."""
    found = metapruning("mobilenet_v2")
    table = (44, 22, 33, 33, 44, 44, 44, 88, 88, 88, 88, 132, 132, 132, 224, 224, 224, 448)
    outputs = [share(width, gene) for width, gene in zip(table, V2_OUTPUTS, strict=True)]
    full = [width * (1 if i == 0 else 6) for i, width in enumerate(table[:-1])]
    middles = [share(width, gene) for width, gene in zip(full, V2_MIDDLES, strict=True)]
    macs, side = 27 * outputs[0] * 112**2 + 1280 * (outputs[-1] * 7**2 + 1000), 112
    for i, ((a, b), m) in enumerate(zip(pairwise(outputs), middles, strict=True), 1):
        before = side
        side = side // 2 if i in (2, 4, 7, 14) else side
        macs += a * m * before**2 + (9 * m + m * b) * side**2
    assert found.network.space.cost(found.decode(V2_OUTPUTS + V2_MIDDLES)).macs == macs == 104_870_557


@pytest.mark.parametrize(
    ("name", "genes"),
    [("mobilenet_v1", 13), ("mobilenet_v2", 25), pytest.param("resnet50", 20, marks=pytest.mark.slow)],
)
def test_every_gene_is_a_group_and_structures_are_slimmed_rightly(name: str, genes: int) -> None:
    found = small(name)
    assert len(found.network.space.groups) == genes
    assert all(len(group.widths) <= 31 for group in found.network.space.groups)
    prove(found.network, n=1, tolerance=1e-4)


def test_shortcuts_are_those_of_the_unpruned_network_even_where_pruned_widths_happen_to_be_equal() -> None:
    """Block 4 goes from 33 channels to 44; 22 and 22 of them are left here."""
    found = small("mobilenet_v2")
    genes = [30] * 35
    genes[2] = genes[3] = 19  # int(33 * 0.67) = 22
    genes[4] = genes[5] = genes[6] = 14  # int(44 * 0.52) = 22
    built = slim(found.network, found.decode(genes), random_ranking(found.network))
    block = built.features[6]  # type: ignore[index]
    assert block.conv[0].in_channels == block.conv[6].out_channels == 22
    assert not block.has_shortcut


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ([30] * 34, "Expected 35 genes from 0 to 30, got 34"),
        ([31] * 35, "from 0 to 30"),
        ([30, 30, 29, 30] + [30] * 31, r"features\.5\.conv\.6 is coupled with a layer that has the gene 29, got 30"),
    ],
)
def test_vectors_that_stand_for_no_structure_are_refused(genes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small("mobilenet_v2").decode(genes)


def test_an_unknown_network_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="there are mobilenet_v1, mobilenet_v2, resnet50"):
        metapruning("resnet51")
