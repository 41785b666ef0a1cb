"""Networks that answer otherwise than by logits of each class: one logit, auxiliary heads, token ids as images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.tasks.classify import classification, soft_label_loss
from prunesearch.training.augment import Augmentation
from prunesearch.training.data import Data
from prunesearch.training.finetune import Student, finetune, train
from prunesearch.training.recipe import Recipe
from tests.training.test_resume import pictures

SHORT = Recipe(epochs=2, batch_size=16, lr=0.01)


class Net(nn.Module):
    """A small convolutional network with what comes after its features given."""

    def __init__(self, outputs: int, wrap: Callable[..., Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.aux, self.head = nn.Linear(8, outputs), nn.Linear(12, outputs)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        x = self.first(x).relu()
        logits = self.head(self.second(x).relu().mean((2, 3)))
        if self.training and self.wrap is not None:
            return self.wrap(logits, self.aux(x.mean((2, 3))))
        return logits


def two_classes() -> Data:
    images, labels = pictures().train  # type: ignore[misc]
    return Data(train=(images, (labels > 0).long()), test=(images, (labels > 0).long()), validation=0.2)


def test_a_single_logit_is_searched_finetuned_and_judged_as_a_binary_classifier() -> None:
    data = two_classes()
    images, labels = data.test_set()
    model = finetune(Net(1), data, recipe=Recipe(epochs=12, batch_size=16, lr=0.05))
    right = ((model(images)[:, 0] > 0).long() == labels).float().mean()
    assert float(right) > 0.9
    assert ps.top1(model, images, labels) == pytest.approx(float(right))
    network = ps.trace(model, images[:2])
    result = ps.search(
        network,
        data,
        budget=ps.Budget(macs="60%"),
        searcher="random",
        n_trials=3,
        scoring=ps.Scoring(criterion="taylor", images=1000),
    )
    small, (some, theirs) = result.best.build(), data.calibration_set()
    expected = F.binary_cross_entropy_with_logits(small(some)[:, 0], theirs.float())
    assert result.best.trial.score == pytest.approx(-float(expected.detach()), rel=1e-4)
    tuned = train(small, data, recipe=SHORT, teacher=model)
    held_out = data.validation_set() or (images, labels)
    assert tuned.validation_after == pytest.approx(ps.top1(tuned.best, *held_out))
    rows = ps.compare(network, {"small": tuned.best}, data=data).rows
    assert [row.metric for row in rows] == [ps.top1(net, images, labels) for net in (model, tuned.best)]


def test_a_teachers_single_logit_is_followed() -> None:
    student, teacher = Net(1).eval(), nn.Sequential(nn.Flatten(), nn.Linear(72, 1))
    images, labels = torch.randn(8, 2, 6, 6), torch.arange(8) % 2
    probability = torch.sigmoid(teacher(images) / 2)
    guess = torch.sigmoid(student(images) / 2)
    divergence = probability * (probability / guess).log() + (1 - probability) * ((1 - probability) / (1 - guess)).log()
    hard = F.binary_cross_entropy_with_logits(student(images)[:, 0], labels.float())
    found = Student(student, teacher, Recipe(distillation=0.5, temperature=2.0), classification())((images, labels))
    assert torch.allclose(found, 0.5 * hard + 0.5 * 4 * divergence.mean(), rtol=1e-5)


def test_labels_of_more_than_two_classes_do_not_fit_a_single_logit() -> None:
    with pytest.raises(
        ValueError, match="labels from 0 to 1, as the network has one output, for two classes; got 0 to 2"
    ):
        finetune(Net(1), pictures(), recipe=SHORT)
    images = pictures().examples()
    with pytest.raises(
        ValueError, match="labels from 0 to 1, as the network has one output, for two classes; got 0 to 2"
    ):
        ps.search(ps.trace(Net(1), images), pictures(), budget=ps.Budget(macs="60%"))


def as_mapping(logits: Tensor, auxiliary: Tensor) -> dict[str, Tensor]:
    return {"aux": auxiliary, "out": logits}


@pytest.mark.parametrize(
    ("wrap", "share"),
    [
        (lambda logits, auxiliary: (logits, auxiliary), 0.4),
        (lambda logits, auxiliary: [logits, auxiliary, auxiliary], 0.6),
        (as_mapping, 0.4),
    ],
)
@pytest.mark.parametrize("taught", [False, True])
def test_auxiliary_heads_learn_from_the_labels_and_the_main_one_alone_follows_the_teacher(
    wrap: Callable[..., Any], share: float, taught: bool
) -> None:
    images, labels = torch.randn(8, 2, 6, 6), torch.arange(8) % 3
    student, teacher = Net(3, wrap), Net(3)
    with torch.no_grad():
        teacher.head.weight.mul_(5.0)
    logits, auxiliary = Net(3, lambda *both: both)(images)
    expected = F.cross_entropy(logits, labels) + share * F.cross_entropy(auxiliary, labels)
    if taught:
        expected = 0.5 * expected + 0.5 * soft_label_loss(logits, teacher(images), 2.0).mean()
    found = Student(student, teacher.eval() if taught else None, Recipe(), classification())((images, labels))
    assert torch.allclose(found, expected, rtol=1e-5)


def test_a_pruned_network_with_auxiliary_heads_is_trained_with_them() -> None:
    data = pictures()
    model = Net(3, lambda logits, auxiliary: (logits, auxiliary))
    small = ps.search(ps.trace(model, data.examples()), data, budget=ps.Budget(macs="60%"), searcher="uniform").best
    tuned = finetune(small.build(), data, recipe=SHORT, teacher=model)
    assert not torch.equal(tuned.aux.weight, small.build().aux.weight)


def test_outputs_that_are_not_understood_are_refused_before_a_step_is_taken() -> None:
    model = Net(3, lambda logits, auxiliary: (logits, auxiliary[:, :2]))
    steps: list[object] = []
    with pytest.raises(ValueError, match=r"logits in training mode.*a tuple of \(16, 3\), \(16, 2\)"):
        finetune(model, pictures(), recipe=SHORT, on_step=steps.append)
    assert steps == []


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layer, self.head = nn.Embedding(20, 8), nn.Conv1d(8, 12, 3), nn.Linear(12, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(ids).transpose(1, 2)).relu().mean(2))


@pytest.mark.parametrize("criterion", ["l1", "taylor", "lfe"])
@pytest.mark.parametrize("weights", ["inherited", "compensated", "reconstructed"])
def test_token_ids_are_searched_and_finetuned(criterion: str, weights: str) -> None:
    ids = torch.randint(0, 20, (64, 9), generator=torch.Generator().manual_seed(0))
    data = Data(train=(ids, (ids[:, 0] > 9).long()))
    network = ps.trace(Text(), data.examples())
    result = ps.search(
        network,
        data,
        budget=ps.Budget(macs="60%"),
        searcher="random",
        n_trials=2,
        scoring=ps.Scoring(criterion=criterion, weight_source=weights),
    )
    assert all(trial.score is not None for trial in result.trials)
    tuned = finetune(result.best.build(), data, recipe=SHORT, teacher=network.model)
    assert tuned(ids).shape == (64, 2)


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (Augmentation(flip=True), r"\(n, c, h, w\) images .*to augment, got \(n, 9\)"),
        (Augmentation(crop=2), r"\(n, c, h, w\) images larger than crop=2 pixels to augment, got \(n, 9\)"),
    ],
)
def test_token_ids_cannot_be_augmented(augmentation: Augmentation, message: str) -> None:
    data = Data(train=(torch.zeros(64, 9).long(), torch.zeros(64).long()))
    with pytest.raises(ValueError, match=message):
        finetune(Text(), data, recipe=Recipe(epochs=1, batch_size=16, augmentation=augmentation))


def test_pixels_that_are_whole_numbers_cannot_be_cropped() -> None:
    class Bytes(Text):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids.flatten(1))

    data = Data(train=(torch.zeros(64, 1, 3, 3).long(), torch.zeros(64).long()))
    with pytest.raises(ValueError, match=r"floating-point images to crop, got torch.int64\. Leave crop out"):
        finetune(Bytes(), data, recipe=Recipe(epochs=1, batch_size=16, augmentation=Augmentation(crop=2)))
