"""Each method has as many evaluations as the policy, and its answers are within the shares that were asked for."""

from __future__ import annotations

import json
from pathlib import Path

import policies_cifar10
import pytest
import torch
from tabulated.policies_cifar10 import table
from torch import nn

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.classify import labelled

IMAGES = torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(0))
PART = IMAGES, (IMAGES.mean((1, 2, 3)) > 0).long()


def network() -> ps.Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.ReLU()]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2))
    return ps.trace(model.eval(), IMAGES[:2])


def measured() -> policies_cifar10.Measured:
    traced = network()
    weights = InheritedWeights(traced, make_criterion("l1").rank(traced))
    return policies_cifar10.Measured(traced.space, AccuracyEvaluator(weights, labelled(*PART)))


SLOW = ("conditional",)


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in policies_cifar10.METHODS]
)
def test_answers_are_within_their_shares_and_take_no_more_evaluations_than_said(method: str) -> None:
    search = measured()
    cell = policies_cifar10.measured_cell(search, measured(), method, 0, total=10)
    anew = len(policies_cifar10.UNSEEN) * 2 if method in ("surrogate", "evolution", "random") else 0
    assert cell["scored"] <= 10 + anew
    full = search.space.cost(search.space.full).macs
    for found in cell["answers"].values():
        for share, answer in found.items():
            assert answer["macs"] * full <= 0.5 * float(share) * full + 1e-6
    shares = {f"{share:g}" for share in (*policies_cifar10.SEEN, *policies_cifar10.UNSEEN)}
    assert cell["answers"]["policy" if method == "conditional" else "searched"].keys() == shares


def test_the_policy_is_compared_share_by_share_and_seed_by_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies_cifar10, "TOTAL", 10)
    policies_cifar10.run(network(), (PART, PART), ["uniform.0"], tmp_path, total=10)
    uniform = json.loads((tmp_path / "uniform.0.json").read_text())
    policy = {
        share: {**answer, "loss": answer["loss"] - 0.1} for share, answer in uniform["answers"]["searched"].items()
    }
    policy["1"]["loss"] += 0.2
    cells = {
        "a": uniform,
        "b": {**uniform, "method": "conditional", "answers": {"policy": policy, "best trial": policy}},
    }
    page = table({"cells": cells})
    row, by_share = (line for line in page.splitlines() if line.startswith("| `uniform`"))
    assert "| 4 of 5 |" in row
    assert "| 4 of 4 |" in row
    losses = [answer["loss"] for _, answer in sorted(uniform["answers"]["searched"].items(), reverse=True)]
    assert by_share.startswith(f"| `uniform` | {' | '.join(f'{loss:.2f}' for loss in losses)} | ")
    assert "Not measured yet: `surrogate`, `evolution`, `random`." in page
    assert "worse than that" not in page  # of two classes losses are low


def test_the_table_says_at_which_shares_all_answers_are_worse_than_guessing(tmp_path: Path) -> None:
    policies_cifar10.run(network(), (PART, PART), ["uniform.0"], tmp_path, total=10)
    uniform = json.loads((tmp_path / "uniform.0.json").read_text())
    for share in ("0.4", "0.475"):
        uniform["answers"]["searched"][share]["loss"] = 2.4
    assert "At the shares 0.475, 0.4 every answer of every method is worse than that" in table(
        {"cells": {"a": uniform}}
    )


def test_uniform_widths_are_filled_up_to_each_share() -> None:
    search = measured()
    for share, structure in policies_cifar10.METHODS["uniform"](search, 0, 10)["searched"].items():
        wider = [(*structure[:i], width + 1, *structure[i + 1 :]) for i, width in enumerate(structure) if width < 12]
        assert not search.within(share).contains(wider).any()
