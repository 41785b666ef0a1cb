"""What every registered searcher promises. A new one inherits all of it by being listed in `SEARCHERS`."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from prunesearch.budget import Budget, BudgetOrSet
from prunesearch.search import SEARCHER, SEARCHERS, WITH_POLICY, learns_policy
from prunesearch.search.searcher import PolicySearcher
from prunesearch.testing import SearcherContract

TELLING = ("macs", "both", "tight", "latency with cliffs")
"""Budgets that differ most; the others take as long, and are slow tests."""


class TestSearchers(SearcherContract):
    @pytest.fixture(autouse=True, params=sorted(SEARCHERS))
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.searcher = request.param

    def budgets(self) -> dict[str, Budget]:
        return {name: budget for name, budget in super().budgets().items() if name in TELLING}

    @pytest.mark.slow
    def test_the_same_proposals_come_in_another_process_with_another_hash_seed(self) -> None:
        super().test_the_same_proposals_come_in_another_process_with_another_hash_seed()

    def test_it_is_known_without_building_it_whether_it_learns_a_policy(self) -> None:
        searcher = self.make(self.space(), self.budgets()["macs"])
        is_one = isinstance(searcher, PolicySearcher)
        assert is_one == learns_policy(self.searcher) == (self.searcher in WITH_POLICY)


class UnderOtherBudgets(SearcherContract):
    def budgets(self) -> dict[str, Budget]:
        return {name: budget for name, budget in super().budgets().items() if name not in TELLING}


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_a_typed_call_may_give_a_budget_that_is_resolved(searcher: str) -> None:
    assert get_type_hints(SEARCHER.found(searcher).__init__)["budget"] == BudgetOrSet


@pytest.mark.slow
@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_every_proposal_is_valid_under_the_other_budgets_too(searcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnderOtherBudgets, "searcher", searcher, raising=False)
    UnderOtherBudgets().test_every_proposal_is_in_the_space_within_the_budget_and_new()
