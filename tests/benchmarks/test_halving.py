"""The benchmark of short trainings, on a small network, and its table."""

from __future__ import annotations

from typing import Any

import halving
import pytest
from racing import Bench
from tabulated.halving import table
from torch import nn

import prunesearch as ps
from tests.models.networks import image, randomised


@pytest.mark.parametrize("name", sorted(halving.FIND))
def test_a_cell_is_of_a_structure_within_the_budget_and_longer_trainings_take_more_steps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halving, "FEW", 16)
    monkeypatch.setattr(halving, "MANY", 16)
    monkeypatch.setattr(halving, "TRIALS", 4)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1)]
    model = randomised(nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 4))).eval()
    images = image(96, 3, 8, 8)
    part = images, model(images).argmax(1)
    bench = Bench(ps.trace(model, images[:2]), part, part, part)
    row = halving.measured(bench, f"70-{name}", 0, ps.Recipe(epochs=2, batch_size=16, lr=0.01))
    assert row["macs"] <= 0.7 * bench.network.space.cost(bench.network.space.full).macs
    assert [each["epochs"] for each in row["short"]] == [0.25, 0.5, 1.0]
    losses = [each["loss"] for each in row["short"]] + [row["long"]["loss"]]
    assert len(set(losses)) == 4  # each began anew and went elsewhere


def cell(name: str, seed: int, short: float, last: float) -> dict[str, Any]:
    facts = {
        "network": "n",
        "full macs": 100,
        "train images": 1,
        "held out images": 2,
        "unseen images": 3,
        "machine": "m",
        "versions": {"prunesearch": "0", "torch": "2"},
    }
    rows = [{"epochs": 0.5, "loss": 1 - short, "accuracy": short, "seconds": 10.0}]
    return {
        "arm": f"30-{name}",
        "seed": seed,
        "macs": 29,
        "short": rows,
        "long": {"epochs": 2, "accuracy": last},
        "facts": facts,
    }


def test_the_table_says_what_a_short_training_would_have_chosen() -> None:
    """Here it takes the worst: its loss is the lowest, and the order is turned round."""
    cells = [cell("a", 0, 0.7, 0.80), cell("b", 0, 0.6, 0.81), cell("c", 0, 0.5, 0.83), cell("a", 1, 0.7, 0.80)]
    lines = table({"cells": dict(enumerate(cells))}).splitlines()
    assert lines[2] == "| c | 50.0 | 83.0 | 29.0% | 1 |"
    assert lines[4] == "| a | 70.0 ± 0.0 | 80.0 ± 0.0 | 29.0% | 2 |"
    assert "| 0.5 | -1.00 | 3.0 | 10 |" in lines  # of seed 0, which alone has all three


def test_what_the_score_chooses_stands_beside_what_short_trainings_do() -> None:
    cells = [cell("score", 0, 0.6, 0.81), cell("b", 0, 0.7, 0.80), cell("c", 0, 0.5, 0.83)]
    assert "| none |  | 2.0 | 0 |" in table({"cells": dict(enumerate(cells))}).splitlines()


def test_without_all_structures_of_a_seed_nothing_is_said_of_a_choice() -> None:
    assert "tau" not in table({"cells": {"x": cell("a", 0, 0.7, 0.8)}})
