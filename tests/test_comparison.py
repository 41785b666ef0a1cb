"""Networks side by side: every row stands below the network that it was pruned from."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import prunesearch as ps
from prunesearch.comparison import compare
from prunesearch.evaluators.built_costs import measure_costs
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.trial import Trial
from tests.report.studies import add_study, toy_space
from tests.test_given import IMAGES, Net
from tests.test_given import network as made


def one(structure: tuple[int, ...], network: Network | None = None) -> list[Trial]:
    space = toy_space() if network is None else network.space
    return [Trial(0, structure, space.cost(structure), 0.5, None, 0.1, "random", "accuracy", "inline")]


def test_studies_of_the_network_stand_below_it_whatever_else_the_database_has(network: Network, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    add_study(url, "other", one(toy_space().minimum), model="another")
    add_study(url, "mine", one(network.space.minimum, network), space=network.space)
    found = compare(network, study=url)
    assert [row.name for row in found.rows] == ["unpruned", "mine", "unpruned", "other"]
    assert found.rows[0].structure == network.space.full
    assert found.rows[1].distance == 0.0
    assert found.rows[0].distance is not None
    assert found.rows[2].distance is found.rows[3].distance is None


def test_networks_may_have_widths_that_the_network_was_not_traced_for() -> None:
    wide, narrow = made(), ps.trace(Net(), IMAGES[:2], min_channels=1)
    assert min(wide.space.minimum) > 1
    small = ps.slim(narrow, (1, 1), NestedRanking(tuple(tuple(range(len(units))) for units in narrow.units)))
    assert measure_costs(wide, small).exact
    (_, row) = compare(wide, {"small": small}).rows
    assert (row.structure, row.cost) == ((1, 1), narrow.space.cost((1, 1)))


def test_a_model_wider_than_the_network_was_not_pruned_from_it() -> None:
    other = Net()
    other.first, other.second = nn.Conv2d(3, 17, 3), nn.Conv2d(17, 24, 3)
    with pytest.raises(ValueError, match="sizes that no structure of the network gives"):
        compare(made(), {"other": other})


def test_a_model_cannot_be_called_what_the_network_is(network: Network) -> None:
    with pytest.raises(ValueError, match="give the model another name"):
        compare(network, {"unpruned": network.model})
