"""What every registered channel criterion promises. A new one inherits it by being listed in `CRITERIA`."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from prunesearch.evaluators.channels import CRITERIA, make_criterion
from prunesearch.models.network import Network
from prunesearch.models.ranking import Ranking
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.follow import fidelity
from tests.models_state import generators, state_of

_SLOW = {"lfe"}  # hundreds of forwards
pytestmark = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else []) for name in sorted(CRITERIA)]
)


@pytest.fixture
def ranking(name: str, network: Network, images: Tensor, labels: Tensor) -> Ranking:
    return make_criterion(name).rank(network, labelled(images, labels))


def test_it_keeps_as_many_units_as_asked_distinct_and_ascending(ranking: Ranking, network: Network) -> None:
    for index, group in enumerate(network.space.groups):
        for units in range(1, group.units + 1):
            kept = ranking.keep(index, units)
            assert len(kept) == units
            assert np.all(np.diff(kept) > 0)
            assert kept[0] >= 0
            assert kept[-1] < group.units


def test_the_same_seed_gives_the_same_ranking(name: str, network: Network, images: Tensor, labels: Tensor) -> None:
    one, two = (make_criterion(name, seed=4).rank(network, labelled(images, labels)) for _ in range(2))
    assert all(
        np.array_equal(one.keep(i, group.units // 2), two.keep(i, group.units // 2))
        for i, group in enumerate(network.space.groups)
    )


def test_ranking_leaves_the_network_and_every_random_generator_as_they_were(
    name: str, network: Network, images: Tensor, labels: Tensor
) -> None:
    before = state_of(network.model), generators()
    hooks = sum(len(module._forward_pre_hooks) for module in network.model.modules())
    make_criterion(name).rank(network, labelled(images, labels))
    assert (state_of(network.model), generators()) == before
    assert sum(len(module._forward_pre_hooks) for module in network.model.modules()) == hooks


def test_it_says_what_it_needs_and_refuses_without(name: str, network: Network, images: Tensor) -> None:
    criterion = make_criterion(name)
    if criterion.needs == "nothing":
        criterion.rank(network)
        return
    seen = "inputs" if criterion.needs == "inputs" else "the loss of examples"
    with pytest.raises(ValueError, match=f"The criterion '{name}' looks at {seen}, got none"):
        criterion.rank(network)
    if criterion.needs == "loss":
        with pytest.raises(
            ValueError, match=f"The criterion {name} learns from a loss, and the task fidelity has none"
        ):
            criterion.rank(network, Examples(images, fidelity()))
