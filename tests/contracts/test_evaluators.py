"""What every registered evaluator of structures promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from prunesearch.evaluators import EVALUATORS, make_evaluator
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.evaluator import Divisible, Evaluator, divided
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.classify import labelled
from tests.models_state import generators, state_of

OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "accuracy": ({"metric": "loss"}, {"metric": "accuracy"}, {"metric": "agreement"}, {"batch_size": 100}),
    "adaptive_bn": ({"batch_size": 32},),
}
CASES = [(name, options) for name in EVALUATORS for options in OPTIONS.get(name, ({},))]


@pytest.fixture(params=CASES, ids=str)
def make(request: pytest.FixtureRequest, network: Network, images: Tensor, labels: Tensor) -> Callable[[], Evaluator]:
    name, options = request.param
    weights = InheritedWeights(network, L1Criterion().rank(network))
    return lambda: make_evaluator(name, weights, labelled(images, labels), **options)


def some_structures(network: Network) -> list[tuple[int, ...]]:
    space = network.space
    half = tuple(group.widths[len(group.widths) // 2] for group in space.groups)
    return [space.full, half, space.minimum]


def test_every_structure_gets_a_finite_score_and_a_better_one_scores_higher(
    make: Callable[[], Evaluator], network: Network
) -> None:
    full, _, minimum = make().score(some_structures(network))
    assert math.isfinite(full)
    assert full > minimum


def test_a_score_does_not_depend_on_its_batch_on_order_or_on_what_came_before(
    make: Callable[[], Evaluator], network: Network
) -> None:
    structures = some_structures(network)
    evaluator = make()
    together = evaluator.score(structures)
    assert evaluator.score(structures[::-1]) == together[::-1]
    assert [make().score([structure])[0] for structure in structures] == together


def test_scoring_leaves_the_network_and_every_random_generator_as_they_were(
    make: Callable[[], Evaluator], network: Network
) -> None:
    before = state_of(network.model), generators()
    make().score(some_structures(network))
    assert (state_of(network.model), generators()) == before


def test_scoring_nothing_gives_nothing(make: Callable[[], Evaluator]) -> None:
    assert make().score([]) == []


def test_the_description_tells_settings_apart(make: Callable[[], Evaluator]) -> None:
    assert make().description == make().description
    assert "images=256" in make().description


def test_an_evaluator_that_can_be_divided_is_the_mean_of_its_parts(
    make: Callable[[], Evaluator], network: Network
) -> None:
    evaluator = make()
    if not isinstance(evaluator, Divisible):
        pytest.skip("it scores on all of its images only")
    structures, n = some_structures(network), evaluator.n_images
    whole = evaluator.score(structures)
    assert evaluator.on(range(n)).score(structures) == whole
    parts = divided(evaluator, 4)
    assert [part.n_images for part in parts] == [n // 4] * 4
    means = np.mean([part.score(structures) for part in parts], axis=0)
    assert means == pytest.approx(whole, rel=0.1, abs=0.05)  # BatchNorm statistics are those of 64 images
    assert evaluator.score(structures) == whole
