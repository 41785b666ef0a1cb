from __future__ import annotations

import pytest

from prunesearch.budget import Budget
from prunesearch.search import make_searcher
from prunesearch.search.uniform import UniformSearcher, uniform_structure
from tests.toys import chain_space, every_structure


def test_every_group_keeps_the_same_fraction_and_the_next_larger_one_is_too_much() -> None:
    space = chain_space((100, 200, 300), 100)
    feasible = Budget(macs="50%").check(space)
    structure = uniform_structure(feasible)
    fractions = {width / group.width for width, group in zip(structure, space.groups, strict=True)}
    assert len(fractions) == 1
    wider = [width + group.width // 100 for width, group in zip(structure, space.groups, strict=True)]
    assert not feasible.contains([wider])[0]


def test_it_equals_the_best_uniform_structure_found_by_enumeration() -> None:
    space = chain_space((8, 12, 16), 4)
    feasible = Budget(params="60%").check(space)
    uniform = [
        s for s in every_structure(space) if len({w / g.width for w, g in zip(s, space.groups, strict=True)}) == 1
    ]
    inside = [s for s in uniform if feasible.contains([s])[0]]
    assert uniform_structure(feasible) == max(inside)


def test_it_proposes_once() -> None:
    searcher = UniformSearcher(chain_space(), Budget(macs="50%"))
    assert len(searcher.ask(5)) == 1
    assert searcher.ask(5) == []


def test_an_unknown_searcher_is_refused_with_the_list_and_the_nearest_name() -> None:
    with pytest.raises(
        ValueError, match=r"Unknown searcher 'evolutoin'; there are uniform, random, evolution.*'evolution'"
    ):
        make_searcher("evolutoin", chain_space(), Budget(macs="50%"))
