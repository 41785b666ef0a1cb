"""Budgets: read exactly, refused with the reachable range, and a projection that always lands inside."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesearch.budget import Budget, FeasibleSet, as_array, as_structures
from prunesearch.errors import InfeasibleBudget
from tests.toys import chain_space, every_structure, toy_table

SPACE = chain_space((16, 24, 32, 16), 8)
FULL = SPACE.cost(SPACE.full)
LEAST = SPACE.cost(SPACE.minimum)


def test_a_share_is_resolved_exactly_against_the_unpruned_network() -> None:
    assert Budget(macs="50%").check(SPACE).limits == (("macs", FULL.macs // 2),)
    assert Budget(macs="33.3%").check(SPACE).limits == (("macs", FULL.macs * 333 // 1000),)


@pytest.mark.parametrize(("limit", "count"), [("2k", 2000), ("2.5k", 2500), (2100, 2100), ("21e2", 2100)])
def test_counts_are_read_with_suffixes_and_exponents(limit: str | int, count: int) -> None:
    assert Budget(params=limit).check(SPACE).limits == (("params", count),)


def test_flops_are_exactly_two_macs() -> None:
    rows = SPACE.sample(np.random.default_rng(0), 200)
    for flops, macs in ((2 * 100_000, 100_000), (2 * 100_000 + 1, 100_000), ("50%", "50%")):
        twice, once = Budget(flops=flops).check(SPACE), Budget(macs=macs).check(SPACE)
        assert (twice.contains(rows) == once.contains(rows)).all()
        assert twice.costs("flops", rows).tolist() == (2 * once.costs("macs", rows)).tolist()
        assert (twice.quadratic("flops") == 2 * once.quadratic("macs")).all()


def test_the_command_lines_form_means_the_same() -> None:
    assert Budget.parse("macs=50%, params=2k") == Budget(macs="50%", params="2k")


SPELLINGS = [
    ("macs", ["50%", "50 %", " 50%", "50.0%", "050%", "5e1%", "5e1 %"]),
    ("params", ["20M", "20 M", 20_000_000, "20000k", "0.02G", "2e7", 2e7, np.int64(20_000_000), "20.0M"]),
    ("params", ["1234567", 1_234_567, "1234.567k"]),
    ("flops", ["1500", 1500, "1.5k"]),
    ("macs", ["100M", "0.1G", 100_000_000]),
]


@pytest.mark.parametrize(("resource", "spellings"), SPELLINGS)
def test_a_limit_is_the_same_however_it_is_written(resource: str, spellings: list[str | int]) -> None:
    budgets = [Budget(**{resource: spelling}) for spelling in spellings]  # type: ignore[arg-type]
    assert {str(budget) for budget in budgets} == {f"{resource}={spellings[0]}"}
    assert len(set(budgets)) == 1
    assert all(Budget.parse(f"{resource}={spelling}") == budgets[0] for spelling in spellings)


@settings(deadline=None, derandomize=True)
@given(st.one_of(st.integers(1, 10**18), st.floats(1, 1e15)))
def test_the_shortest_form_of_a_limit_means_what_it_was_made_of(limit: float) -> None:
    budget = Budget(macs=limit)
    assert Budget(macs=dict(budget.limits)["macs"]) == budget
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (np.float64(4.7), "4.7"),
        (np.float32(4.7), "4.7"),
        (np.float16(0.19), "0.19"),
        (Fraction(47, 10), "4.7"),
        (Fraction(10**20 + 1, 10**20), "1.00000000000000000001"),
        (Fraction(1, 3), "0.3333333333333333"),
        (np.int32(4), "4"),
    ],
)
def test_a_number_of_any_kind_is_taken_as_it_is_written(limit: Any, expected: str) -> None:
    assert dict(Budget(latency_ms=limit, table=toy_table(SPACE)).limits) == {"latency_ms": expected}


@settings(deadline=None, derandomize=True)
@given(st.integers(LEAST.macs, FULL.macs), st.integers(1, 10**17))
def test_the_shortest_form_of_a_count_is_exact(limit: int, large: int) -> None:
    assert Budget(macs=limit).check(SPACE).limits == (("macs", limit),)
    with pytest.raises(InfeasibleBudget, match="nothing to search") as caught:
        Budget(macs=FULL.macs + large).check(SPACE)
    assert caught.value.limit == FULL.macs + large


@pytest.mark.parametrize("resource", ["macs", "params", "flops", "latency_ms"])
def test_a_limit_that_is_given_twice_is_refused(resource: str) -> None:
    with pytest.raises(ValueError, match=f"limits {resource} twice, to 50% and to 40%"):
        Budget.parse(f"{resource}=50%,{resource} = 40%")


@pytest.mark.parametrize("text", ["memory=50%", "speed=3", "macs=50%,memory=3"])
def test_what_cannot_be_limited_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(ValueError, match=r"it can limit macs, params, flops, latency_ms, peak_memory, energy_mj\.$"):
        Budget.parse(text)
    with pytest.raises(ValueError, match="Did you mean 'params'"):
        Budget.parse("parms=50%")


@pytest.mark.parametrize("text", ["", "macs", "macs:50%", "macs=50%,,", "=50%"])
def test_a_command_line_budget_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Expected a budget such as"):
        Budget.parse(text)


@pytest.mark.parametrize(
    "limit", ["0%", "-5%", "half", "5 %%", "", 0, -3, "1e", "nan", "inf", "5T", "1e999999", math.inf, math.nan]
)
def test_a_limit_that_cannot_be_read_is_refused_with_its_value(limit: str | int) -> None:
    with pytest.raises(ValueError, match=r"Expected macs as a count .* got"):
        Budget(macs=limit)


def test_a_fraction_is_refused_with_the_percentage_that_was_probably_meant() -> None:
    with pytest.raises(ValueError, match=r'got 0\.5\. Did you mean "50%"'):
        Budget(macs=0.5)  # type: ignore[arg-type]


def test_no_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one limit"):
        Budget()
    with pytest.raises(ValueError, match="at least one limit"):
        Budget(macs=None)


def test_the_order_in_which_limits_are_given_does_not_matter() -> None:
    assert Budget(params="50%", macs="40%") == Budget(macs="40%", params="50%")
    assert str(Budget(params="50%", macs="40%")) == "macs=40%, params=50%"


def test_a_budget_below_the_narrowest_structure_is_infeasible_with_the_reachable_range() -> None:
    with pytest.raises(InfeasibleBudget, match=f"from {LEAST.macs:,} to {FULL.macs:,} macs") as caught:
        Budget(macs=LEAST.macs - 1).check(SPACE)
    assert caught.value.reachable == (LEAST.macs, FULL.macs)
    assert (caught.value.limit, caught.value.unit) == (LEAST.macs - 1, "macs")


def test_a_budget_above_the_unpruned_network_leaves_nothing_to_search() -> None:
    with pytest.raises(InfeasibleBudget, match="nothing to search"):
        Budget(params=FULL.params + 1).check(SPACE)


def test_one_infeasible_limit_of_two_is_enough() -> None:
    with pytest.raises(InfeasibleBudget, match="params"):
        Budget(macs="50%", params=1).check(SPACE)


def test_the_tightest_budget_admits_exactly_the_narrowest_structure() -> None:
    feasible = Budget(macs=LEAST.macs, params=LEAST.params).check(SPACE)
    moved = feasible.fit(SPACE.sample(np.random.default_rng(0), 20))
    assert set(as_structures(moved)) == {SPACE.minimum}


def test_numpys_integers_are_integers() -> None:
    assert Budget(macs=np.int64(100_000)).check(SPACE) == Budget(macs=100_000).check(SPACE)  # type: ignore[arg-type]


def test_a_budget_reads_as_the_command_line_writes_it() -> None:
    assert str(Budget(macs="50%", params=1234)) == "macs=50%, params=1234"
    assert Budget.parse(str(Budget(macs="50%", params="1k"))) == Budget(macs="50%", params="1k")


limits = st.tuples(st.integers(0, 100), st.integers(0, 100), st.booleans())


def feasible_set(limits: tuple[int, int, bool]) -> FeasibleSet:
    """Limits anywhere between the narrowest and the full structure, one or both."""
    macs = LEAST.macs + (FULL.macs - LEAST.macs) * limits[0] // 100
    params = LEAST.params + (FULL.params - LEAST.params) * limits[1] // 100
    return Budget(macs=macs, params=params if limits[2] else None).check(SPACE)


@settings(deadline=None, derandomize=True)
@given(limits, st.integers(0, 2**32))
def test_repair_lands_inside_and_never_grows_and_leaves_members_alone(limits: tuple[int, int, bool], seed: int) -> None:
    feasible = feasible_set(limits)
    before = SPACE.sample(np.random.default_rng(seed), 16)
    after = feasible.repair(before)
    assert feasible.contains(after).all()
    assert (after <= before).all()
    inside = feasible.contains(before)
    assert np.array_equal(after[inside], before[inside])
    assert all(SPACE.check(row) for row in as_structures(after))


@settings(deadline=None, derandomize=True)
@given(limits, st.integers(0, 2**32))
def test_fit_lands_inside_and_uses_the_budget_up(limits: tuple[int, int, bool], seed: int) -> None:
    feasible = feasible_set(limits)
    after = feasible.fit(SPACE.sample(np.random.default_rng(seed), 16))
    assert feasible.contains(after).all()
    for group in range(len(SPACE.groups)):
        indices = SPACE.indices(after)
        indices[:, group] = np.minimum(indices[:, group] + 1, SPACE.choices[group] - 1)
        wider = SPACE.from_indices(indices)
        assert not (feasible.contains(wider) & (wider != after).any(axis=1)).any()  # not one group has room for a step


def test_fit_keeps_the_proportions_it_was_given() -> None:
    space = chain_space((128, 128, 128), 128)
    feasible = Budget(macs="30%").check(space)
    (fitted,) = feasible.fit([(128, 64, 128)])
    assert fitted[1] / fitted[0] == pytest.approx(0.5, abs=0.02)
    assert space.macs([fitted])[0] > 0.97 * feasible.limits[0][1]


def test_a_tightened_set_says_so() -> None:
    feasible = Budget(macs="60%", params="90%").check(SPACE)
    tighter = feasible.tightened(0.7)
    limits = dict(tighter.limits)
    assert tighter.as_facts() == {"limits": {"macs": "60%", "params": "90%"}, "lowered": limits}
    assert tighter.tightened(1.0) == tighter
    assert feasible.tightened(1.0).as_facts() == feasible.as_facts()


def test_repairing_nothing_gives_nothing() -> None:
    feasible = Budget(macs="50%").check(SPACE)
    assert feasible.repair(as_array([], SPACE)).shape == (0, 4)
    assert feasible.fit(as_array([], SPACE)).shape == (0, 4)


def test_a_budget_of_everything_admits_every_structure() -> None:
    space = chain_space()
    feasible = Budget(macs="100%").check(space)
    rows = np.array(every_structure(space))
    assert feasible.contains(rows).all()
    assert np.array_equal(feasible.repair(rows), rows)
