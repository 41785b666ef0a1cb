"""The preflight report: its numbers are those of the space, its table is complete."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.explain import Explanation
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.models.zoo import make_model
from tests.models.networks import SMALL, Inception, Middle, image


@pytest.fixture(scope="module")
def network() -> Network:
    return trace(Inception(), SMALL, round_to=2)


@pytest.fixture(scope="module")
def explanation(network: Network) -> Explanation:
    return network.explain()


def test_each_group_saves_what_the_network_costs_less_without_it(network: Network, explanation: Explanation) -> None:
    space = network.space
    full = space.cost(space.full).macs
    assert len(explanation.groups) == len(space.groups)
    for i, line in enumerate(explanation.groups):
        alone = space.cost((*space.full[:i], space.minimum[i], *space.full[i + 1 :])).macs
        assert line.macs_share == pytest.approx(1 - alone / full)
        assert 0 < line.macs_share < 1
        assert (line.name, line.width, line.widths, line.members) == (
            space.groups[i].name, space.groups[i].width, space.groups[i].widths, space.groups[i].members,
        )  # fmt: skip


def test_the_costs_and_the_number_of_structures_are_those_of_the_space(
    network: Network, explanation: Explanation
) -> None:
    space = network.space
    assert explanation.structures == space.size
    assert explanation.full == space.cost(space.full)
    assert explanation.minimum == space.cost(space.minimum)
    assert explanation.frozen == network.frozen


def test_every_layer_says_what_it_costs_and_why_it_stays_also_one_that_is_a_function() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(6, 4)
            self.weight = nn.Parameter(torch.randn(6, 8, 1, 1))
            self.fixed = nn.Conv2d(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = F.conv2d(self.stem(x).relu(), self.weight)
            return self.head(F.local_response_norm(self.fixed(h), 3).mean((2, 3)))

    network = trace(Functional(), SMALL)
    lines = {line.name: line for line in network.explain().layers}
    assert set(lines) == {"stem", "weight", "fixed", "head"}
    assert sum(line.macs for line in lines.values()) == network.space.cost(network.space.full).macs
    assert sum(line.least for line in lines.values()) == network.space.cost(network.space.minimum).macs
    assert lines["weight"].why is None
    assert lines["weight"].least < lines["weight"].macs
    assert "has no rule" in (lines["fixed"].why or "")
    assert lines["head"].why == "is an output of the network"


def test_it_turns_into_json_and_back(explanation: Explanation) -> None:
    plain = json.loads(json.dumps(explanation.as_dict()))
    assert plain["full"]["macs"] == explanation.full.macs
    assert [line["name"] for line in plain["groups"]] == [line.name for line in explanation.groups]


def test_the_table_names_every_group_every_frozen_layer_and_the_range_of_costs() -> None:
    explanation = trace(Middle(lambda net, h, x: net.op(h), op=nn.LocalResponseNorm(3)), SMALL).explain()
    text = str(explanation)
    header, *rows = text.splitlines()
    assert [row.split()[0] for row in rows] == ["conv2", *["layer"] * 3, "frozen:", "frozen:", "most", "1"]
    assert "frozen: conv1: function 'local_response_norm' in 'op' has no rule" in text
    assert f"{explanation.minimum.macs:,} to {explanation.full.macs:,}" in text
    assert f"{explanation.minimum.params:,} to {explanation.full.params:,}" in text
    assert header.index("width") + len("width") == rows[0].index(" 6 ") + 2


def test_the_heaviest_layers_are_named_with_their_share_of_the_macs() -> None:
    explanation = trace(make_model("resnet8"), image(1, 3, 32, 32)).explain()
    shares = dict(explanation.heaviest)
    assert len(shares) == 5
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares["layer1.0.conv1"] == 9 * 16 * 16 * 32 * 32 / explanation.full.macs
    assert "layer1.0.conv1" in str(explanation).splitlines()[-2]


def test_the_columns_line_up_also_when_every_name_is_short() -> None:
    lines = str(trace(nn.Sequential(nn.Linear(4, 60), nn.ReLU(), nn.Linear(60, 2)), image(2, 4)).explain()).splitlines()
    assert lines[0].index("width") + len("width") == lines[1].index("60") + len("60")


def test_astronomic_numbers_of_structures_are_printed() -> None:
    explanation = trace(make_model("resnet56", image_size=4), image(1, 3, 4, 4), min_channels=1).explain()
    assert explanation.structures > 10**40
    assert "structures" in str(explanation)
