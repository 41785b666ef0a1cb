from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunesearch.tasks.classify import classification
from prunesearch.training.data import Data
from prunesearch.training.distillation import Watched, attention_loss, features_loss
from prunesearch.training.finetune import Student, check_training, finetune
from prunesearch.training.recipe import Recipe
from tests.training.test_resume import convolutional, pictures


def test_attention_is_where_the_energy_is_whatever_the_number_and_scale_of_channels() -> None:
    energy = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    one = energy.sqrt().expand(1, 1, 2, 2)
    three = 7 * energy.sqrt().expand(1, 3, 2, 2)
    assert float(attention_loss(one, three)) == pytest.approx(0.0, abs=1e-12)
    other = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).expand(1, 2, 2, 2)
    # maps of unit length: (0.6, 0.8, 0, 0) and (0, 0, 1, 0)
    assert float(attention_loss(one, other)) == pytest.approx((0.36 + 0.64 + 1.0) / 4)


def test_features_of_a_narrower_student_follow_the_teachers() -> None:
    teacher, student = convolutional().eval(), convolutional()
    student[0], student[1], student[6] = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.Linear(3, 3)
    student[3] = nn.Identity()  # no dropout, to compare two forwards
    images, labels = pictures().train[0][:32], pictures().train[1][:32]  # type: ignore[index]
    with Watched(student, ["2"]) as mine, Watched(teacher, ["2"]) as theirs, torch.no_grad():
        student(images), teacher(images)
    distance = attention_loss(mine.features[0], theirs.features[0])
    expected = Student(student, teacher, Recipe(), classification())((images, labels)) + 10.0 * distance
    found = Student(student, teacher, Recipe(features=("2",), feature_weight=10.0), classification())((images, labels))
    assert float(distance) > 0
    assert torch.allclose(found, expected, rtol=1e-5)


class Levels(nn.Module):
    """Returns what a backbone often does: features by name, and beside them what has no positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(2, width, 3), nn.Conv2d(width, width, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        fine = self.fine(x)
        return {"levels": (fine, self.coarse(fine)), "mean": fine.mean((2, 3)), "size": torch.tensor(x.shape)}


def test_features_of_modules_that_return_dictionaries_follow_the_teachers() -> None:
    class Pooled(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.body, self.head = Levels(width), nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x)["mean"])

    torch.manual_seed(0)
    student, teacher = Pooled(3), Pooled(5).eval()
    batch = pictures().train[0][:8], pictures().train[1][:8]  # type: ignore[index]
    plain = Student(student, teacher, Recipe(), classification())(batch)
    found = Student(student, teacher, Recipe(features=("body",), feature_weight=10.0), classification())(batch)
    with torch.no_grad():
        both = [net.body(batch[0])["levels"] for net in (student, teacher)]
    distances = [float(attention_loss(a, b)) for a, b in zip(*both, strict=True)]
    assert min(distances) > 0
    assert (found - plain).item() == pytest.approx(10 * sum(distances) / 2, rel=1e-4)


@pytest.mark.parametrize("returned", [{"mean": torch.zeros(2, 3)}, (torch.zeros(2, 3, 4, 4),) * 3])
def test_features_that_cannot_be_compared_are_refused(returned: Any) -> None:
    with pytest.raises(ValueError, match=r"as many tensors \(n, c, \*positions\).*Name another"):
        features_loss(returned, [torch.zeros(2, 3, 4, 4)])


def test_features_that_there_are_not_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="no module 'layer9' to take features of; it has 0, 1"):
        finetune(convolutional(), pictures(), teacher=convolutional(), recipe=Recipe(features=("layer9",)))


def test_watching_ends_with_the_context() -> None:
    network = convolutional()
    with Watched(network, ["2"]) as watched:
        network(torch.zeros(2, 2, 6, 6))
    network(torch.zeros(2, 2, 6, 6))
    assert len(watched.features) == 1


class Backwards(nn.Module):
    """Its modules run in another order than they were made in, the last one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Linear(2, 2), nn.Linear(2, 2)
        self.blocks = nn.ModuleList([nn.Linear(2, 2)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.second(self.second(self.first(x)))


def test_features_come_in_the_order_of_their_names() -> None:
    model = Backwards()
    kept: dict[str, list[Tensor]] = {"first": [], "second": []}
    for name, returned in kept.items():
        model.get_submodule(name).register_forward_hook(lambda _, __, out, returned=returned: returned.append(out))
    with Watched(model, ["second", "first"]) as watched:
        model(torch.ones(1, 2))
    assert all(a is b for a, b in zip(watched.features, [*kept["second"], *kept["first"]], strict=True))


def test_a_module_that_is_not_called_is_refused() -> None:
    with Watched(Backwards(), ["blocks"]) as watched:
        Backwards()(torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"blocks is no module that the forward of Backwards calls"):
        _ = watched.features
    data = Data(train=(torch.ones(8, 2), torch.arange(8) % 2))
    recipe = Recipe(epochs=1, batch_size=4, features=("blocks",))
    with pytest.raises(ValueError, match="Name what is called"):
        check_training(Backwards(), data, recipe)
    check_training(Backwards(), data, replace(recipe, features=("blocks.0",)))
