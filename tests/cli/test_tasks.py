"""Other tasks than classification from the command line, and the same network without labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.calls import Call

FILE = """
import torch
from torch import nn
import prunesearch as ps

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
                         nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 2, 1))

def images():
    return torch.rand(80, 3, 12, 12, generator=torch.Generator().manual_seed(0))

def data():
    pixels = images()
    both = pixels, (pixels.mean(1) > 0.5).long()
    return ps.Data(train=both, test=both, calibration=40, validation=0.2, task="segmentation")

def unlabelled():
    return ps.Data(train=images(), test=images(), calibration=40)

def task():
    return ps.Task(loss=lambda outputs, batch: outputs.square().mean((1, 2, 3)), name="small outputs")

def nothing():
    return 3
"""
NETWORK = ("--model", "seg.py:model")


@pytest.fixture
def work(call: Call, folder: Path) -> Call:
    (folder / "seg.py").write_text(FILE)
    return call


def test_a_segmenter_is_searched_trained_and_compared(work: Call, folder: Path) -> None:
    data = (*NETWORK, "--data", "seg.py:data")
    found = work(
        "search",
        *data,
        "--budget",
        "macs=60%",
        "--n-trials",
        "6",
        "--study",
        "sqlite:///seg.db",
        "--out",
        "s.safetensors",
    )
    assert found.returncode == 0, found.stderr
    assert "best of 6 structures: loss " in found.stdout
    again = work("search", *data, "--budget", "macs=60%", "--n-trials", "6", "--study", "sqlite:///seg.db")
    assert "Nothing to do" in again.stderr
    by_metric = work("search", *data, "--budget", "macs=60%", "--n-trials", "2", "--metric", "mIoU")
    assert "structures: mIoU " in by_metric.stdout, by_metric.stderr
    train = ("finetune", *data, "--pruned", "s.safetensors", "--epochs", "2", "--batch-size", "32", "--lr", "0.01")
    tuned = work(*train, "--out", "t.safetensors", "--json")
    assert tuned.returncode == 0, tuned.stderr
    facts = json.loads(tuned.stdout)
    assert 0 <= facts["mIoU_before"] <= 1
    assert 0 <= facts["mIoU"] <= 1
    assert facts["validation"] == facts["epochs"][-1]["metric"] or len(facts["epochs"]) == 2
    table = work("compare", *data, "--pruned", "t.safetensors")
    assert table.returncode == 0, table.stderr
    assert "mIoU" in table.stdout
    assert f"{facts['mIoU']:.2%}" in table.stdout


def test_images_without_labels_are_enough(work: Call) -> None:
    data = (*NETWORK, "--data", "seg.py:unlabelled")
    found = work("search", *data, "--budget", "macs=60%", "--n-trials", "4", "--out", "u.safetensors")
    assert found.returncode == 0, found.stderr
    assert "structures: fidelity " in found.stdout
    train = ("finetune", *data, "--epochs", "1", "--batch-size", "32", "--out", "v.safetensors")
    assert work(*train, "--pruned", "u.safetensors").returncode == 0
    alone = work(*train, "--pruned", "u.safetensors", "--no-teacher", "--out", "w.safetensors")
    assert alone.returncode == 2
    assert "has no labels to learn from, so it needs a network to follow" in alone.stderr


def test_the_task_of_the_data_is_overridden_by_name_place_or_file(work: Call) -> None:
    data = ("search", *NETWORK, "--data", "seg.py:data", "--budget", "macs=60%", "--n-trials", "2")
    for task, measures in (
        ("fidelity", "fidelity"),
        ("seg.py:task", "loss"),
        ("prunesearch.tasks.segment:segmentation", "loss"),
    ):
        found = work(*data, "--task", task)
        assert found.returncode == 0, found.stderr
        assert f"structures: {measures} " in found.stdout


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("segmentaton", "Did you mean 'segmentation'?"),
        ("seg.py:nothing", "Expected seg.py:nothing to return a prunesearch.Task, got int."),
        ("seg.py:tsk", "has no function 'tsk'. Did you mean 'task'?"),
        ("no.py:task", "There is no file 'no.py'"),
        ("classification", "Expected the labels of train as (n,) class indices"),
    ],
)
def test_what_is_no_task_for_these_data_is_a_sentence(work: Call, task: str, sentence: str) -> None:
    found = work("search", *NETWORK, "--data", "seg.py:data", "--budget", "macs=60%", "--task", task)
    assert found.returncode == 2
    assert sentence in found.stderr
    assert found.stderr.count("\n") <= 2
