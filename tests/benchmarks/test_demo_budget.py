"""The demo has the budget and the finetuning that its measurement speaks for, and the table says what was measured."""

from __future__ import annotations

import tables
from demo_budget import FINETUNINGS, SEEDS
from tabulated.demo import budgets

from prunesearch import demo

RESULT = tables.measured("demo_budget")


def test_the_demo_has_what_kept_a_search_ahead_most() -> None:
    assert RESULT is not None
    after = {(r["share"], r["epochs"], r["lr"], r["searcher"], r["seed"]): r["after"] for r in RESULT["rows"]}
    tried = [(share, *how) for share, each in FINETUNINGS.items() for how in each]
    gains = {
        kind: sum(after[(*kind, "evolution", seed)] - after[(*kind, "uniform", seed)] for seed in SEEDS)
        for kind in tried
    }
    chosen = (dict(demo.BUDGET.limits)["macs"], demo.FINETUNING.epochs, demo.FINETUNING.lr)
    assert max(gains, key=lambda kind: gains[kind]) == chosen
    assert len(after) == 2 * len(SEEDS) * len(tried)


def test_the_table_has_means_and_the_gain_of_each_seed() -> None:
    rows = [
        {"seed": seed, "share": "20%", "searcher": name, "epochs": 1, "lr": 0.02, "images": 10, "before": 0.5,
         "after": after}
        for seed, pair in ((1, (0.8, 0.9)), (2, (0.6, 0.5)))
        for name, after in zip(("uniform", "evolution"), pair, strict=True)
    ]  # fmt: skip
    line = budgets({"rows": rows}).splitlines()[2]
    assert line == "| 20% | 1, 0.02 | 1, 2 | 50.00% | 50.00% | 70.00% | 70.00% | +10.0, -10.0 points |"
