"""Widths and costs by layer: exact, and complete."""

from __future__ import annotations

import pytest

from prunesearch.models.network import Network
from prunesearch.models.slim import slim
from prunesearch.report.layers import layers
from prunesearch.structure import Group, Space, Term, Width
from tests.models.networks import random_ranking
from tests.toys import chain_space


def test_layers_add_up_to_the_exact_cost_before_and_after(network: Network) -> None:
    space = network.space
    structure = tuple(group.widths[len(group.widths) // 2] for group in space.groups)
    rows = layers(space, structure)
    assert sum(row.macs_full for row in rows) == space.cost(space.full).macs
    assert sum(row.macs for row in rows) == space.cost(structure).macs
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert sum(row.share_full for row in rows) == pytest.approx(1)


def test_output_channels_are_those_of_the_built_network(network: Network) -> None:
    structure = tuple(group.widths[len(group.widths) // 2] for group in network.space.groups)
    built = dict(slim(network, structure, random_ranking(network)).named_modules())
    rows = layers(network.space, structure)
    convolutions = {row.name: row.kept for row in rows if hasattr(built[row.name], "out_channels")}
    assert len(convolutions) > 5
    assert convolutions == {name: built[name].out_channels for name in convolutions}


def test_what_nothing_can_change_is_not_free_and_what_was_not_traced_has_no_width() -> None:
    one = Width(1)
    space = Space(
        (Group("stem", 8, 1, (4, 8), ("stem",)),),
        (
            Term("stem", 9, Width(3), Width(0, ((0, 1),))),
            Term("head", 1, Width(0, ((0, 1),)), Width(10)),
            Term("odd", 77, one, one),
        ),
        (),
    )
    stem, head, odd = layers(space, (4,))
    assert (stem.is_free, stem.full, stem.kept, stem.kept_percent) == (True, 8, 4, 50.0)
    assert (head.is_free, head.full, head.kept, head.macs_full, head.macs) == (False, 10, 10, 80, 40)
    assert (odd.full, odd.kept, odd.macs) == (None, None, 77)


def test_a_layer_that_runs_twice_is_there_once_with_all_its_macs() -> None:
    space = chain_space()
    twice = Space(space.groups, (*space.macs_terms, space.macs_terms[0]), space.params_terms)
    first = layers(twice, twice.full)[0]
    assert first.macs == 2 * layers(space, space.full)[0].macs
