"""The demo: right the first time, and right again in the same folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunesearch import demo
from prunesearch.training.recipe import Recipe


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch each, of a small network: what it reaches is not what is tested here."""
    monkeypatch.setattr(demo, "MODEL", "resnet8")
    for name in ("TRAINING", "FINETUNING"):
        monkeypatch.setattr(demo, name, Recipe(epochs=1))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_rerun_keeps_what_is_done_and_a_longer_one_measures_its_new_winners_anew(tmp_path: Path) -> None:
    first = demo.run_demo(tmp_path, n_trials=4)
    assert [row.searcher for row in first.rows] == ["unpruned", *demo.SEARCHERS]
    assert [row.evaluations for row in first.rows] == [0, 1, 4, 4, 4]
    full = first.rows[0]
    assert all(row.macs <= 0.2 * full.macs for row in first.rows[1:])
    assert first.facts["seconds"] > 0
    json.dumps(first.as_dict())

    told: list[str] = []
    again = demo.run_demo(tmp_path, n_trials=4, say=told.append)
    assert again.rows[1:] == first.rows[1:]
    assert again.facts["seconds"] is None
    assert not [sentence for sentence in told if sentence.startswith(("Training", "Finetuning"))]

    told.clear()
    longer = demo.run_demo(tmp_path, n_trials=24, say=told.append)
    for before, after in zip(first.rows[2:], longer.rows[2:], strict=True):
        changed = (before.macs, before.params) != (after.macs, after.params)
        assert (f"Finetuning the winner of {after.searcher}, epochs: 1." in told) == changed


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_another_seed_in_the_same_folder_is_another_demo(tmp_path: Path) -> None:
    one, other = (demo.run_demo(tmp_path, n_trials=2, seed=seed) for seed in (0, 1))
    assert one.study != other.study
    assert one.rows[0].accuracy_before != other.rows[0].accuracy_before
