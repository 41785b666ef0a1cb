"""The benchmark of refitted segmenters, on a tiny U-Net: cells are measured once, and the table says what came back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import recovery_tasks
import torch
import unet
from tabulated.recovery_tasks import table

import prunesearch as ps
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.refitted import RefittedWeights
from prunesearch.training.evaluation import metric_on_test
from tests.models.networks import image, randomised


def bench() -> recovery_tasks.Bench:
    network = ps.trace(randomised(unet.UNet((4, 6), classes=3)).eval(), image(2, 3, 8, 8))
    masks = torch.randint(3, (6, 8, 8), generator=torch.Generator().manual_seed(0))
    pairs = image(6, 3, 8, 8), masks
    data = ps.Data(pairs, test=pairs, task=ps.tasks.segmentation(), calibration=4)
    rankings = {name: make_criterion("l1").rank(network) for name in ("l1", "cap")}
    seen = image(16, 3, 8, 8, seed=1)
    return recovery_tasks.Bench(network, rankings, seen, data, lambda model: metric_on_test(model, data)[0], "mIoU")


def test_cells_are_measured_once_and_keep_to_their_share(tmp_path: Path) -> None:
    for _ in range(2):
        recovery_tasks.run(bench(), ["70-l1.0", "70-l1.1"], tmp_path)
    cells = [json.loads((tmp_path / f"70-l1.{number}.json").read_text()) for number in (0, 1)]
    assert all(cell["row"]["macs"] <= 0.7 for cell in cells)
    assert cells[0]["row"]["structure"] != cells[1]["row"]["structure"]
    assert set(cells[0]["row"]["reached"]) == {"inherited", "compensated", "reconstructed"}
    assert "| 70 % | `l1` | uniform | 1 |" in table({"cells": dict(enumerate(cells))})


def test_a_search_finds_the_widths_of_searched_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_tasks, "TRIALS", 5)
    recovery_tasks.run(bench(), ["70-cap-searched.1"], tmp_path)
    cell = json.loads((tmp_path / "70-cap-searched.1.json").read_text())
    place = bench()
    found = ps.search(place.network, place.data, budget="macs=70%", n_trials=5, seed=1).best.structure
    assert cell["row"]["structure"] == list(found)
    assert "| 70 % | `cap` | searched | 1 |" in table({"cells": {"a": cell}})


def test_every_layer_of_a_unet_that_reads_pruned_channels_is_refitted() -> None:
    for name, weights in recovery_tasks.sources(bench(), "l1").items():
        if isinstance(weights, RefittedWeights):
            places = {layer.place for layer in weights.layer_of.values()}
            assert places == {read.place for read in weights.network.reads if read.is_layer}, name
            assert weights.notes == ()


def test_the_table_says_which_share_of_the_loss_came_back() -> None:
    facts = {"metric": "mIoU", "unpruned": 0.5, "seen images": 1, "machine": "m"}
    facts["versions"] = {"prunesearch": "0", "torch": "2"}  # type: ignore[assignment]
    scores = {"inherited": 0.1, "compensated": 0.3, "reconstructed": 0.5}
    found = table({"cells": {"a": {"arm": "70-cap", "number": 0, "row": {"reached": scores}, "facts": facts}}})
    assert "| 70 % | `cap` | uniform | 1 | 10.0 | 30.0 | 50.0 | 50% | 100% |" in found
    assert "is met in 1 of 1 lines." in found
