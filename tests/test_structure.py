"""The space: exact costs, for one structure or a million, against an obvious slow witness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesearch.structure import Group, Space, Term, Width
from tests.toys import chain_space, every_structure


def slowly(terms: tuple[Term, ...], space: Space, structure: tuple[int, ...]) -> int:
    """The definition, spelled out."""

    def value(width: Width) -> int:
        total = width.constant
        for group, per_unit in width.terms:
            total += structure[group] // space.groups[group].unit * per_unit
        return total

    return sum(term.coefficient * value(term.left) * value(term.right) for term in terms)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    units = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    groups = tuple(
        Group(f"g{i}", 6 * unit, unit, tuple(unit * k for k in draw(st.sampled_from([(1, 6), (2, 3, 6), (6,)]))), ())
        for i, unit in enumerate(units)
    )
    width = st.builds(
        Width,
        st.integers(0, 9),
        st.lists(st.tuples(st.integers(0, len(units) - 1), st.integers(1, 5)), max_size=3).map(tuple),
    )
    terms = st.lists(st.builds(Term, st.just("layer"), st.integers(1, 10**6), width, width), max_size=6).map(tuple)
    return Space(groups, draw(terms), draw(terms))


@settings(deadline=None, derandomize=True)
@given(spaces(), st.integers(0, 2**32))
def test_vectorised_costs_equal_the_definition(space: Space, seed: int) -> None:
    rows = space.sample(np.random.default_rng(seed), 5)
    for row, macs, params in zip(rows.tolist(), space.macs(rows), space.params(rows), strict=True):
        assert macs == slowly(space.macs_terms, space, tuple(row))
        assert params == slowly(space.params_terms, space, tuple(row))


@settings(deadline=None, derandomize=True)
@given(spaces(), st.integers(0, 2**32))
def test_costs_with_one_group_changed_are_those_of_the_whole_structures(space: Space, seed: int) -> None:
    (row,) = space.sample(np.random.default_rng(seed), 1)
    pairs = [(index, width) for index, group in enumerate(space.groups) for width in group.widths]
    groups, widths = np.array(pairs).T
    whole = np.repeat(row[None], len(pairs), axis=0)
    whole[np.arange(len(pairs)), groups] = widths
    assert np.array_equal(space.costs_with("macs", row, groups, widths), space.macs(whole))
    assert np.array_equal(space.costs_with("params", row, groups, widths), space.params(whole))


@pytest.mark.parametrize("coefficient", [2**40, 2**51, 2**53 + 1, 2**60 - 1])
def test_costs_stay_exact_beyond_what_floats_can_hold(coefficient: int) -> None:
    group = Group("g", 3, 1, (1, 2, 3), ())
    space = Space((group,), (Term("g", coefficient, Width(1), Width(0, ((0, 1),))),), ())
    assert [space.cost((width,)).macs for width in (1, 2, 3)] == [coefficient * width for width in (1, 2, 3)]
    changed = space.costs_with("macs", (3,), np.zeros(3, dtype=np.int64), np.array([1, 2, 3]))
    assert changed.tolist() == [coefficient * width for width in (1, 2, 3)]


def test_a_batch_larger_than_one_block_is_costed_whole() -> None:
    space = chain_space()
    rows = space.sample(np.random.default_rng(0), 70_000)
    assert space.macs(rows)[-1] == slowly(space.macs_terms, space, tuple(rows[-1].tolist()))


def test_layer_macs_add_up_to_the_total() -> None:
    space = chain_space()
    structure = (4, 3, 8)
    assert sum(space.layer_macs(structure).values()) == space.cost(structure).macs


def test_indices_and_widths_are_inverse() -> None:
    space = chain_space(unit=3)
    rows = np.array(every_structure(space))
    assert np.array_equal(space.from_indices(space.indices(rows)), rows)


def test_a_width_between_two_allowed_ones_counts_as_the_lower_and_below_all_as_the_lowest() -> None:
    space = chain_space((8,), 4)
    assert space.from_indices(space.indices([[5.9], [0.1], [100.0]])).tolist() == [[4], [2], [8]]


def test_sampling_reaches_every_structure_and_only_those() -> None:
    space = chain_space((4, 4), 4)
    seen = {tuple(row) for row in space.sample(np.random.default_rng(0), 500).tolist()}
    assert seen == set(every_structure(space))  # 16 structures; a miss has probability 16 * (15/16)^500 < 1e-12


def test_size_counts_the_structures() -> None:
    assert chain_space().size == len(every_structure(chain_space())) == 64


def test_a_structure_of_the_wrong_length_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"one width per group \(3\), got 2"):
        chain_space().cost((2, 3))


def test_a_width_that_is_not_allowed_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match=r"'conv1' allows the widths \(3, 6, 9, 12\), got 5"):
        chain_space().cost((2, 5, 4))


def test_an_array_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(p, 3\), got \(3,\)"):
        chain_space().macs([2, 3, 4])


def test_equal_spaces_have_equal_fingerprints_and_others_do_not() -> None:
    assert chain_space().fingerprint == chain_space().fingerprint
    assert chain_space().fingerprint != chain_space(inputs=4).fingerprint
