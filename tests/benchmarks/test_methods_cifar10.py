"""Every arm of the methods on CIFAR-10, on a small network; and their table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import methods_cifar10
import pytest
from methods_cifar10 import ARMS, BUDGETS, FINETUNING, SCRATCH, Job
from tabulated.methods import tables
from torch import nn

import prunesearch as ps
from tests.models.networks import image, randomised

LAYERS = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU()]


@pytest.fixture
def job() -> Job:
    model = randomised(nn.Sequential(*LAYERS, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))).eval()
    images = image(48, 3, 8, 8)
    pair = images, model(images).argmax(1)
    short = [
        replace(recipe, epochs=5, batch_size=16, augmentation=ps.Augmentation()) for recipe in (FINETUNING, SCRATCH)
    ]
    data = ps.Data(train=pair, calibrate_on=pair, calibration=16)
    return Job(ps.trace(model, images[:2]), data, pair, ps.Budget(macs="100%"), 0, *short, trials=3)


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_meets_its_budget_and_is_measured_once(arm: str, job: Job, tmp_path: Path, capsys: Any) -> None:
    methods_cifar10.run(job, [f"{arm}.0"], tmp_path)
    (file,) = tmp_path.iterdir()
    found = json.loads(file.read_text())
    full = found["facts"]["full"]
    name, _, how = arm.partition("-")
    if name in BUDGETS:
        ((resource, limit),) = BUDGETS[name].check(job.network.space).limits
        slack = 1.1 if how in ("manidp", "both") else 1.0  # of gates: for the average image
        assert found[resource] <= slack * limit < full[resource]
    else:
        assert found["macs"] == full["macs"]
    assert 0 <= found["accuracy"] <= 1
    assert "CPU-seconds" in capsys.readouterr().out
    methods_cifar10.run(job, [f"{arm}.0"], tmp_path)
    assert not capsys.readouterr().out


def cell(arm: str, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    facts = {
        "unpruned": 0.9, "full": {"macs": 100, "params": 10}, "test images": 1, "train images": 2, "scoring images": 3,
        "network": "n", "machine": "m", "versions": {"prunesearch": "0", "torch": "2"},
    }  # fmt: skip
    return {
        "arm": arm,
        "seed": seed,
        "accuracy": accuracy,
        "macs": 37,
        "params": 5,
        "seconds": 10,
        "facts": facts,
        **more,
    }


def test_a_table_has_the_arms_that_were_measured_under_their_budgets() -> None:
    cells = [
        cell("manidp-search", 0, 0.8, epochs=8),
        cell("manidp-search", 1, 0.82, epochs=8),
        cell("ga-search", 0, 0.7),
    ]
    lines = tables({"resnet20": {"cells": dict(enumerate(cells))}}).splitlines()
    assert lines[2] == "| as it comes | 90.00% | 100% | 100% |  |  |  |"
    assert lines[4] == "| search, finetuned with teacher | 81.00 ± 1.41% | 37.0% | 50.0% | 8 | 10 | 2 |"
    assert lines[5].startswith("| **33% of the MACs** |")
    assert lines[6] == "| search, finetuned with teacher | 70.00% | 37.0% | 50.0% |  | 10 | 1 |"
