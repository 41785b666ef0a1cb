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


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_it_ends_after_a_structure_or_a_step_if_it_is_asked_to_and_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    stopped: list[str] = []

    def stop_if_asked() -> None:
        doing = said[-1].partition(" ")[0]
        if doing not in stopped:
            stopped.append(doing)
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            demo.run_demo(tmp_path, n_trials=2, say=said.append, stop_if_asked=stop_if_asked)
    assert stopped == ["Training", "Searching", "Finetuning"]
    found = demo.run_demo(tmp_path, n_trials=2, stop_if_asked=lambda: None)
    assert [row.evaluations for row in found.rows] == [0, 1, 2, 2, 2]
