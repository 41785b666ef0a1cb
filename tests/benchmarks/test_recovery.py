"""The benchmark of short finetunings, on a small network: cells are resumed, and their tables compare equal seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networks
import pytest
import realdata
import recovery
import torch
import weights
from racing import Bench
from tabulated import recovery as tabulated
from tabulated.recovery import table
from torch import nn

import prunesearch as ps
from prunesearch.search.uniform import uniform_structure
from tests.models.networks import image, randomised


@pytest.fixture
def bench() -> Bench:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1)]
    model = randomised(nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 4))).eval()
    images = image(96, 3, 8, 8)
    part = images, model(images).argmax(1)
    return Bench(ps.trace(model, images[:2]), part, part, part)


def test_a_cell_trains_what_an_arm_finds_and_is_not_measured_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ps.Recipe(epochs=1, batch_size=32, lr=1e-9)
    monkeypatch.setitem(recovery.ARMS, "uniform", recovery.Arm(recovery.uniform, short))  # type: ignore[arg-type]
    for _ in range(2):
        recovery.run(bench, bench.unseen, ps.Budget(macs="70%"), ["uniform.0"], tmp_path)
    cell = json.loads((tmp_path / "uniform.0.json").read_text())
    row = cell["row"]
    assert row["holds"]
    assert row["macs"] <= 0.7 * cell["facts"]["full macs"]
    assert row["test"]["accuracy"] == row["unseen"]["accuracy"]  # the same images here
    assert row["epochs"] == 1
    assert set(row["seconds"]) == {"search", "training"}


HALF = ps.Budget(macs="50%")
ONE_EPOCH = ps.Recipe(epochs=1, batch_size=64)


def measured(bench: Bench, out: Path, *cells: str) -> list[dict[str, Any]]:
    """Rows of cells of a network that was trained for an epoch."""
    recovery.run(bench, bench.unseen, HALF, cells, out, ONE_EPOCH)
    return [json.loads((out / f"{cell}.json").read_text())["row"] for cell in cells]


def test_uniform_widths_are_filled_up_to_the_limit(bench: Bench) -> None:
    limit = ps.Budget(macs="60%")
    limits = limit.check(bench.network)
    place = recovery.Place(bench, limit, int(limits.limits[0][1]), 0, recovery.FROM_SCRATCH)
    found = recovery.uniform(place).structure
    plain = uniform_structure(limits)
    assert found is not None
    assert tuple(found) != plain
    assert all(width >= before for width, before in zip(found, plain, strict=True))
    assert limits.contains([found])[0]
    wider = [[*found[:i], width + 1, *found[i + 1 :]] for i, width in enumerate(found)]
    assert not limits.contains(wider).any()


def test_scratch_trains_the_uniform_structure_for_the_seconds_of_ours(bench: Bench, tmp_path: Path) -> None:
    """Ours took 10 seconds, an epoch of the uniform structure 3: four epochs, as the fourth has begun."""
    measured(bench, tmp_path, "uniform.0")
    there = json.loads((tmp_path / "uniform.0.json").read_text())
    for arm, seconds in (("ours", {"search": 4.0, "training": 6.0}), ("uniform", {"search": 99.0, "training": 6.0})):
        written = {**there, "arm": arm, "row": {**there["row"], "seconds": seconds}}
        (tmp_path / f"{arm}.0.json").write_text(json.dumps(written))
    (row,) = measured(bench, tmp_path, "scratch.0")
    assert row["epochs"] == 4
    assert "from_scratch=True" in row["recipe"]
    assert "batch_size=64" in row["recipe"]
    assert row["structure"] == there["row"]["structure"]


def test_scratch_waits_for_the_cells_that_say_how_long(bench: Bench, tmp_path: Path) -> None:
    measured(bench, tmp_path, "uniform.0")
    with pytest.raises(SystemExit, match=r"scratch may train follows from ours\.0; measure"):
        measured(bench, tmp_path, "scratch.0")
    with pytest.raises(SystemExit, match=r"from ours\.1 and uniform\.1; measure"):
        measured(bench, tmp_path, "scratch.1")


def test_a_cell_of_another_limit_does_not_say_how_long_scratch_trains(bench: Bench, tmp_path: Path) -> None:
    measured(bench, tmp_path, "uniform.0")
    with pytest.raises(SystemExit, match=r"uniform\.0\.json was measured with another limit"):
        recovery.run(bench, bench.unseen, ps.Budget(macs="70%"), ["scratch.0"], tmp_path, ONE_EPOCH)


def test_a_sibling_trains_as_long_as_the_unpruned_network_and_the_finetuning(bench: Bench, tmp_path: Path) -> None:
    uniform, sibling = measured(bench, tmp_path, "uniform.0", "sibling.0")
    assert sibling["epochs"] == 1 + uniform["epochs"]
    assert sibling["structure"] == uniform["structure"]
    assert "from_scratch=True" in sibling["recipe"]


def test_an_arm_that_a_network_does_not_have_is_refused_with_the_reason() -> None:
    subject = networks.NETWORKS["resnet20"]
    assert recovery.chosen("resnet20", subject, ["scratch.1"]) == ["scratch.1"]
    with pytest.raises(SystemExit, match=r"resnet20 has no arm torch-pruning-norm: .* shortcuts have no parameters"):
        recovery.chosen("resnet20", subject, ["torch-pruning-norm.0"])


def test_three_seeds_of_the_arms_that_a_network_has_are_measured_by_default() -> None:
    cells = recovery.chosen("resnet20", networks.NETWORKS["resnet20"], ())
    assert len(cells) == 3 * (len(recovery.TOLD) - 2)
    assert len(recovery.chosen("vgg", networks.NETWORKS["vgg"], ())) == 3 * len(recovery.TOLD)
    assert cells.index("scratch.0") > max(cells.index("ours.0"), cells.index("uniform.0"))


def test_all_networks_and_arms_have_titles() -> None:
    assert set(networks.NETWORKS) == set(tabulated.TITLES)
    assert set(recovery.ARMS) == set(tabulated._SHOWN)
    for subject in networks.NETWORKS.values():
        assert set(subject.left_out) < set(recovery.ARMS)


def test_the_first_block_of_the_thin_mobilenet_halves_the_images() -> None:
    features = networks.thin_mobilenet().eval().features
    assert isinstance(features, nn.Sequential)
    images = torch.zeros(1, 3, 32, 32)
    assert [features[:i](images).shape[-1] for i in (3, 4, len(features))] == [32, 16, 2]


def test_weights_of_a_network_are_made_once_from_random_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    part = images, torch.arange(32) % 10
    subject = networks.Subject(
        lambda: ps.make_model("resnet8"),
        lambda root, cache: realdata.Parts(part, part, part, part),
        ps.Recipe(epochs=1, batch_size=16, from_scratch=True),
    )
    monkeypatch.setitem(weights.NETWORKS, "tiny", subject)  # type: ignore[arg-type]
    for _ in range(2):
        weights.main(["--data-root", "none", "--out", str(tmp_path), "--networks", "tiny"])
    facts = json.loads((tmp_path / "tiny.json").read_text())
    model = subject.make()
    ps.load_weights(model, tmp_path / "tiny.safetensors")
    assert facts["accuracy"] == pytest.approx(ps.top1(model, realdata.normalised(images), part[1]))


def cell(arm: str, seed: int, accuracy: float, network: str = "n") -> dict[str, Any]:
    facts = {
        "network": network,
        "unpruned": {"accuracy": 0.88},
        "full macs": 100,
        "limit": "macs=50%",
        "search images": 1,
        "train images": 1,
        "test images": 1,
        "machine": "m",
        "versions": {"prunesearch": "0", "torch": "2"},
    }
    row = {
        "macs": 50,
        "holds": True,
        "before": {"accuracy": 0.7},
        "test": {"accuracy": accuracy},
        "epochs": 2,
        "seconds": {"search": 10.0, "training": 100.0},
    }
    return {"arm": arm, "seed": seed, "facts": facts, "row": row}


def test_the_table_compares_cells_of_equal_seeds() -> None:
    """Seed 2 of the one arm has no partner: it counts for the mean, and not for the difference."""
    cells = [cell("fastnas", 0, 0.85), cell("fastnas", 1, 0.86), *(cell("ours", i, 0.87) for i in range(3))]
    lines = table({"cells": dict(enumerate(cells))}).splitlines()
    assert lines[2].startswith("| **ours**")
    assert "| 87.00 ± 0.00 | +1.50 ± 0.50 |" in lines[2]
    assert "| 85.50 ± 0.71 |  |" in lines[3]


def cells_of(**accuracies: list[float]) -> dict[str, Any]:
    """A folder of cells."""
    cells = [
        cell(arm.replace("_", "-"), seed, value)
        for arm, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return {"cells": dict(enumerate(cells))}


def test_arms_without_fastnas_are_shown_beside_uniform_widths() -> None:
    lines = table(cells_of(ours=[0.87], uniform=[0.85], sibling=[0.88])).splitlines()
    assert "beside uniform" in lines[0]
    assert "+3.00" in lines[2]
    assert "+2.00" in lines[3]
    assert "| 2 |  | 88.00 |" in lines[2]  # random weights have no accuracy before
    assert "| 2 | 70.0 | 87.00 |" in lines[3]
    assert "standard error" not in lines[-1]


def test_a_network_above_the_limit_is_marked_and_is_nobody_to_be_compared_with() -> None:
    found = cells_of(ours=[0.87], uniform=[0.85], global_l1=[0.99])
    for each in found["cells"].values():
        each["row"]["holds"] = each["arm"] != "global-l1"
    assert "| 50.0% **over** |" in table(found).splitlines()[2]
    line = tabulated.summary({"vgg_50": found}).splitlines()[2]
    assert "99" not in line
    assert "+2.00 (uniform)" in line


def test_tables_of_networks_stand_in_their_order_under_their_titles() -> None:
    found = {f"{name}_{share}": cells_of(ours=[0.87]) for name in ("vgg", "resnet20-fashion") for share in (15, 50)}
    titles = [line for line in tabulated.tables(found).splitlines() if line.startswith("**")]
    assert [(title[2:8], title.rpartition(", ")[2]) for title in titles] == [
        ("VGG-16", "50% of the MACs**"),
        ("VGG-16", "15% of the MACs**"),
        ("ResNet", "50% of the MACs**"),
        ("ResNet", "15% of the MACs**"),
    ]


def test_the_summary_has_a_line_for_each_network_and_no_column_that_is_empty() -> None:
    found = {
        "vgg_30": cells_of(
            ours=[0.87, 0.88], uniform=[0.85, 0.85], torch_pruning_norm=[0.84], torch_pruning_taylor=[0.86]
        ),
        "resnet20_50": cells_of(ours=[0.87], fastnas=[0.86]),
    }
    head, _, first, second, _, note = tabulated.summary(found).splitlines()
    assert "from scratch" not in head
    assert first.startswith(
        "| ResNet-20, CIFAR-10, 50% of the MACs | 88.00% | 87.00 | 86.00 | n/a | - | +1.00 (FastNAS) |"
    )
    assert "| 86.00 | 85.00 ± 0.00 | +1.00 (Torch-Pruning, Taylor) | one seed | 110, 110 | 1 |" in second
    assert "-: not measured. n/a: not possible with this network." in note
    assert "mean ± standard deviation where a row has several seeds" in note


@pytest.mark.parametrize(
    ("differences", "says"),
    [
        ([1.0], "one seed"),
        ([1.0, 1.1, 0.9], "better"),
        ([0.0, 0.05, -0.05], "no worse"),
        ([-0.2, -0.21, -0.19], "no worse"),
        ([-1.0, 1.0, 0.5], "open"),
        ([-1.0, -1.1, -0.9], "**worse**"),
    ],
)
def test_a_verdict_needs_an_interval_that_excludes_the_margin(differences: list[float], says: str) -> None:
    assert tabulated.verdict(differences) == says


def test_a_difference_is_of_search_and_teacher_until_the_arms_that_tell_them_apart_are_measured() -> None:
    found = cells_of(ours=[0.87], fastnas=[0.86])
    for note in (table(found).splitlines()[-1], tabulated.summary({"vgg_50": found}).splitlines()[-1]):
        assert "(fastnas-taught, uniform-taught, ours-untaught) were registered and are not measured" in note
        assert note.endswith("so the difference is of search and teacher together.")
    found = cells_of(ours=[0.87], fastnas=[0.86], fastnas_taught=[0.865], uniform_taught=[0.8], ours_untaught=[0.86])
    assert "together" not in table(found) + tabulated.summary({"vgg_50": found})
    assert "+0.50 (FastNAS with the teacher)" in tabulated.summary({"vgg_50": found})


def test_arms_without_a_cell_are_named() -> None:
    note = table(cells_of(ours=[0.87], uniform=[0.86]), ["fastnas", "fastnas-taught"]).splitlines()[-1]
    assert "Not measured yet: ours-longer, ours-untaught, uniform-taught, global-l1, torch-pruning-taylor" in note
    assert "Not possible with this network: fastnas, fastnas-taught." in note


def test_networks_that_were_trained_anew_between_seeds_are_both_told() -> None:
    found = cells_of(ours=[0.87, 0.88], uniform=[0.85, 0.85])
    for each in found["cells"].values():
        each["facts"]["unpruned"] = {"accuracy": 0.9 + 0.01 * each["seed"]}
    assert "Unpruned: 90.00% to 91.00%, 100 MACs" in table(found)
    assert "| 90.00% to 91.00% | 87.50" in tabulated.summary({"vgg_50": found})


def test_cells_of_other_networks_are_not_compared() -> None:
    with pytest.raises(ValueError, match="ours and fastnas with seed 0 are of other networks"):
        table({"cells": {"a": cell("fastnas", 0, 0.85, "other"), "b": cell("ours", 0, 0.87)}})


def test_cells_are_chosen_by_arm_or_name() -> None:
    assert recovery.cells_of(["fastnas.1", "ours"])[:2] == ["ours.0", "ours.1"]
    with pytest.raises(SystemExit, match="Expected arms"):
        recovery.cells_of(["nobody"])


def test_arms_that_differ_by_the_teacher_differ_by_nothing_else() -> None:
    for taught, plain in (("fastnas-taught", "fastnas"), ("uniform-taught", "uniform"), ("ours", "ours-untaught")):
        one, other = recovery.ARMS[taught], recovery.ARMS[plain]
        assert (one.prune, one.recipe, one.taught) == (other.prune, other.recipe, True)
        assert not other.taught
