"""Small networks of several kinds, trained for seconds, with data from which they can learn what they are for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import prunesearch as ps

N = 160


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Segmenter(nn.Module):
    """Returns a dictionary, as torchvision's do; half the size of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(12, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.head, self.aux = nn.Conv2d(16, 3, 1), nn.Conv2d(12, 3, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.down(image)
        found = {"out": self.head(self.inner(features))}
        return {**found, "aux": self.aux(features)} if self.training else found


class TwoInputs(nn.Module):
    """Predicts two numbers from a picture and facts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3))
        self.facts, self.head = nn.Linear(4, 12), nn.Linear(12, 2)

    def forward(self, picture: Tensor, facts: Tensor) -> Tensor:
        return self.head(torch.relu(self.stem(picture).mean((2, 3)) + self.facts(facts)))


class Tagger(nn.Sequential):
    """One logit per label."""

    def __init__(self) -> None:
        stem = nn.Conv2d(2, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.BatchNorm2d(12), nn.ReLU()
        super().__init__(*stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))


class Autoencoder(nn.Module):
    """Returns the image, and the code in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 8, 3, 1, 1))
        self.decode = nn.Sequential(nn.ConvTranspose2d(8, 12, 2, 2), nn.ReLU(), nn.Conv2d(12, 1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encode(image)
        return self.decode(code), code


@dataclass(frozen=True)
class Case:
    """A network that learnt something, and the data that it learnt from."""

    model: nn.Module
    data: ps.Data
    metric: str


def segmentation() -> Case:
    images = drawn(1, N, 3, 12, 12)
    smooth = nn.functional.avg_pool2d(images, 5, 1, 2)
    masks = smooth.argmax(1)
    masks[:, 0] = 255
    return _case(Segmenter, (smooth * 4, masks), ps.tasks.segmentation(), "mIoU")


def regression() -> Case:
    pictures, facts = drawn(2, N, 1, 8, 8), drawn(3, N, 4)
    targets = torch.stack([pictures.mean((1, 2, 3)) * 4 + facts[:, 0], facts[:, 1] - facts[:, 2]], 1)
    return _case(TwoInputs, ((pictures, facts), targets), ps.tasks.regression(), "R2")


def multilabel() -> Case:
    images = drawn(4, N, 2, 8, 8) + drawn(5, N, 2, 1, 1)
    means = images.mean((2, 3))
    targets = torch.stack([means[:, 0] > 0, means[:, 1] > 0, means.sum(1) > 0, means[:, 0] > means[:, 1]], 1).float()
    return _case(Tagger, (images, targets), ps.tasks.multilabel(), "mAP")


def autoencoder() -> Case:
    """A task of the user's own, in a few lines; the batch is a dictionary."""
    images = nn.functional.avg_pool2d(drawn(6, N, 1, 16, 16), 5, 2, 2) * 4
    task = ps.Task(
        inputs=lambda batch: batch["image"],
        loss=lambda outputs, batch: (outputs[0] - batch["image"]).square().mean((1, 2, 3)),
        metric=lambda outputs, batch: (outputs[0] - batch["image"]).abs().mean((1, 2, 3)),
        metric_name="error",
        higher_is_better=False,
        name="autoencoder",
    )
    return _case(Autoencoder, {"image": images}, task, "error")


CASES: dict[str, Callable[[], Case]] = {
    "segmentation": cache(segmentation),
    "regression": cache(regression),
    "multilabel": cache(multilabel),
    "autoencoder": cache(autoencoder),
}


def _case(kind: type[nn.Module], batch: Any, task: ps.Task, metric: str) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind()
    data = ps.Data(train=batch, test=batch, calibration=64, validation=0.2, task=task)
    recipe = ps.Recipe(epochs=12, batch_size=32, lr=0.01, optimizer="adamw")
    return Case(ps.finetune(model, data, recipe=recipe), data, metric)
