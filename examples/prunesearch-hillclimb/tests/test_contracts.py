"""The names that the package adds keep the contracts of prunesearch."""

from __future__ import annotations

from prunesearch.testing import CriterionContract, SearcherContract


class TestHillclimb(SearcherContract):
    searcher = "hillclimb"


class TestSpread(CriterionContract):
    criterion = "spread"
