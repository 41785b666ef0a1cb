"""Searchers of anybody's: what is wrong about their proposals is said before a score is spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from prunesearch.budget import Budget
from prunesearch.errors import ContractBroken
from prunesearch.search.checked import CheckedSearcher
from prunesearch.search.random_search import RandomSearcher
from prunesearch.trial import Trial
from tests.toys import chain_space, toy_table, trials_of

SPACE = chain_space((8, 8), 4)
BUDGET = Budget(macs="60%")


class Says:
    """Proposes what it is told to, and remembers what it is told."""

    def __init__(self, *proposed: Any) -> None:
        self.proposed: Any = list(proposed)
        self.told: list[Trial] = []

    def ask(self, n: int) -> Any:
        return self.proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told += trials


def test_proposals_come_through_as_tuples_of_pythons_integers_and_trials_as_they_are() -> None:
    says = Says(np.array([4, 4]), [2, 6])
    searcher = CheckedSearcher(says, SPACE, BUDGET)
    asked = searcher.ask(3)
    assert asked == [(4, 4), (2, 6)]
    assert {type(width) for structure in asked for width in structure} == {int}
    trials = trials_of(asked, sum)
    searcher.tell(trials)
    assert says.told == trials


def test_what_keeps_its_contract_is_not_in_the_way_until_it_is_finished() -> None:
    for budget in (BUDGET, Budget(latency_ms="90%", table=toy_table(SPACE))):
        plain, checked = (RandomSearcher(SPACE, budget) for _ in range(2))
        watched = CheckedSearcher(checked, SPACE, budget)
        for n in (1, 5, 20, 20):
            asked = plain.ask(n)
            assert watched.ask(n) == asked
            for searcher in (plain, watched):
                searcher.tell(trials_of(asked, sum))
        assert watched.ask(1) == []


def test_what_was_told_must_not_be_proposed_either() -> None:
    searcher = CheckedSearcher(Says((4, 4)), SPACE, BUDGET)
    searcher.tell(trials_of([(4, 4)], sum))
    with pytest.raises(ContractBroken, match=r"The searcher Says breaks .* \(4, 4\), which was proposed before"):
        searcher.ask(1)


def test_a_limit_of_milliseconds_is_one_that_proposals_are_held_to() -> None:
    budget = Budget(latency_ms="90%", table=toy_table(SPACE))
    full = SPACE.cost(SPACE.full)
    expected = (
        rf"\(8, 8\), with {full.macs:,} MACs, {full.params:,} parameters, 0\.0\d+ ms, which is over the budget latency"
    )
    with pytest.raises(ContractBroken, match=expected):
        CheckedSearcher(Says((8, 8)), SPACE, budget).ask(1)
