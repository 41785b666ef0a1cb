"""The pilot's reliability is the one of the textbook, and its structures are what their names say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pilot
import pytest
import torch
from tabulated.pilot import components, interval, seeds_for, table, truths

import prunesearch as ps

SPACE = ps.trace(pilot.thin().eval(), torch.zeros(2, 3, 16, 16)).space


def test_reliabilities_are_those_of_the_textbook() -> None:
    """Shrout and Fleiss 1979, table 2: six subjects, four judges; case 1 has 0.17 for one, 0.44 for the mean."""
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = components(ratings)
    assert round(found.one, 2) == 0.17
    assert round(found.reliability, 2) == 0.44
    assert found.within == pytest.approx(6.26, abs=0.01)  # the table's mean square within


def test_seeds_that_agree_are_wholly_reliable_and_noise_is_not() -> None:
    assert components([[1, 1], [2, 2], [4, 4]]).reliability == 1
    assert components([[0, 2], [2, 0], [1, 1.5]]).reliability < 0
    wrongs: list[list[list[int]]] = [[[1, 2]], [[1], [2]], [[1, 2], [2, 1]]]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="Expected"):
            components(wrong)


def test_so_many_seeds_as_spearman_and_brown_say_are_as_reliable_as_wanted() -> None:
    assert seeds_for(0.25, 0.5) == 3  # 3 * 0.25 / (1 + 2 * 0.25)
    assert seeds_for(0.25, 0.51) == 4
    assert seeds_for(0.9, 0.6) == 1
    assert seeds_for(-0.1, 0.6) is None


def test_the_interval_holds_the_true_reliability_of_many_structures() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(400, 1)) + rng.normal(size=(400, 3))  # 1 / (1 + 1/3)
    low, high = interval(scores, resampled=200)
    assert low < 0.75 < high
    assert high - low < 0.15


def test_every_structure_uses_its_share_up_and_no_two_are_the_same() -> None:
    full = SPACE.cost(SPACE.full).macs
    structures = {arm: pilot.structure_of(SPACE, arm) for arm in pilot.ARMS}
    assert len(set(structures.values())) == len(pilot.ARMS) == 60
    for arm, structure in structures.items():
        share = pilot.ARMS[arm][0] / 100
        assert 0.98 * share < SPACE.cost(structure).macs / full <= share


def test_shapes_are_what_they_are_called() -> None:
    def shares(shape: str) -> np.ndarray[Any, Any]:
        return np.array(pilot.structure_of(SPACE, f"20-{shape}-4")) / np.array(SPACE.full)

    assert (np.diff(shares("front")) < 0).all()
    assert (np.diff(shares("back")) > 0).all()
    assert shares("waist")[[0, -1]].min() > 2 * shares("waist")[3:5].max()
    assert shares("belly")[3:5].min() > 2 * shares("belly")[[0, -1]].max()


def test_a_cell_is_measured_once_and_refuses_another_recipe(tmp_path: Path) -> None:
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    part = images, torch.arange(64) % 10
    bench = pilot.Bench(ps.trace(pilot.thin().eval(), images[:2]), part, part, part)
    recipe = ps.Recipe(epochs=1, from_scratch=True)
    pilot.run(bench, ["10-front-4.1"], tmp_path, recipe)
    written = (tmp_path / "10-front-4.1.json").read_bytes()
    pilot.run(bench, ["10-front-4.1"], tmp_path, recipe)
    assert (tmp_path / "10-front-4.1.json").read_bytes() == written
    with pytest.raises(SystemExit, match="another recipe"):
        pilot.run(bench, ["10-front-4.1"], tmp_path, ps.Recipe(epochs=2, from_scratch=True))


def cells(accuracies: dict[str, list[float]]) -> dict[str, Any]:
    facts = {
        "pixels": 16, "full macs": 1, "train images": 1, "test images": 1, "machine": "m",
        "versions": {"prunesearch": "0", "torch": "2"},
    }  # fmt: skip
    return {
        f"{arm}.{seed}": {
            "arm": arm, "seed": seed, "share": 20, "shape": "even", "accuracy": value, "loss": 1 - value,
            "seconds": 1.0, "facts": facts,
        }
        for arm, values in accuracies.items() for seed, value in enumerate(values)
    }  # fmt: skip


def test_only_seeds_of_all_structures_count() -> None:
    result = {"cells": cells({"20-even-0": [0.1, 0.2, 0.3], "20-even-1": [0.3, 0.4]})}
    names, scores = truths(result, 20, "accuracy")
    assert names == ["20-even-0", "20-even-1"]
    assert scores.tolist() == [[0.1, 0.2], [0.3, 0.4]]
    assert "| 20% | test accuracy, points | 2 | 2 | 25.0 |" in table(result)


def test_the_rule_is_about_accuracy_and_decides_both_ways() -> None:
    good, bad = cells({"a": [0.1, 0.11], "b": [0.3, 0.31]}), cells({"a": [0.1, 0.3], "b": [0.3, 0.11]})
    assert [line.endswith("| yes |") for line in table({"cells": good}).splitlines()[2:4]] == [True, False]
    assert "By the rule, sources are compared at 20%." in table({"cells": good})
    assert table({"cells": bad}).splitlines()[2].endswith("| no |")
    assert "At none of these shares is the rule met." in table({"cells": bad})
