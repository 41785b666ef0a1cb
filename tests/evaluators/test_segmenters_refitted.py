"""Of what slicing takes from a trained segmenter, refitted weights bring most back before any finetuning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators.accuracy import measured_on
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.reconstructed import ReconstructedWeights
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.search.uniform import uniform_structure


class Small(nn.Module):
    """Comes back by a transposed convolution and by bilinear pixels, each time beside what was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = convolved(3, 8), convolved(8, 12), convolved(12, 16)
        self.up, self.back2, self.back1 = nn.ConvTranspose2d(16, 12, 2, stride=2), convolved(24, 12), convolved(20, 8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        x = self.up(self.third(F.max_pool2d(second, 2)))
        x = self.back2(torch.cat([second, x], dim=1))
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        return self.head(self.back1(torch.cat([first, x], dim=1)))


def convolved(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def scenes(n: int) -> tuple[Tensor, Tensor]:
    """Two discs of three colours in noise, and the colour of each pixel's, 0 where there is none."""
    draw, at = torch.Generator().manual_seed(0), torch.arange(32) / 32
    images, masks = torch.randn(n, 3, 32, 32, generator=draw) * 0.7, torch.zeros(n, 32, 32, dtype=torch.int64)
    for _ in range(2):
        x, y, width = torch.rand(3, n, 1, 1, generator=draw) * 0.6 + 0.2
        disc = torch.hypot(at - x, at[:, None] - y) < width / 3
        colour = torch.randint(3, (n,), generator=draw)
        images.mul_(1 - 0.5 * disc[:, None])[torch.arange(n), colour] += 1.5 * disc
        masks = torch.where(disc, colour.reshape(n, 1, 1) + 1, masks)
    return images, masks


@pytest.mark.slow
def test_at_70_percent_four_fifths_of_the_lost_miou_come_back_before_finetuning() -> None:
    torch.manual_seed(0)
    images, masks = scenes(320)
    train, test = (images[:256], masks[:256]), (images[256:], masks[256:])
    data = ps.Data(train=train, task=ps.tasks.segmentation())
    model = ps.finetune(Small(), data, recipe=ps.Recipe(epochs=16, batch_size=16, lr=0.1)).eval()
    network = ps.trace(model, images[:2])
    ranking = make_criterion("cap").rank(network, data.examples_of(train).take(slice(128)))
    feasible = ps.Budget(macs="70%").check(network.space)
    drawn = feasible.fit(network.space.sample(np.random.default_rng(0), 3)).tolist()
    structures = [uniform_structure(feasible), *map(network.space.check, drawn)]
    judged = data.examples_of(test)

    def lost(weights: WeightSource) -> float:
        found = []
        for structure in structures:
            small = weights.build(structure)
            ps.recalibrate_bn(small, train[0])
            found.append(measured_on(small, judged))
        return full - float(np.mean(found))

    full = measured_on(model, judged)
    weights = ReconstructedWeights(network, ranking, train[0])
    assert weights.notes == ()
    assert {"up.weight", "back2.0.weight", "back1.0.weight", "head.weight"} <= weights.refitted
    sliced, refitted = lost(InheritedWeights(network, ranking)), lost(weights)
    assert full > 0.9, "the network must have learnt something"
    assert sliced > 0.05, "slicing must take something"
    assert refitted <= 0.2 * sliced, (full, sliced, refitted)
