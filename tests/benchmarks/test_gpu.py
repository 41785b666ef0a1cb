"""The benchmark of GPUs, on a CPU: its cells have what the table shows, and the page says so while there is none."""

from __future__ import annotations

from dataclasses import asdict, replace

import gpu
import pytest
import tables
import tabulated.gpu
from scipy.stats import kendalltau
from torch import nn

import prunesearch as ps
from prunesearch.tasks.classify import labelled
from tests.models.networks import image, randomised


def test_cells_have_what_the_table_shows_and_say_what_failed() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1)]
    network = ps.trace(randomised(nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 4))), image(2, 3, 8, 8))
    examples = labelled(image(32, 3, 8, 8), image(32, 4).argmax(1))
    exact = gpu.scorer("sliced", network, examples).score(gpu.structures(network, gpu._RANKED))
    reference = gpu.Reference(exact[: gpu._FEW], lambda: exact)
    ways = [("classic", "fp32"), ("sliced", "fp32"), ("stacked+channels_last", "bf16"), ("stacked+graph", "fp32")]
    cells = [
        gpu.measure(gpu.Cell("tiny", way, 4, precision, (32, 8), macs=10), network, examples, reference, 0.0)  # type: ignore[arg-type]
        for way, precision in ways
    ]
    assert [cell.off is None for cell in cells] == [True, False, False, True]
    assert cells[1].off == pytest.approx(0, abs=1e-5)
    assert cells[2].off is not None
    assert 1e-5 < cells[2].off < 0.05
    rounded = gpu.scorer("stacked+channels_last", network, examples, 4, "bf16")
    assert cells[2].tau == kendalltau(rounded.score(gpu.structures(network, gpu._RANKED)), exact).statistic
    assert "no CUDA graphs on cpu" in cells[3].trouble
    chooser = gpu.scorer("auto", network, examples)
    chosen = gpu.measure(gpu.Cell("tiny", "auto", 16, "fp32", (32, 8)), network, examples, reference, 0.0, chooser)
    assert chosen.off == pytest.approx(0, abs=1e-5)
    assert chosen.seconds > 0
    assert cells[2].operators < cells[1].operators < cells[0].operators  # stacked, sliced, one network after the other
    known = [
        replace(cell, structures=4, seconds=s, peak_bytes=2**30, operators=7.0)
        for cell, s in zip(cells[:3], (4.0, 2.0, 1.0), strict=True)
    ]
    card = {
        "facts": {"device": "cuda:0 (NVIDIA H200)", "torch": "2.8", "minutes": 8.0},
        "convolution_macs_per_second": 6400.0,
        "cells": [asdict(cell) for cell in (*known, replace(known[2], at_once=16, seconds=0.5, tau=0.99), cells[3])],
        "jobs": [
            asdict(gpu.Job("tiny", "moments", 0.25, 1.5)),
            asdict(gpu.Job("tiny", "cap", trouble="It failed.")),
        ],
        "left_out": ["vit_b_16"],
    }
    said = tabulated.gpu.table({"cells": {"h200": card}})
    assert "| tiny | one after the other (build, re-estimate, score) | 4 | 1.0 | 1.0 | 5% | 7 | 1.0 GiB |  |  |" in said
    assert "| tiny | stacked, channels last, 16 bits | 16 | 8.0 | 8.0 | 40% | 7 | 1.0 GiB |" in said
    assert (
        "| tiny | moments of what layers are given | 0.25 | 1.5 |\n| tiny | a ranking by `cap` | It failed. |  |"
        in said
    )
    assert "| 0.990 |" in said
    assert said.count("16 bits |") == 1
    assert "Failed: tiny, stacked, as a CUDA graph: There are no CUDA graphs on cpu." in said
    assert "Left out: vit_b_16." in said


@pytest.mark.parametrize("work", gpu.JOBS)
def test_other_work_is_timed_on_each_device_and_what_fails_is_said(work: str) -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1)]
    network = ps.trace(randomised(nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 4))), image(2, 3, 8, 8))
    examples = labelled(image(32, 3, 8, 8), image(32, 4).argmax(1))
    job = gpu.done("tiny", work, [network, network], examples, 0.0)
    assert job.trouble == ""
    assert job.seconds > 0
    assert job.cpu_seconds is not None
    wrong = labelled(image(32, 5, 8, 8), image(32, 4).argmax(1))
    assert gpu.done("tiny", work, [network], wrong, 0.0).trouble


def test_while_no_gpu_was_measured_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "measured", lambda name: None)
    assert "Nothing here has been measured on a GPU yet." in tables.render("<!-- table: gpu --><!-- end -->")
    assert "Not measured yet." in tables.render("<!-- table: racing --><!-- end -->")
