"""The benchmark of detectors and segmenters, on a tiny U-Net: arms are comparable, and their table is honest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import detectors
import pytest
import tables
import torch
import unet
from places import Effort, InTwo, Start, Unet, Yolo
from tabulated import detectors as tabulated
from tabulated.detectors import table

from prunesearch.models.fingerprint import model_fingerprint
from tests.benchmarks.test_captions import spreads_promised, spreads_shown
from tests.models.networks import image

SIZE = 16, 24


def place(root: Path, monkeypatch: pytest.MonkeyPatch) -> Unet:
    """Of a few small images; trained for a step an epoch."""
    masks = torch.randint(unet.CLASSES, (8, *SIZE), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(unet, "street_scenes", lambda *_: (image(8, 3, *SIZE), masks))
    monkeypatch.setattr(Unet, "size", SIZE)
    monkeypatch.setattr(unet, "RECIPE", replace(unet.RECIPE, lr=1e-3))
    return Unet(root, root, Effort(first=2, more=1, trials=4), 0)


@pytest.mark.slow
def test_arms_cost_what_they_may_and_are_trained_equally_long_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place(tmp_path, monkeypatch)
    rows = {}
    for way in ("base", "ours", "uniform", "l1-global", "resolution", "sibling", "scratch"):
        arm = f"unet-{way}" if way == "base" else f"unet-70-{way}"
        found, _ = detectors.measure(here, arm, tmp_path)
        (tmp_path / f"{arm}.0.json").write_text(json.dumps(found))
        rows[way] = found["row"]
    full = rows.pop("base")
    assert full["macs"] == full["full macs"]
    assert all(row["macs"] <= 0.7 * full["macs"] for row in rows.values())
    assert {row["network"] for row in rows.values()} == {full["network"]}
    assert rows["scratch"]["structure"] == rows["ours"]["structure"]
    assert rows["scratch"]["macs"] == rows["ours"]["macs"]
    assert {way: row["epochs"] for way, row in rows.items()} == {
        **dict.fromkeys(("ours", "uniform", "l1-global", "resolution"), 1),
        **dict.fromkeys(("sibling", "scratch"), 3),
    }


def test_a_lost_network_comes_out_the_same_when_it_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        model, seconds = place(tmp_path / name, monkeypatch).unpruned()
        assert seconds > 0
        found.append(model_fingerprint(model))
    assert found[0] == found[1]


def test_a_share_that_was_begun_with_another_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "unet-50-ours.1.json").write_text(json.dumps(cell("unet-50-ours", 1, 0.3)))
    detectors.check_network(tmp_path, "unet-50", 1, "n1")
    detectors.check_network(tmp_path, "unet-50", 0, "other")
    detectors.check_network(tmp_path, "unet-70", 1, "other")
    with pytest.raises(SystemExit, match=r"unet-50-ours\.1\.json was measured with another unpruned network"):
        detectors.check_network(tmp_path, "unet-50", 1, "other")


def test_scratch_asks_for_the_structure_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"Measure unet-50-ours\.0 first"):
        detectors.measure(place(tmp_path, monkeypatch), "unet-50-scratch", tmp_path)


def test_what_another_library_cannot_do_is_a_cell_and_what_we_cannot_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Start:
        raise RuntimeError("shapes\ndo not fit")

    for way in ("torch-pruning", "uniform"):
        monkeypatch.setitem(detectors.ARMS, way, broken)  # type: ignore[arg-type]
    here = place(tmp_path, monkeypatch)
    found, _ = detectors.measure(here, "unet-50-torch-pruning", tmp_path)
    assert found["row"]["failure"] == "RuntimeError: shapes"
    with pytest.raises(RuntimeError):
        detectors.measure(here, "unet-50-uniform", tmp_path)


# --- the table --------------------------------------------------------------------------------------------------------


def cell(arm: str, seed: int, reached: float | None, network: str = "") -> dict[str, Any]:
    facts = {
        "metric": "mIoU",
        "size": [144, 192],
        "first": 24,
        "more": 6,
        "trials": 60,
        "machine": "m",
        "versions": {"prunesearch": "0", "torch": "2"},
    }
    row: dict[str, Any] = {"network": network or f"n{seed}"}
    if reached is None:
        row["failure"] = "RuntimeError: no"
    else:
        row |= {"reached": reached, "macs": 49, "full macs": 100, "epochs": 6}
        row["seconds"] = {"search": 10.0, "training": 100.0}
    return {"arm": arm, "seed": seed, "row": row, "facts": facts}


def shown(*cells: dict[str, Any]) -> str:
    return table({"cells": dict(enumerate(cells))})


def test_the_table_knows_all_arms_shares_and_seeds() -> None:
    assert set(tabulated._SHOWN) == {"base", *detectors.WAYS}
    assert set(tabulated.SHARES) == set(detectors.SHARES)
    assert len(detectors.SEEDS) == tabulated._SEEDS


def test_the_table_compares_cells_of_equal_seeds() -> None:
    """Seed 2 of ours has no partner: it counts for the mean, and not for the difference."""
    page = shown(
        cell("unet-base", 0, 0.4),
        *(cell("unet-50-ours", seed, 0.33) for seed in range(3)),
        cell("unet-50-sibling", 0, 0.30),
        cell("unet-50-sibling", 1, 0.31),
    )
    lines = page.splitlines()
    assert lines[2].startswith("| 100% | unpruned | 40.0 |  | 49% |")
    assert lines[3].startswith(
        "| 50% | **ours**: the default search, refitted weights | 33.0 ± 0.0 |  | 49% | 6 | 10 |"
    )
    assert "| 30.5 ± 0.7 | +2.5 ± 0.5 |" in lines[4]
    assert "best arm" not in page  # the aim is about all arms and seeds
    unmeasured = "70% of the MACs, 50% (uniform, l1-global, torch-pruning, resolution, scratch), 30% of the MACs"
    assert page.endswith(f"Not measured yet: {unmeasured}.")


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        (0.334, "tied with the best arm (uniform; margin 0.5 points)"),
        (0.34, "ours is 1.0 points below the best arm (uniform)"),
    ],
)
def test_the_table_says_whether_the_aim_is_met(other: float, verdict: str) -> None:
    reached = {"ours": 0.33, "uniform": other, "torch-pruning": None}
    cells = [cell(f"unet-70-{way}", seed, reached.get(way, 0.3)) for way in detectors.WAYS for seed in detectors.SEEDS]
    assert verdict in shown(*cells)
    assert "`resolution` is as expected." in shown(*cells)
    page = shown(*(each for each in cells if each["seed"] == 0))
    assert verdict not in page
    assert "| 70% | Torch-Pruning, L1 over all layers | fails |" in page
    assert not spreads_shown(page)
    assert not spreads_promised(page)
    assert "standard error" not in page


def test_the_table_says_where_a_distance_is_not_as_expected() -> None:
    reached = {"ours": 0.33, "scratch": 0.325, "sibling": 0.31}
    cells = [cell(f"unet-50-{way}", seed, reached.get(way, 0.3)) for way in detectors.WAYS for seed in detectors.SEEDS]
    page = shown(*cells)
    assert "At 50% ours is the best arm. Its distance from `sibling` and `resolution` is as expected." in page
    assert "Its distance from `scratch` is not as expected." in page


def test_an_excerpt_is_of_one_share_and_misses_no_other() -> None:
    cells = [cell("unet-base", 0, 0.4), cell("unet-50-ours", 0, 0.33), cell("unet-30-ours", 0, 0.2)]
    page = tabulated.excerpt({"cells": {f"{each['arm']}.0": each for each in cells}}, "50")
    assert "| 100% |" in page
    assert "| 50% |" in page
    assert "30%" not in page
    assert "70%" not in page


def test_cells_of_other_networks_are_not_compared() -> None:
    with pytest.raises(ValueError, match="unet-50-ours and unet-50-uniform with seed 0 are of other networks"):
        shown(cell("unet-50-ours", 0, 0.3), cell("unet-50-uniform", 0, 0.3, "other"))


def test_nothing_is_shown_before_there_are_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(cell("unet-base", 0, 0.4)) == ""
    monkeypatch.setattr(tables, "measured", lambda name: None)
    for name in ("detectors_unet", "detectors_yolo", "recovery_tasks"):
        words = tables.render(f"<!-- table: {name} --><!-- end -->").split()
        assert words == ["<!--", "table:", name, "-->", "<!--", "end", "-->"]


@pytest.mark.detectors
def test_blocks_of_a_yolo_are_rewritten_without_changing_what_it_computes() -> None:
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO("yolov8n.yaml").model.eval()
    for norm in (layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_()
    names, images = {name for name, _ in model.named_parameters()}, image(2, 3, 64, 64)
    yolo = Yolo.__new__(Yolo)  # its images are not needed
    rewritten = yolo.without_chunks(model)
    with torch.no_grad():
        assert torch.equal(rewritten(images)[0], model(images)[0])
    assert sum(isinstance(block, InTwo) for block in rewritten.modules()) == 8
    assert {name for name, _ in model.named_parameters()} == names
