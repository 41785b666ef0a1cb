"""The evidence fills over several runs, and its table says what the cells say."""

from __future__ import annotations

from typing import Any

import end_to_end
import pytest
import torch
from tabulated import evidence

ARMS = ["ours", *(arm for arms in evidence.RIVALS.values() for arm in arms)]


def cell(accuracy: float, seconds: float = 10.0, *, holds: bool = True) -> dict[str, Any]:
    costs = {"macs": 50, "params": 5, "holds": holds, "before": 0.5, "accuracy": accuracy}
    return {**costs, "seconds": {"search": seconds, "finetune": 0.0}, "evaluations": 1, "notes": []}


def results(cells: dict[str, Any]) -> dict[str, Any]:
    settings = {
        "data": "noise", "image_size": 14, "train_images": 1, "search_images": 1, "validation_images": 1,
        "test_images": 10_000, "epochs": 1, "finetune_epochs": 1, "trials": 1,
    }  # fmt: skip
    facts = {"settings": settings, "arms": ARMS, "networks": ["net"], "budgets": ["50%"], "versions": {}}
    facts |= {"threads": 1, "machine": "here"}
    unpruned = {"net | 0": {"macs": 100, "params": 10, "accuracy": 0.9, "seconds": None}}
    return {"facts": facts, "unpruned": unpruned, "cells": cells}


def seeds(arm: str, *accuracies: float, **options: Any) -> dict[str, Any]:
    return {f"net | 50% | {arm} | {seed}": cell(value, **options) for seed, value in enumerate(accuracies)}


def rivals(*accuracies: float, **options: Any) -> dict[str, Any]:
    return {name: value for arm in ARMS[1:] for name, value in seeds(arm, *accuracies, **options).items()}


def verdict(cells: dict[str, Any]) -> evidence.Verdict:
    stored = results(cells)
    return evidence.verdict({arm: evidence.row_of(stored, "net", "50%", arm) for arm in ARMS}, stored)


def test_a_network_over_the_budget_meets_no_goal() -> None:
    assert verdict({**rivals(0.80, 0.80), **seeds("ours", 0.99, 0.99, holds=False)}).met is False


def test_the_goal_is_met_by_a_tie_within_a_standard_error_in_no_more_time() -> None:
    assert verdict({**rivals(0.80, 0.82), **seeds("ours", 0.81, 0.80)}).met is True


def test_the_goal_is_missed_behind_by_more_than_a_standard_error() -> None:
    assert verdict({**rivals(0.90, 0.92), **seeds("ours", 0.80, 0.82)}).met is False


def test_the_goal_is_missed_in_more_time_than_fastnas() -> None:
    assert verdict({**rivals(0.8, 0.8), **seeds("ours", 0.9, 0.9, seconds=11.0)}).met is False


def test_the_goal_stays_open_while_a_rival_was_not_run() -> None:
    cells = {**rivals(0.8), **seeds("ours", 0.9)}
    del cells["net | 50% | scratch, equal compute | 0"]
    assert verdict(cells).met is None


def test_a_rival_above_the_budget_does_not_count() -> None:
    cells = {**rivals(0.8, 0.8), **seeds("fastnas", 0.99, 0.99, holds=False), **seeds("ours", 0.81, 0.81)}
    assert verdict(cells).accuracy is True


def test_arms_that_were_not_run_have_no_line_and_failed_ones_say_so() -> None:
    cells = {**seeds("ours", 0.91), "net | 50% | fastnas | 0": {"failure": "KeyError: what"}}
    page = evidence.evidence(results(cells))
    assert "| uniform, L1 |" not in page
    assert "| ModelOpt FastNAS | failed |" in page
    assert "KeyError: what" in page
    assert "**91.00**" in page


def test_the_parts_of_the_split_share_no_image() -> None:
    images = torch.arange(130.0).reshape(130, 1, 1, 1).expand(130, 1, 2, 2).clone()
    labels = torch.arange(130) % 10
    task = end_to_end.tasks.Task("numbers", (images, labels), (images[:10], labels[:10]))
    parts = end_to_end.split(task, 1)
    numbers = [sorted(part[0].flatten().tolist()) for part in (parts.train, parts.search, parts.validation)]
    assert sorted(number for part in numbers for number in part) == list(range(130))
    assert [len(part) for part in numbers] == [100, 10, 20]


def test_a_cell_is_empty_until_it_is_written_and_a_failed_one_only_on_request() -> None:
    assert end_to_end.is_empty(None, retry_failed=False)
    assert not end_to_end.is_empty({"accuracy": 0.9}, retry_failed=True)
    assert not end_to_end.is_empty({"failure": "x"}, retry_failed=False)
    assert end_to_end.is_empty({"failure": "x"}, retry_failed=True)


def test_results_of_other_settings_are_not_mixed(tmp_path: Any) -> None:
    file = end_to_end.Results(tmp_path / "cells.json")
    file.begin({"settings": {"epochs": 1}})
    file.write("cells", "a", {"accuracy": 0.5})
    file.begin({"settings": {"epochs": 1}})
    assert file.read()["cells"] == {"a": {"accuracy": 0.5}}
    with pytest.raises(SystemExit, match="epochs"):
        file.begin({"settings": {"epochs": 2}})


def test_cells_of_an_arm_that_changed_can_be_emptied(tmp_path: Any) -> None:
    file = end_to_end.Results(tmp_path / "cells.json")
    file.write("cells", end_to_end.key(0, "ours", "net", "50%"), {"accuracy": 0.5})
    file.write("cells", end_to_end.key(0, "fastnas", "net", "50%"), {"accuracy": 0.5})
    assert file.forget(["fastnas"]) == 1
    assert list(file.read()["cells"]) == ["net | 50% | ours | 0"]
