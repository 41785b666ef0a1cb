"""What every evaluator of structures promises. A new one is added to `EVALUATORS`."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from torch import Tensor

from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights
from tests.models_state import generators, state_of

EVALUATORS: dict[str, Callable[[InheritedWeights, Tensor, Tensor], Evaluator]] = {
    "loss": lambda weights, images, labels: AccuracyEvaluator(weights, images, labels, metric="loss"),
    "accuracy": lambda weights, images, labels: AccuracyEvaluator(weights, images, labels, metric="accuracy"),
    "agreement": lambda weights, images, labels: AccuracyEvaluator(weights, images, metric="agreement"),
}


@pytest.fixture(params=sorted(EVALUATORS))
def make(request: pytest.FixtureRequest, network: Network, images: Tensor, labels: Tensor) -> Callable[[], Evaluator]:
    weights = InheritedWeights(network, L1Criterion().rank(network))
    return lambda: EVALUATORS[request.param](weights, images, labels)


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
