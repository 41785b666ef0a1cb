"""What looks at images one by one, in networks whose layers are given several rows of each, or none of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators.channels.lfe import balanced_masks, responses
from prunesearch.evaluators.hsic import nhsic
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples

IMAGES = torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
CLIPS = IMAGES[:, None].repeat(1, 4, 1, 1, 1)  # 4 frames that are alike
MOVING = torch.randn(12, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Pictures(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 10, 3), nn.Linear(10, 4)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x)))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Frames(Pictures):
    """The same for clips, frame by frame."""

    def forward(self, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        return self.head(self.features(x.flatten(0, 1)).view(n, t, -1).mean(1))


class TimeFirst(Pictures):
    """The same, but the first frames of all clips come first."""

    def forward(self, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        return self.head(self.features(x.transpose(0, 1).flatten(0, 1)).view(t, n, -1).mean(0))


class Sequences(Pictures):
    """With a recurrent layer that takes time first."""

    def __init__(self) -> None:
        super().__init__()
        self.over_time = nn.LSTM(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        features = self.features(x.flatten(0, 1)).view(n, t, -1)
        return self.head(self.over_time(features.transpose(0, 1))[0][-1])


def traced(make: Callable[[], nn.Module], images: Tensor) -> tuple[Network, Examples]:
    torch.manual_seed(0)
    return trace(make().eval(), images[:2]), labelled(images, torch.arange(len(images)) % 4)


def masked(network: Network, examples: Examples) -> np.ndarray:
    """Responses to some masks of the second group."""
    masks = balanced_masks(len(network.units[1]), 20, np.random.default_rng(0))
    return responses(network, network.units[1], masks, examples, np.ones(network.unit_count, dtype=np.bool_))


def test_clips_of_one_picture_are_answered_for_as_the_pictures() -> None:
    (network, pictures), (of_clips, clips) = traced(Pictures, IMAGES), traced(Frames, CLIPS)
    np.testing.assert_allclose(masked(of_clips, clips), masked(network, pictures), atol=1e-5)
    np.testing.assert_allclose(nhsic(of_clips, CLIPS)[0], nhsic(network, IMAGES)[0], atol=1e-6)


@pytest.mark.parametrize("make", [TimeFirst, Sequences])
@pytest.mark.parametrize("ask", [masked, lambda network, examples: nhsic(network, examples.inputs)])
def test_layers_that_are_not_given_one_image_after_the_other_are_refused(
    make: Callable[[], nn.Module], ask: Callable[[Network, Examples], object]
) -> None:
    with pytest.raises(ValueError, match=r"(second|over_time) of .* is not given one image after the other.* another"):
        ask(*traced(make, MOVING))
