"""The benchmark of short finetunings, on a small network: cells are resumed, and their table compares equal seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import recovery
from racing import Bench
from tabulated.recovery import table
from torch import nn

import prunesearch as ps
from tests.models.networks import image, randomised


@pytest.fixture
def bench() -> Bench:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1)]
    model = randomised(nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 4))).eval()
    images = image(96, 3, 8, 8)
    part = images, model(images).argmax(1)
    return Bench(ps.trace(model, images[:2]), part, part, part)


def test_a_cell_trains_what_an_arm_finds_and_is_not_measured_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ps.Recipe(epochs=1, batch_size=32, lr=1e-9)
    monkeypatch.setitem(recovery.ARMS, "uniform", recovery.Arm(recovery.uniform, short))  # type: ignore[arg-type]
    for _ in range(2):
        recovery.run(bench, bench.unseen, ps.Budget(macs="70%"), ["uniform.0"], tmp_path)
    cell = json.loads((tmp_path / "uniform.0.json").read_text())
    row = cell["row"]
    assert row["holds"]
    assert row["macs"] <= 0.7 * cell["facts"]["full macs"]
    assert row["test"]["accuracy"] == row["unseen"]["accuracy"]  # the same images here
    assert row["epochs"] == 1
    assert set(row["seconds"]) == {"search", "training"}


def cell(arm: str, seed: int, accuracy: float, network: str = "n") -> dict[str, Any]:
    facts = {
        "network": network,
        "unpruned": {"accuracy": 0.88},
        "full macs": 100,
        "limit": "macs=50%",
        "search images": 1,
        "train images": 1,
        "test images": 1,
        "machine": "m",
        "versions": {"prunesearch": "0", "torch": "2"},
    }
    row = {
        "macs": 50,
        "before": {"accuracy": 0.7},
        "test": {"accuracy": accuracy},
        "epochs": 2,
        "seconds": {"search": 10.0, "training": 100.0},
    }
    return {"arm": arm, "seed": seed, "facts": facts, "row": row}


def test_the_table_compares_cells_of_equal_seeds() -> None:
    """Seed 2 of the one arm has no partner: it counts for the mean, and not for the difference."""
    cells = [cell("fastnas", 0, 0.85), cell("fastnas", 1, 0.86), *(cell("ours", i, 0.87) for i in range(3))]
    lines = table({"cells": dict(enumerate(cells))}).splitlines()
    assert lines[2].startswith("| **ours**")
    assert "| 87.00 ± 0.00 | +1.50 ± 0.50 |" in lines[2]
    assert "| 85.50 ± 0.71 |  |" in lines[3]


def test_cells_of_other_networks_are_not_compared() -> None:
    with pytest.raises(ValueError, match="ours and fastnas with seed 0 are of other networks"):
        table({"cells": {"a": cell("fastnas", 0, 0.85, "other"), "b": cell("ours", 0, 0.87)}})


def test_cells_are_chosen_by_arm_or_name() -> None:
    assert recovery.cells_of(["fastnas.1", "ours"])[:2] == ["ours.0", "ours.1"]
    with pytest.raises(SystemExit, match="Expected arms"):
        recovery.cells_of(["nobody"])


def test_arms_that_differ_by_the_teacher_differ_by_nothing_else() -> None:
    for taught, plain in (("fastnas-taught", "fastnas"), ("uniform-taught", "uniform"), ("ours", "ours-untaught")):
        one, other = recovery.ARMS[taught], recovery.ARMS[plain]
        assert (one.prune, one.recipe, one.taught) == (other.prune, other.recipe, True)
        assert not other.taught
