from __future__ import annotations

import numpy as np
import pytest

from prunesearch.evaluators.latency.grids import grid_of, levels, networks_to_time, packed
from prunesearch.latency_model import alignment
from tests.toys import chain_space


@pytest.mark.parametrize("step", [1, 4, 8, 16])
def test_a_grid_is_within_the_allowed_widths_holds_both_ends_and_every_alignment(step: int) -> None:
    widths = tuple(range(step, 513, step))
    grid = grid_of(widths, 8)
    assert set(grid) <= set(widths)
    assert (grid[0], grid[-1]) == (step, 512)
    assert len(grid) <= 8 + 2
    assert {alignment(w) for w in grid} == {alignment(w) for w in widths}


def test_few_widths_are_all_measured() -> None:
    assert grid_of((4, 10, 16), 8) == (4, 10, 16)


def test_groups_that_move_together_go_from_narrowest_to_widest() -> None:
    assert levels([(1, 2, 3), (10, 20)]) == [(1, 10), (2, 10), (3, 20)]


def test_packed_structures_meet_every_demand_once_and_are_few_for_a_chain() -> None:
    space = chain_space((16, 16, 16, 16), 4)
    demands = [{i: a, i + 1: b} for i in range(3) for a in space.groups[0].widths for b in space.groups[0].widths]
    met: list[int] = []
    structures = 0
    for structure, positions in packed(demands, space):
        assert all(structure[g] == width for p in positions for g, width in demands[p].items())
        met += positions
        structures += 1
    assert sorted(met) == list(range(len(demands)))
    assert structures <= 2 * 16


def test_networks_to_time_are_of_the_space_and_spread_over_its_sizes() -> None:
    space = chain_space((64, 64, 64), 16)
    structures = networks_to_time(space)
    assert all(space.check(structure) == structure for structure in structures)
    macs = space.macs(structures) / space.macs([space.full])
    assert macs.max() == 1.0
    assert macs.min() < 0.2
    assert len(np.unique(macs)) == len(structures)
