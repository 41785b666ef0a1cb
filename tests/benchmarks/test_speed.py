"""Benchmarks of speed: versions are measured in turn, each with its own package, and tables say what was measured."""

from __future__ import annotations

from pathlib import Path

import beside
import pytest
from tabulated import detectors, evaluator


def test_each_version_runs_in_every_round_and_its_fewest_seconds_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    seconds = iter([{"a": 3.0}, {"a": 1.0}, {"a": 2.0}, {"a": 4.0}])

    def measured(version: Path, script: str, arguments: list[str], variables: dict[str, str]) -> dict[str, float]:
        asked.append(version.name)
        assert arguments == ["--here", "--networks", "a"]
        return next(seconds)

    monkeypatch.setattr(beside, "in_process", measured)
    monkeypatch.setattr(beside, "commit", lambda folder: folder.name)
    first, now = beside.versions([tmp_path], "script.py", ["a"], rounds=2)
    assert asked == [tmp_path.name, beside.ROOT.name] * 2
    assert (first["seconds"], now["seconds"]) == ({"a": 2.0}, {"a": 1.0})


def test_a_version_prints_what_its_own_package_says(tmp_path: Path) -> None:
    package = tmp_path / "version" / "prunesearch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("NAME = 'of another folder'\n")
    script = tmp_path / "script.py"
    script.write_text("import json, os, sys, prunesearch\nprint(json.dumps([prunesearch.NAME, os.environ['X']]))\n")
    assert beside.in_process(package.parent, str(script), [], {"X": "1"}) == ["of another folder", "1"]


def test_the_table_of_scoring_compares_with_the_earlier_version() -> None:
    def row(commit: str, seconds: float) -> dict[str, object]:
        return {"commit": commit, "seconds": {"net": seconds}}

    result = {
        "versions": [row("abc First", 2.0), row("def Now", 1.9)],
        "kept": [row("abc First", 1.5), row("def Now", 1.0)],
        "facts": {"images": 64, "pixels": 224, "rounds": 2, "torch": "2"},
    }
    assert "| net | 2.00 | 1.90 | 1.50 | 1.00 | 0.50 |" in evaluator.speed(result)


def test_the_table_of_detectors_has_a_line_for_each_search() -> None:
    rows = {"random, loss": {"structures": 200, "images": 12_800, "wall": 99.6, "cpu": 180.2}}
    facts = {"pixels": 320, "threads": 2, "machine": "m", "versions": {"prunesearch": "0", "torch": "2"}}
    assert "| random, loss | 200 | 12,800 | 100 | 180 |" in detectors.speed({"rows": rows, "facts": facts})
