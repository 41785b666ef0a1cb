"""Cells keep to their facts, and trainings to their recipes and seconds."""

from __future__ import annotations

import json
from pathlib import Path

import cells
import pytest


def test_a_cell_of_other_facts_is_refused_and_one_that_is_older_than_a_fact_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.0.json").write_text(json.dumps({"facts": {"network": "n", "images": 1}}))
    now = {"network": "n", "images": 1, "recipe": "r"}
    assert cells.stored("a.0", tmp_path, now, list(now)) is not None
    with pytest.raises(SystemExit, match=r"a\.0\.json was measured with another images; give another --out"):
        cells.stored("a.0", tmp_path, {**now, "images": 2}, list(now))
    (tmp_path / "a.1.json").write_text(json.dumps({"facts": {**now, "recipe": "other"}}))
    with pytest.raises(SystemExit, match="another recipe"):
        cells.stored("a.1", tmp_path, now, list(now))


def test_seconds_of_a_training_outlive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of a second each, a kill, and one of four: six seconds for three steps."""
    times = iter([0.0, 1.0, 2.0, 100.0, 104.0, 200.0])
    monkeypatch.setattr(cells.time, "process_time", lambda: next(times))
    file = tmp_path / "net.clock"
    first = cells.Clock(file)
    first.tick()
    first.tick()
    cells.Clock(file).tick()
    over = cells.Clock(file)  # killed after the last step: nothing is left to do, and nothing is forgotten
    assert over.of_all(3) == 6.0
    over.done()
    assert not file.exists()


def test_a_training_that_nobody_timed_did_not_take_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"Expected net\.clock, .* Move what is left of net away, and train again\."):
        cells.Clock(tmp_path / "net.clock").of_all(3)


def test_weights_of_another_recipe_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "net.safetensors"
    cells.check_recipe(weights, "r")  # nothing says of which they are
    weights.with_suffix(".json").write_text(json.dumps({"recipe": repr("r")}))
    cells.check_recipe(weights, "r")
    with pytest.raises(SystemExit, match=r"Expected weights of 'other', but net\.safetensors is of 'r'"):
        cells.check_recipe(weights, "other")
