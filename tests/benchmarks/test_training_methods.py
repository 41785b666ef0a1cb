"""Rows of one file are measured alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import training_methods


def test_rows_with_other_settings_are_not_put_beside_those_that_are_there() -> None:
    file = Path(training_methods.__file__).parent / "results" / "training_methods.json"
    facts = json.loads(file.read_text())["facts"]
    training_methods.check_same(facts, {**facts, "torch": "another"}, file)
    with pytest.raises(SystemExit, match=r"training_methods\.json was measured with another model and budget"):
        training_methods.check_same(facts, {**facts, "model": "resnet20", "budget": "10%"}, file)
