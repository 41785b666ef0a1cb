"""What users do with a slimmed network: copies, several processes, compilers."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import nn

from prunesearch.models.network import Network
from prunesearch.models.slim import slim
from prunesearch.models.trace import trace
from prunesearch.models.zoo import make_model
from tests.models.networks import image, random_ranking

IMAGES = image(4, 3, 16, 16)


@cache
def traced(name: str) -> Network:
    torch.manual_seed(0)
    return trace(make_model(name, image_size=16), IMAGES)


@pytest.fixture(params=["resnet8", "mobilenet_v2", pytest.param("densenet40", marks=pytest.mark.slow)])
def slimmed(request: pytest.FixtureRequest) -> nn.Module:
    network = traced(request.param)
    return slim(network, network.space.minimum, random_ranking(network)).eval()


def test_a_copy_gives_equal_outputs(slimmed: nn.Module) -> None:
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(slimmed)(IMAGES), slimmed(IMAGES))


@pytest.mark.slow
def test_it_compiles_without_a_graph_break_and_gives_equal_outputs(slimmed: nn.Module) -> None:
    with torch.no_grad():
        compiled = torch.compile(slimmed, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(IMAGES), slimmed(IMAGES))
    torch._dynamo.reset()


def test_it_trains_under_data_parallelism_as_without(slimmed: nn.Module) -> None:
    from torch.distributed import HashStore, destroy_process_group, init_process_group
    from torch.nn.parallel import DistributedDataParallel

    alone = copy.deepcopy(slimmed)
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        together = DistributedDataParallel(slimmed)
        together(IMAGES).square().sum().backward()
    finally:
        destroy_process_group()
    alone(IMAGES).square().sum().backward()
    for ours, theirs in zip(slimmed.parameters(), alone.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad)
