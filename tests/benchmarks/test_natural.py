"""The benchmark of an ImageNet network, on a small one: its cells are resumed, and say what the winner does."""

from __future__ import annotations

import json
from pathlib import Path

import natural
import pytest
import torch
from tabulated import natural as tabulated
from tabulated.natural import table
from torch import nn

import prunesearch as ps
from tests.models.networks import image, randomised


@pytest.fixture
def bench() -> natural.Bench:
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    model = randomised(nn.Sequential(*layers, nn.Linear(6, 4)))
    images = image(48, 3, 8, 8)
    return natural.bench_of(model, images, model.eval()(images).argmax(1))


@pytest.mark.parametrize("arm", natural.ARMS)
def test_a_cell_says_how_far_its_winner_follows_the_unpruned_network(bench: natural.Bench, arm: str) -> None:
    few = natural.ARMS[arm]
    few = natural.Arm({**few.settings, "n_trials": 3}, few.build_with)
    row = natural.measured(bench, few, 70)
    assert row["macs"] <= 0.7 * natural.facts(bench)["full macs"]
    assert row["unpruned accuracy"] == 1
    assert row["agreement"] == row["accuracy"]  # as the labels are what the unpruned network says
    result = ps.search(
        bench.network,
        bench.search,
        budget="macs=70%",
        build_with=few.build_with,
        **few.settings,  # type: ignore[arg-type]
    )
    assert row["agreement"] == float(
        (natural.classes_of(result.best.build(), bench.unseen[0]) == bench.unseen[1]).float().mean()
    )


def test_images_are_searched_on_or_judge_but_not_both(bench: natural.Bench) -> None:
    assert len(bench.search) == len(bench.unseen[0]) == 24
    assert not any(torch.equal(one, other) for one in bench.search for other in bench.unseen[0])


def test_cells_that_are_there_are_not_measured_again(bench: natural.Bench, tmp_path: Path) -> None:
    natural.run(bench, ["uniform.90"], tmp_path)
    file = tmp_path / "uniform.90.json"
    stored = {**json.loads(file.read_text()), "row": None}
    file.write_text(json.dumps(stored))
    natural.run(bench, ["uniform.90"], tmp_path)
    assert json.loads(file.read_text()) == stored
    stored["facts"]["network"] = "another"
    file.write_text(json.dumps(stored))
    with pytest.raises(SystemExit, match="another network"):
        natural.run(bench, ["uniform.90"], tmp_path)


def test_all_arms_have_titles() -> None:
    assert set(natural.ARMS) == set(tabulated._SHOWN)


def test_cells_are_named_by_arm_or_one_by_one() -> None:
    assert natural.cells_of(["uniform", "searched.70"]) == ["uniform.90", "uniform.80", "uniform.70", "searched.70"]
    with pytest.raises(SystemExit, match=r"got uniform\.50"):
        natural.cells_of(["uniform.50"])


def test_the_table_has_a_line_for_each_arm_that_was_run(bench: natural.Bench, tmp_path: Path) -> None:
    natural.run(bench, ["uniform.90", "uniform.70", "uniform-l1.70"], tmp_path)
    cells = {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("*.json")}
    lines = table({"cells": cells}).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| uniform", "| uniform, L1"]
    assert not any(column.strip() for column in lines[3].split("|")[2:5])  # at 90 %
    assert f"{cells['uniform.90']['row']['agreement']:.1%}" in lines[2]
    assert "Not measured yet: searched-compensated, scored-compensated" in lines[-1]
    assert "uniform (80%), uniform-l1 (90%, 80%)" in lines[-1]
