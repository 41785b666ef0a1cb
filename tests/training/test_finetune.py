from __future__ import annotations

import gc
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunesearch.errors import TrainingDiverged
from prunesearch.tasks.classify import classification
from prunesearch.tasks.task import Task
from prunesearch.training.data import Data
from prunesearch.training.finetune import Student, finetune, train
from prunesearch.training.optimization import rate
from prunesearch.training.recipe import Precision, Recipe
from prunesearch.training.reports import EpochReport
from tests.models_state import generators, state_of


def blobs(n: int = 256) -> Data:
    """Two classes that a linear layer can tell apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (n,), generator=generator)
    images = torch.randn(n, 4, generator=generator) + 3.0 * labels[:, None]
    return Data(train=(images, labels), test=(images, labels))


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def test_training_learns_and_leaves_model_teacher_and_generators_as_they_were() -> None:
    model, teacher, data = small(), small(1), blobs()
    before = state_of(model), state_of(teacher), generators()
    tuned = finetune(model, data, recipe=Recipe(epochs=5, batch_size=32), teacher=teacher)
    assert (state_of(model), state_of(teacher), generators()) == before
    images, labels = data.test_set()
    with torch.no_grad():
        assert (tuned(images).argmax(1) == labels).float().mean() > 0.95
    assert not tuned.training


@pytest.mark.parametrize(("precision", "collections"), [("fp32", 0), pytest.param("bf16", 1, marks=pytest.mark.slow)])
def test_a_training_leaves_no_network_behind_and_looks_for_garbage_only_if_it_made_any(
    precision: Precision, collections: int
) -> None:
    """A collection takes longer than a short training."""
    model, teacher, data = small(), small(1), blobs(64)
    recipe = Recipe(epochs=1, batch_size=32, precision=precision)
    finetune(model, data, recipe=recipe, teacher=teacher)  # the first one imports
    seen: list[str] = []
    gc.disable()
    gc.callbacks.append(lambda phase, _: seen.append(phase))
    try:
        before = networks_in_memory()
        finetune(model, data, recipe=recipe, teacher=teacher)
        after = networks_in_memory()
    finally:
        gc.callbacks.pop()
        gc.enable()
    assert after == before
    assert seen.count("start") == collections


def networks_in_memory() -> int:
    return sum(type(known) is nn.Sequential for known in gc.get_objects())


def test_the_same_seed_trains_the_same_network_and_another_seed_another() -> None:
    recipe = Recipe(epochs=2, batch_size=32)
    one, two, other = (finetune(small(), blobs(), recipe=recipe, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one[0].weight, other[0].weight)


def test_a_teacher_is_followed_in_eval_mode_and_makes_a_difference() -> None:
    class Recording(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.modes = nn.Linear(4, 2), modes

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.modes.add(self.training)
            return self.layer(x)

        def __deepcopy__(self, memo: object) -> Recording:
            return self

    modes: set[bool] = set()
    recipe = Recipe(epochs=1, batch_size=32)
    taught = finetune(small(), blobs(), recipe=recipe, teacher=Recording().train())
    alone = finetune(small(), blobs(), recipe=recipe)
    assert modes == {False}
    assert not torch.equal(taught[0].weight, alone[0].weight)


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential has no parameter to train"):
        finetune(small().requires_grad_(False), blobs())


def test_every_epoch_is_reported_with_a_falling_loss() -> None:
    reports: list[EpochReport] = []
    finetune(small(), blobs(), recipe=Recipe(epochs=4, batch_size=32), on_epoch=reports.append)
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert reports[-1].loss < reports[0].loss


def test_a_loss_that_is_not_a_number_stops_with_the_step() -> None:
    data = blobs()
    data.train[0][100] = math.nan  # type: ignore[index]
    with pytest.raises(TrainingDiverged, match="became nan at step") as caught:
        finetune(small(), data, recipe=Recipe(batch_size=32))
    assert 0 <= caught.value.step < 8


def test_frozen_parameters_stay() -> None:
    model = small()
    model[0].weight.requires_grad_(False)
    tuned = finetune(model, blobs(), recipe=Recipe(epochs=1, batch_size=32))
    assert torch.equal(tuned[0].weight, model[0].weight)
    assert not torch.equal(tuned[4].weight, model[4].weight)


def test_distillation_mixes_the_true_labels_with_the_teachers_soft_ones() -> None:
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    images, labels = torch.randn(16, 4), torch.randint(0, 3, (16,))
    recipe = Recipe(distillation=0.3, temperature=4.0)
    hard = F.cross_entropy(student(images), labels)
    soft, guess = (F.softmax(net(images) / 4.0, 1) for net in (teacher, student))
    distance = (soft * (soft.log() - guess.log())).sum(1).mean()
    expected = 0.7 * hard + 0.3 * 16.0 * distance
    assert torch.allclose(Student(student, teacher, recipe, classification())((images, labels)), expected, rtol=1e-5)
    assert torch.equal(Student(student, None, recipe, classification())((images, labels)), hard)


def test_the_rate_rises_linearly_then_falls_as_a_cosine_to_zero_or_stays() -> None:
    recipe = Recipe(warmup=0.1)
    assert rate(recipe, 0.0) == pytest.approx(0.0, abs=1e-6)
    assert rate(recipe, 0.05) == pytest.approx(0.5, abs=1e-6)
    assert rate(recipe, 0.1) == pytest.approx(1.0)
    assert rate(recipe, 0.55) == pytest.approx(0.5)
    assert rate(recipe, 1.0) == pytest.approx(0.0)
    assert rate(Recipe(warmup=0.1, schedule="constant"), 0.9) == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0}, {"batch_size": 1}, {"lr": 0.0}, {"momentum": -3}, {"momentum": 1.0}, {"warmup": 1.0},
        {"distillation": 7}, {"temperature": 0}, {"weight_decay": -1}, {"label_smoothing": 1.0},
    ],
)  # fmt: skip
def test_a_recipe_that_makes_no_sense_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"Expected .*{next(iter(settings))}.* got"):
        Recipe(**settings)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_are_computed_cannot_be_drawn_anew(wrap: Any) -> None:
    model = nn.Sequential(wrap(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"The weight of 0 \(Linear\) is computed from other parameters"):
        finetune(model, blobs(64), recipe=Recipe(epochs=1, batch_size=32, from_scratch=True))


def test_an_epoch_whose_metric_is_no_number_is_not_the_best() -> None:
    calls: list[float] = []

    def metric(outputs: torch.Tensor, batch: Any) -> torch.Tensor:
        calls.append(math.nan if len(calls) == 1 else 0.1 * len(calls))
        return torch.tensor(calls[-1])

    images, labels = blobs(64).train  # type: ignore[misc]
    task = Task(loss=lambda outputs, batch: outputs[:, 0].square(), metric=metric)
    data = Data(train=(images, labels), validation=0.25, task=task)
    reports = train(small(), data, recipe=Recipe(epochs=3, batch_size=16)).reports
    assert [report.best_epoch for report in reports] == [1, 2, 3]
    assert math.isnan(reports[0].metric or 0.0)


class Dropping(nn.Module):
    """A branch that is left out at random, by the generators of Python and numpy."""

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.branch = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and random.random() + np.random.rand() < 1.0:  # noqa: NPY002 - as people write it
            return self.whole(x)
        return self.whole(x) + self.branch(x)


def test_whatever_a_forward_draws_from_is_decided_by_the_seed_and_put_back() -> None:
    torch.manual_seed(0)
    model, data, recipe = Dropping(), blobs(64), Recipe(epochs=3, batch_size=8)
    before = generators()
    first = finetune(model, data, recipe=recipe, seed=1)
    assert generators() == before
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    assert state_of(finetune(model, data, recipe=recipe, seed=1)) == state_of(first)
