"""What the kernel of a linear layer or convolution sees at some positions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunesearch.models.devices import placed
from prunesearch.models.linear_map import LinearMap

_POSITIONS = 16  # per image and layer
_EVERYWHERE: tuple[Any, ...] = (slice(None), slice(None))  # all images, all channels


class Patches:
    """What a kernel sees at random positions of the output, the same for all images of a batch.

    Args:
        layer: The linear layer or convolution.
        seed: Decides the positions, 16 of each image, or all if there are fewer.

    Attributes:
        around: Sizes of the last inputs besides the channels.
    """

    def __init__(self, layer: LinearMap, seed: int) -> None:
        self._layer = layer
        self._rng = np.random.default_rng([seed, 3])
        self._at = torch.arange(0)
        self.around: tuple[int, ...] = ()

    def of(self, inputs: Tensor) -> Tensor:
        """(rows, columns) of a batch of inputs, each call at other positions."""
        layer = self._layer
        channels = 1 if layer.kernel else inputs.dim() - 1
        self.around = tuple(size for dim, size in enumerate(inputs.shape) if dim != channels)
        if not layer.kernel:
            rows = inputs.reshape(len(inputs), -1, inputs.shape[-1])
            self._at = placed(self._some(rows.shape[1]), rows.device)
            return rows[:, self._at].flatten(0, 1)
        padded = layer.padded(inputs)
        geometry = list(zip(padded.shape[2:], layer.kernel, layer.stride, layer.dilation, strict=True))
        sizes = [(size - step * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, step in geometry]
        at = self._some(math.prod(sizes))
        self._at = placed(at, padded.device)
        pairs = zip(torch.unravel_index(at, sizes), layer.stride, strict=True)
        first = [placed(index * stride, padded.device) for index, stride in pairs]
        taps = []  # (n, c, positions) each
        for offsets in itertools.product(*map(range, layer.kernel)):
            steps = zip(first, layer.dilation, offsets, strict=True)
            where = [places + step * offset for places, step, offset in steps]
            taps.append(padded[_EVERYWHERE + tuple(where)])
        return torch.stack(taps, dim=2).permute(0, 3, 1, 2).flatten(2).flatten(0, 1)

    def at_same(self, outputs: Tensor) -> Tensor:
        """(rows, channels) of something of the shape of the layer's outputs, where the last inputs were looked at."""
        last = outputs.flatten(2).movedim(1, 2) if self._layer.kernel else outputs
        return last.reshape(len(last), -1, last.shape[-1])[:, self._at].flatten(0, 1)

    def _some(self, positions: int) -> Tensor:
        if positions <= _POSITIONS:
            return torch.arange(positions)
        return torch.from_numpy(np.sort(self._rng.choice(positions, _POSITIONS, replace=False)))
