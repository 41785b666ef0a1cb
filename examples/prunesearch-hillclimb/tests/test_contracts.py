"""The names that the package adds keep the contracts of prunesearch."""

from __future__ import annotations

import torch

from prunesearch.tasks import make_task
from prunesearch.testing import CriterionContract, SearcherContract


class TestHillclimb(SearcherContract):
    searcher = "hillclimb"


class TestSpread(CriterionContract):
    criterion = "spread"


def test_the_second_guess_counts_too():
    logits, labels = torch.tensor([[3.0, 2.0, 1.0]]).expand(3, 3), torch.tensor([0, 1, 2])
    assert make_task("top2").metric(logits, (None, labels)).tolist() == [1, 1, 0]
