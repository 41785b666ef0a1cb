"""Corrected BatchNorm statistics: the trained network keeps its own, and what is scored is what is built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators import make_weights
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels.l1 import L1Criterion
from prunesearch.evaluators.statistics import better_statistics
from prunesearch.evaluators.winner import Winner
from prunesearch.models.corrections import Correction, TrainedStatistics, corrections_of
from prunesearch.models.nested import Ragged
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.structure import Cost, Structure
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.follow import fidelity
from prunesearch.trial import Trial
from tests.models.networks import randomised, some_structures
from tests.models_state import state_of


class Functional(nn.Module):
    """BatchNorm as a function, with tensors of its own."""

    level: Tensor
    spread: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.register_buffer("level", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.level, self.spread, self.scale, None, self.training, 0.1, 1e-4)


class Own(nn.BatchNorm2d):
    """Derived from BatchNorm, with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0.5


class Net(nn.Module):
    """Three convolutions with BatchNorm of some kind; the last pair runs once or twice."""

    def __init__(self, norm: Any, times: int = 1) -> None:
        super().__init__()
        self.times = times
        self.first, self.norm1 = nn.Conv2d(3, 12, 3, padding=1, bias=False), norm(12)
        self.second, self.norm2 = nn.Conv2d(12, 16, 3, padding=1, bias=False), norm(16)
        self.third, self.norm3 = nn.Conv2d(16, 16, 1, bias=False), norm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm2(self.second(F.relu(self.norm1(self.first(x))))))
        for _ in range(self.times):
            x = F.relu(self.norm3(self.third(x)))
        return self.head(x.mean((2, 3)))


KINDS = [nn.BatchNorm2d, Functional, Own]
LABELS = torch.arange(48) % 5


def usual(n: int, seed: int = 1) -> Tensor:
    """Images of the kind that `trained` is of."""
    return torch.randn(n, 3, 10, 10, generator=torch.Generator().manual_seed(seed))


def other(n: int = 48, seed: int = 3) -> Tensor:
    """Images of another kind."""
    return usual(n, seed) * 1.5 + 0.4


def trained(norm: Any, times: int = 1) -> Network:
    """A network whose running statistics are those of usual images."""
    torch.manual_seed(0)
    model = randomised(Net(norm, times)).train()
    for seed in range(40):
        model(usual(32, 100 + seed))
    return trace(model.eval(), usual(2))


def weights_of(network: Network, source: str = "inherited") -> WeightSource:
    return make_weights(source, network, L1Criterion().rank(network), other())


def built(weights: WeightSource, structure: Structure, images: Tensor, statistics: Any) -> nn.Module:
    """As a search builds its winner."""
    trial = Trial(0, structure, Cost(1, 1), 0.0, None, 0.0, "", "", "")
    model = weights.network.model
    return Winner(
        trial, weights, images, model, TrainedStatistics(model) if statistics == "corrected" else None
    ).build()


def loss(model: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(model(images), LABELS[: len(images)]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["inherited", "compensated"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_corrected_score_is_that_of_the_network_that_is_built(kind: Any, source: str, times: int) -> None:
    weights = weights_of(trained(kind, times), source)
    structures = some_structures(weights.network, 3)
    expected = [-loss(built(weights, structure, other(), "corrected"), other()) for structure in structures]
    for path in ("sliced", "stacked") if times == 1 else ("sliced",):
        scorer = AccuracyEvaluator(weights, labelled(other(), LABELS), path=path, statistics="corrected")
        assert scorer.score(structures) == pytest.approx(expected, rel=1e-4), path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [1, 2])
def test_a_score_with_statistics_of_the_images_is_that_of_the_network_that_is_built(kind: Any, times: int) -> None:
    """But for the last digits: running variances are unbiased. Those of functions were once left as they were."""
    weights = weights_of(trained(kind, times))
    structures = some_structures(weights.network, 3)
    scores = AccuracyEvaluator(weights, labelled(other(), LABELS)).score(structures)
    expected = [-loss(built(weights, structure, other(), "images"), other()) for structure in structures]
    assert scores == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("path", "times"), [("sliced", 1), ("stacked", 1), ("sliced", 2)])
def test_the_trained_network_keeps_its_own_statistics(kind: Any, path: Any, times: int) -> None:
    weights = weights_of(trained(kind, times))
    network = weights.network
    before = state_of(network.model)
    examples = labelled(other(), LABELS)
    scorer = AccuracyEvaluator(weights, examples, path=path, statistics="corrected", batch_size=16)
    own = -loss(network.model, other())
    assert scorer.score([network.space.full]) == pytest.approx([own], rel=1e-5)
    assert scorer.on(range(0, 48, 2)).score([network.space.full]) != scorer.score([network.space.full])
    assert scorer.with_statistics("images").score([network.space.full]) != pytest.approx([own], rel=1e-4)
    assert state_of(network.model) == before


@pytest.mark.parametrize("times", [1, 2])
def test_the_unpruned_network_is_built_as_it_was(times: int) -> None:
    weights = weights_of(trained(nn.BatchNorm2d, times))
    same = built(weights, weights.network.space.full, other(300), "corrected")
    for (name, mine), theirs in zip(same.named_buffers(), weights.network.model.buffers(), strict=True):
        assert torch.allclose(mine.float(), theirs.float(), rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_what_calls_a_batch_norm_twice_is_not_stacked(kind: Any) -> None:
    """Its statistics are those of both calls."""
    weights = weights_of(trained(kind, 2))
    scorer = AccuracyEvaluator(weights, labelled(other(), LABELS), path="stacked")
    with pytest.raises(ValueError, match="calls one BatchNorm several times"):
        scorer.score(some_structures(weights.network, 2))


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, Functional])
@pytest.mark.parametrize("statistics", ["images", "corrected"])
def test_images_of_several_sizes_have_statistics_of_all_calls(kind: Any, statistics: Any) -> None:
    weights = weights_of(trained(kind, 2))
    structures = some_structures(weights.network, 2)
    sizes = [other(28), F.pad(other(20, seed=4), (2, 2, 2, 2))]
    images = Ragged([image for each in sizes for image in each])
    scores = AccuracyEvaluator(weights, labelled(images, LABELS), statistics=statistics).score(structures)
    for score, structure in zip(scores, structures, strict=True):
        model = built(weights, structure, images, statistics)
        with torch.no_grad():
            outputs = torch.cat([model(each) for each in sizes])
        assert score == pytest.approx(-float(F.cross_entropy(outputs, LABELS)), rel=2e-3)


@pytest.mark.parametrize("times", [1, 2])
def test_statistics_come_from_the_calibration_that_is_given(times: int) -> None:
    weights = weights_of(trained(nn.BatchNorm2d, times))
    structures = some_structures(weights.network, 2)
    scorer = AccuracyEvaluator(
        weights, labelled(other(), LABELS), calibration=usual(40), statistics="corrected", batch_size=16
    )
    expected = [-loss(built(weights, structure, usual(40), "corrected"), other()) for structure in structures]
    assert scorer.score(structures) == pytest.approx(expected, rel=1e-4)


def test_images_of_several_sizes_are_corrected_together() -> None:
    network = trained(nn.BatchNorm2d)
    small, large = other(20), F.pad(other(12, seed=4), (2, 2, 2, 2))
    (of_norm1, *_), *_ = corrections_of(network.model, [small, large]).values()
    with torch.no_grad():
        seen = [network.model.first(images).movedim(1, 0).flatten(1) for images in (small, large)]  # type: ignore[operator]
    together = torch.cat(seen, 1)
    assert torch.allclose(of_norm1.mean_here, together.mean(1), atol=1e-5)
    assert torch.allclose(of_norm1.variance_here, together.var(1, correction=0), rtol=1e-4)


def test_a_correction_by_hand() -> None:
    """A channel that varies a quarter as much errs by half in its mean and a quarter in its variance."""
    of_trained = (torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0]), torch.tensor([4.0]))
    mean, variance = Correction(*of_trained, 0.0).of((torch.tensor([10.0]), torch.tensor([1.0])))
    assert (float(mean), float(variance)) == (10 + 0.5 * (1 - 3), 1 + 0.25 * (2 - 4))


def test_no_variance_is_negative_and_none_explodes() -> None:
    here, running, pruned = torch.cartesian_prod(*[torch.tensor([0.0, 1e-3, 1.0, 50.0])] * 3).unbind(1)
    one = torch.ones_like(here)
    mean, variance = Correction(one, running, one, here, 1e-5).of((one, pruned))
    assert torch.equal(mean, one)
    assert bool((variance >= 0).all())
    assert bool((variance <= 1.001 * (pruned + 4 * running)).all())


def test_images_unlike_those_of_the_training_are_corrected_and_others_are_not() -> None:
    """Half of the images choose by what the other half makes of the network: here, how far it is from the unpruned."""
    weights = weights_of(trained(nn.BatchNorm2d), "compensated")
    probe = some_structures(weights.network, 1)[0]

    def chosen(images: Tensor) -> str:
        return better_statistics(weights, AccuracyEvaluator(weights, Examples(images, fidelity())), probe)

    assert chosen(other(256)) == "corrected"
    assert chosen(other(31)) == "images"  # too few to be cut into halves


def test_networks_without_running_statistics_are_left_alone() -> None:
    network = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval(), usual(2))
    weights = InheritedWeights(network, L1Criterion().rank(network))
    scorer = AccuracyEvaluator(weights, Examples(usual(64), fidelity()))
    assert not scorer.keeps_statistics
    assert better_statistics(weights, scorer, network.space.minimum) == "images"


@pytest.mark.parametrize("asked", ["images", "corrected", None])
def test_a_search_builds_with_the_statistics_that_it_scored_with(asked: Any, tmp_path: Any) -> None:
    network = trained(nn.BatchNorm2d)
    options = {} if asked is None else {"statistics": asked}

    def search() -> ps.SearchResult:
        return ps.search(
            network,
            (other(64), torch.arange(64) % 5),
            budget="macs=80%",
            searcher="random",
            n_trials=4,
            scoring=ps.Scoring(evaluator_options=options, race=False),
            study=f"sqlite:///{tmp_path}/s.db",
            progress=False,
        )

    result = search()
    assert asked is None or result.best.statistics == asked
    with torch.no_grad():
        found = float(F.cross_entropy(result.best.build()(other(64)), torch.arange(64) % 5))
    assert result.best.trial.score == pytest.approx(-found, rel=2e-3)
    again = search()
    assert again.trials == result.trials
    assert again.best.statistics == result.best.statistics


def test_unknown_statistics_are_refused() -> None:
    weights = weights_of(trained(nn.BatchNorm2d))
    with pytest.raises(ValueError, match="Unknown statistics 'batch'; there are images, corrected"):
        AccuracyEvaluator(weights, labelled(other(), LABELS), statistics="batch")  # type: ignore[arg-type]
