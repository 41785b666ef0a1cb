"""One order over all groups: against the definition, unit by unit."""

from __future__ import annotations

import numpy as np
import pytest

from prunesearch.budget import Budget
from prunesearch.search.global_order import GlobalSearcher
from tests.toys import chain_space

SPACE = chain_space((8, 12, 16), 4)


def test_units_go_in_one_order_until_the_budget_is_met() -> None:
    """The slow way: drop the least of all units, again and again."""
    rng = np.random.default_rng(0)
    for budget in ("80%", "50%", "30%", "15%"):
        scores = [rng.random(group.units) for group in SPACE.groups]
        feasible = Budget(macs=budget).check(SPACE)
        left = [sorted(values) for values in scores]
        while True:
            widths = [
                max([w for w in g.widths if w <= len(v)], default=g.widths[0])
                for g, v in zip(SPACE.groups, left, strict=True)
            ]
            if feasible.contains([widths])[0]:
                break
            min((values for values in left if values), key=lambda values: values[0]).pop(0)
        (found,) = GlobalSearcher(SPACE, Budget(macs=budget), unit_scores=scores).ask(5)
        assert found == tuple(feasible.widen([widths])[0])


def test_a_group_of_worthless_units_keeps_its_minimum() -> None:
    scores = [np.zeros(8), 1 + np.arange(12.0), 1 + np.arange(16.0)]
    searcher = GlobalSearcher(SPACE, Budget(macs="70%"), unit_scores=scores)
    assert searcher.ask(1)[0][0] <= 4
    assert searcher.ask(1) == []


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([np.ones(8), np.ones(12)], "one per unit of each group"),
        ([np.ones(7), np.ones(12), np.ones(16)], "one per unit of each group"),
        ([np.ones(8) * np.nan, np.ones(12), np.ones(16)], "finite"),
    ],
)
def test_scores_of_something_else_are_refused(scores: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GlobalSearcher(SPACE, Budget(macs="50%"), unit_scores=scores)
