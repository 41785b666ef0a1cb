"""Segmenters of other packages, also those that return dictionaries: searched, with refitted weights, and trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators.accuracy import measured_on


def shapes(n: int, size: int = 64) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    images, masks = torch.randn(n, 3, size, size, generator=draws) * 0.2, torch.zeros(n, size, size, dtype=torch.int64)
    for i in range(n):
        x, y, kind = (int(torch.randint(high, (1,), generator=draws)) for high in (size - 28, size - 28, 2))
        masks[i, y : y + 28, x : x + 28] = 1 + kind
        images[i, kind, y : y + 28, x : x + 28] += 1.5
    return images, masks


def lraspp() -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)


def unet() -> nn.Module:
    package = pytest.importorskip("segmentation_models_pytorch")
    return package.Unet("mobilenet_v2", encoder_weights=None, classes=3, decoder_channels=(64, 32, 16, 16, 8))


NETWORKS = [
    pytest.param(lraspp, id="lraspp", marks=pytest.mark.slow),
    pytest.param(unet, id="unet", marks=[pytest.mark.detectors, pytest.mark.filterwarnings("default")]),
]


@pytest.mark.parametrize("make", NETWORKS)
def test_a_segmenter_is_searched_and_refitted_and_trained(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    data = ps.Data(train=shapes(64), test=shapes(16), calibration=32, task=ps.tasks.segmentation())
    recipe = ps.Recipe(epochs=3, batch_size=16, lr=3e-3, optimizer="adamw")
    model = ps.finetune(make(), data, recipe=recipe)
    network = ps.trace(model, data.examples())
    result = ps.search(network, data, budget="macs=70%", n_trials=4, build_with="reconstructed")
    sliced = ps.search(network, data, budget="macs=70%", n_trials=4).best.build()
    small = result.best.build()

    judged = data.examples_of(data.calibration_set())
    losses = [float(judged.losses(each(judged.inputs)).mean().detach()) for each in (sliced, small)]
    assert losses[1] < losses[0], "refitted weights must make up for something"
    assert network.space.cost(result.best.trial.structure).macs <= 0.7 * network.space.cost(network.space.full).macs
    again = ps.finetune(small, data, teacher=model, recipe=recipe)
    assert measured_on(again, data.examples_of(data.test_set())) > 0.3
