"""A network that keeps books of its forwards is left as it was by everything that only looks at it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators.channels import CRITERIA, make_criterion
from prunesearch.evaluators.diagnosis import check_finite
from prunesearch.models.corrections import corrections_of
from prunesearch.models.isolation import values_kept
from prunesearch.models.misfit import outputs_of
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import following
from prunesearch.training.data import Data
from prunesearch.training.evaluation import metric_on_test


class Counting(nn.Module):
    """Counts its images in a buffer, a parameter, a plain tensor and an attribute; the first batch sets a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 10, 3), nn.Linear(10, 4)
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("seen", torch.zeros(()))
        self.scale = nn.Parameter(torch.ones(()))
        self.held = torch.zeros(())
        self.calls = 0
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        self.scale.data.copy_(x.std())
        self.held += 1
        self.calls += 1
        self.sizes.append(len(x))
        return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))).mean((2, 3)))


IMAGES, LABELS = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 4
DATA = Data((IMAGES, LABELS), test=(IMAGES, LABELS))


@pytest.fixture
def network() -> Iterator[ps.Network]:
    """Traced, and afterwards checked."""
    model = Counting()
    state = copy.deepcopy(model.state_dict())
    yield ps.trace(model, IMAGES[:2])
    assert (model.held, model.calls, model.sizes, model.training) == (torch.zeros(()), 0, [], True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


LOOKS: dict[str, Callable[[Any], Any]] = {
    "count": lambda network: ps.count(network.model, IMAGES[:2]),
    "top1": lambda network: ps.top1(network.model, IMAGES, LABELS),
    "measure_latency": lambda network: ps.measure_latency(network.model, IMAGES, repeats=2, warmup=0),
    "following": lambda network: following(labelled(IMAGES, LABELS), network.model),
    "outputs_of": lambda network: outputs_of(network.model, IMAGES),
    "corrections_of": lambda network: corrections_of(network.model, [IMAGES]),
    "check_finite": lambda network: check_finite(network.model, IMAGES),
    "metric_on_test": lambda network: metric_on_test(network.model, DATA, device="cpu"),
    "verify": lambda network: network.verify(1),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_leaves_what_a_forward_writes_as_it_was(look: str, network: ps.Network) -> None:
    LOOKS[look](network)


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_a_criterion_leaves_what_a_forward_writes_as_it_was(criterion: str, network: ps.Network) -> None:
    make_criterion(criterion).rank(network, labelled(IMAGES, LABELS))


@pytest.mark.parametrize("searcher", ["uniform", "convex"])
def test_a_search_leaves_the_network_as_it_was_and_goes_on_as_the_same_study(
    searcher: str, network: ps.Network, tmp_path: Path
) -> None:
    settings: Any = {"budget": "macs=60%", "n_trials": 2, "searcher": searcher, "study": tmp_path / "study.db"}
    first, again = (ps.search(network, DATA, progress=False, **settings) for _ in range(2))
    assert again.trials == first.trials


def test_tensors_that_nobody_wrote_to_are_not_touched() -> None:
    model = nn.Linear(2, 2)
    versions = [tensor._version for tensor in model.parameters()]
    with values_kept(model):
        model(torch.zeros(1, 2))
    assert [tensor._version for tensor in model.parameters()] == versions
