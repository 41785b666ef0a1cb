"""Protocols have the settings and figures of their sources, and every one runs, on noise and small networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import paper_tables
import pytest
import tasks
from protocols import PROTOCOLS, Protocol
from released import Released
from tabulated.papers import papers, trained

import prunesearch as ps
from prunesearch.budget import Budget
from prunesearch.search.convex import ConvexSearcher
from tests.toys import chain_space

METHODS = {protocol.method: protocol for protocol in PROTOCOLS}

METAPRUNING = {  # of the authors' README: top-1 at so many FLOPs, of uniform networks and of theirs
    "mobilenet_v1": {"316M": ("68.4 at 325M", 70.9), "142M": ("63.7 at 149M", 66.1), "41M": ("50.6 at 41M", 57.2)},
    "mobilenet_v2_14": {"303M": ("72.0 at 313M", 72.7), "140M": ("67.2 at 140M", 68.2), "43M": ("54.6 at 43M", 58.3)},
    "resnet50": {"2.0G": ("76.6 at 4.1G", 75.4), "1.0G": ("72.0 at 1.1G", 73.4)},
}
ITPRUNER = {  # of the authors' scripts: --beta, --target_flops, and how many features `feature_extract` gives
    "mobilenet_v1": ("285M", 233, 14),
    "mobilenet_v2": ("220M", 2000, 8),
    "resnet50": ("54.7%", 2000, 37),
    "resnet56": ("60M", 500, 27),
    "vgg16": ("100M", 231, 13),
}
EAGLEEYE = {  # of the authors' scripts and README: --flops_target, --batch_size, top-1 at so many FLOPs
    ("resnet50", "75%"): (128, "77.1 at 3G"),
    ("resnet50", "50%"): (128, "76.4 at 2G"),
    ("resnet50", "25%"): (128, "74.2 at 1G"),
    ("mobilenet_v1", "50%"): (512, "70.9 at 284M"),
    ("resnet56", "62.23M"): (128, "94.66"),
}


def of(method: str) -> list[Protocol]:
    return [protocol for protocol in PROTOCOLS if protocol.method == method]


def test_every_row_of_metaprunings_tables_is_a_protocol_with_its_figures() -> None:
    found = {(protocol.network, protocol.budget): protocol.published.text for protocol in of("MetaPruning")}
    rows = {(network, macs): row for network, table in METAPRUNING.items() for macs, row in table.items()}
    assert found.keys() == {(network, Budget(macs=macs)) for network, macs in rows}
    for (network, macs), (uniform, accuracy) in rows.items():
        text = found[network, Budget(macs=macs)]
        assert uniform in text
        assert f"; {accuracy} at {macs}" in text


def test_itpruner_runs_at_the_strengths_of_its_scripts() -> None:
    assert {protocol.network for protocol in of("ITPruner")} == set(ITPRUNER)
    for protocol in of("ITPruner"):
        macs, beta, layers = ITPRUNER[protocol.network]
        assert protocol.budget == Budget(macs=macs)
        assert protocol.search["options"] == {"form": "linear", "strengths": (beta / layers,)}


def test_a_strength_makes_layers_as_important_as_the_released_beta_does() -> None:
    similarity = np.array([1.1, 0.7, 1.6, 0.9, 1.3])
    importance = np.exp(-40 * similarity / similarity.sum())
    space = chain_space((8,) * len(similarity))
    searcher = ConvexSearcher(space, Budget(macs="50%"), similarity=np.split(similarity, len(similarity)))
    weights = searcher._weights(Released(40, len(similarity)).strength)
    np.testing.assert_allclose(weights / weights.sum(), importance / importance.sum())


def test_eagleeye_has_the_settings_of_its_scripts() -> None:
    found = {(protocol.network, protocol.budget): protocol for protocol in of("EagleEye")}
    assert found.keys() == {(network, Budget(macs=macs)) for network, macs in EAGLEEYE}
    for (network, macs), (batch_size, accuracy) in EAGLEEYE.items():
        protocol = found[network, Budget(macs=macs)]
        recipe = protocol.recipe
        assert accuracy in protocol.published.text
        assert recipe is not None
        assert (recipe.epochs, recipe.lr, recipe.weight_decay, recipe.schedule) == (120, 0.01, 1e-4, "cosine")
        assert recipe.batch_size == batch_size
        assert (protocol.search["n_trials"], protocol.search["scoring"].evaluator) == (1000, "adaptive_bn")
        assert protocol.calibration == 10_000


def test_no_two_protocols_share_a_cell() -> None:
    assert len({protocol.name for protocol in PROTOCOLS}) == len(PROTOCOLS)


def test_a_published_figure_has_a_source() -> None:
    for protocol in PROTOCOLS:
        assert protocol.published.text == "not found" or protocol.published.source.startswith("["), protocol.name


def test_a_protocol_scores_by_as_many_images_as_it_has() -> None:
    bench = dataclasses.replace(paper_tables.smoke_bench(), smoke=False)
    assert all(bench.scoring(protocol).calibration == 10_000 for protocol in of("EagleEye"))
    assert all(bench.scoring(protocol) is bench.data for protocol in of("ITPruner"))


def test_a_scale_is_a_share_of_the_epochs_that_each_method_can_do_with() -> None:
    bench = dataclasses.replace(paper_tables.smoke_bench(), smoke=False, scale=0.01)
    assert bench.epochs(METHODS["ManiDP"]) == {"unpruned": 5, "pruned": 4}
    assert bench.epochs(METHODS["CaP"]) == {"unpruned": 5}
    assert bench.epochs(METHODS["PAAM"]) == {"pruned": 5}  # three would be too few for it
    assert bench.epochs(METHODS["MetaPruning"]) == {"PruningNet": 1, "pruned": 5}
    assert bench.epochs(METHODS["GA, two-step"]) == {"unpruned": 5, "after each layer": 1, "pruned": 1}
    assert bench.trials(METHODS["CACP"]) == {"n_trials": 50}  # of 800
    assert bench.epochs(METHODS["LFE"]) == {"unpruned": 5, "criterion's rounds": 1, "pruned": 1}
    assert bench.trials(METHODS["LASSO"]) == {"n_trials": 1}
    assert bench.trials(METHODS["CaP"]) == {}
    assert bench.scoring(METHODS["EagleEye"]).calibration == 512  # of 10,000
    (scratch,) = [each for each in of("ITPruner") if each.network == "resnet56"]
    shortened = bench.recipe(scratch)
    assert shortened is not None
    assert shortened.epochs == 5
    assert shortened.warmup == 1 / 5  # the protocol has none
    whole = dataclasses.replace(bench, scale=1.0)
    for protocol in PROTOCOLS:
        assert whole.recipe(protocol) == protocol.recipe
        assert whole.trials(protocol).get("n_trials") == protocol.search.get("n_trials")


def test_cells_and_files_of_other_scales_images_and_seeds_are_others() -> None:
    bench = dataclasses.replace(paper_tables.smoke_bench(), smoke=False)
    changes: list[dict[str, Any]] = [{}, {"scale": 0.5}, {"images": 100}, {"seed": 1}]
    variants = [dataclasses.replace(bench, **change) for change in changes]
    assert len({each.run for each in variants}) == len({each.checkpoint(PROTOCOLS[0]) for each in variants}) == 4


def test_a_protocol_that_is_given_its_weights_finds_no_cache_and_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CACHE", tmp_path / "cache")
    bench = paper_tables.smoke_bench()
    network = bench.fresh("resnet56")
    ps.save(network, tmp_path / "resnet8.safetensors")
    monkeypatch.setattr(paper_tables, "NETWORKS", paper_tables.SMOKE)
    given = dataclasses.replace(bench, smoke=False, scale=0.001, weights={"resnet56": tmp_path / "resnet8.safetensors"})
    (protocol,) = [each for each in of("LASSO") if each.network == "resnet56"]
    cell = paper_tables.measured(given, protocol)
    assert cell["weights given"]
    assert list((tmp_path / "cache").glob("*.training"))


def test_seeds_of_one_scale_are_a_row_and_what_was_not_run_has_no_figures() -> None:
    name = METHODS["LASSO"].name
    cells = {
        str(seed): {
            "protocol": name, "seed": seed, "scale": 0.1, "train images": 5000, "epochs": {"pruned": 2},
            "weights given": True, "accuracy": 0.8 + 0.02 * seed, "baseline": 0.9, "macs": 1, "full macs": 2,
        }
        for seed in range(2)
    }  # fmt: skip
    page = papers({"cells": cells}).splitlines()
    searched = {**cells["0"], "structures": 50, "images": 1024}
    assert trained({**searched, "epochs": {}}).startswith("none; 50 structures")
    assert trained(searched) == "pruned 2; 50 structures on 1,024 images; weights given; 5,000 images"
    assert page[0] == f"0 of {len(PROTOCOLS)} protocols were run as they are, 1 at some scale."
    (row,) = [line for line in page if "| pruned 2; weights given; 5,000 images |" in line]
    assert row.startswith("| LASSO | resnet50")
    assert row.endswith("| 90.00 ± 0.00 | 81.00 ± 1.41 | 50.0% | 2 |")
    assert sum("| not run |  |  |  |  |" in line for line in page) == len(PROTOCOLS) - 1


@pytest.mark.slow
@pytest.mark.parametrize("protocol", METHODS.values(), ids=METHODS)
def test_a_protocol_of_every_method_runs_and_meets_its_budget(protocol: Protocol) -> None:
    bench = paper_tables.smoke_bench()
    cell = paper_tables.KINDS[protocol.kind](bench, protocol)
    assert 0 <= cell["accuracy"] <= 1
    assert cell["macs"] <= 0.5 * cell["full macs"]
