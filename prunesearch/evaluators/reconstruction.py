"""What dropping channels does to the outputs of the layers that read them, in closed form from one pass over images.

A layer's output is the sum of its input channels' contributions. With G the Gram matrix of those contributions over
images and positions, dropping the channels d (a 0/1 vector) changes the output by `d' G d` on average: exactly, without
a forward.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators.batchnorm import in_eval_mode, split
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.models.coupling import Read
from prunesearch.models.network import Network
from prunesearch.models.weights import WeightSource
from prunesearch.structure import FloatArray, IntArray

_IMAGES = 256
_POSITIONS = 16  # per image and layer
_BATCH = 64


def width_errors(weights: WeightSource, evaluator: Evaluator, images: Tensor) -> tuple[FloatArray, ...]:
    """Per group, (its allowed widths,) error of its consumers at each, relative to the variance of their outputs.

    The dropped channels are those that `weights` drops; 0 at full width. A group read only by layers of which nothing
    is known here (other than `Linear` and `Conv2d`) has the share of its channels that is dropped instead.

    Args:
        weights: Of the traced network, and which channels stay.
        evaluator: Not used; every kind of evidence takes one.
        images: (n, ...) images, normalised like the training set; the first 256 count.
    """
    del evaluator
    network, space = weights.network, weights.network.space
    found = []
    for g, (group, gram) in enumerate(zip(space.groups, gram_matrices(network, images), strict=True)):
        errors = []
        for width in group.widths:
            structure = (*space.full[:g], width, *space.full[g + 1 :])
            dropped = ~weights.kept(structure)[network.units[g]]
            errors.append(float(dropped @ gram @ dropped) if gram.any() else float(dropped.mean()))
        found.append(np.maximum(np.array(errors), 0.0))
    return tuple(found)


def gram_matrices(network: Network, images: Tensor, *, centred: bool = True, seed: int = 0) -> list[FloatArray]:
    """Per group, the (u, u) Gram matrix of its units' contributions to its consumers' outputs.

    Summed over consumers, each relative to the mean square of its whole output. Estimated from 16 random positions of
    each image; zero for a group without a `Linear` or `Conv2d` that reads it.

    Source: ours; it makes exact the second-order term of layer-wise pruning, Dong et al., NeurIPS 2017,
    arXiv:1705.07565.

    Args:
        network: A traced network; its weights are read as they are.
        images: (n, ...) images; the first 256 count.
        centred: Without the contributions' means, which a following BatchNorm absorbs once it is re-estimated.
        seed: Decides the positions.
    """
    grams = [np.zeros((len(units), len(units))) for units in network.units]
    for reader in consumers(network, images, seed=seed):
        between = reader.gram(centred)
        energy = float(between.sum()) or 1.0
        for gram, units in zip(grams, network.units, strict=True):
            inside, places = reader.channels_of(units)
            np.add.at(gram, np.ix_(places, places), between[np.ix_(inside, inside)] / energy)
    return grams


def consumers(network: Network, images: Tensor, *, seed: int = 0) -> list[Consumer]:
    """Every `Linear` and `Conv2d` that mixes narrowed channels, and second moments of what it is given.

    Args:
        network: A traced network.
        images: (n, ...) images; the first 256 count.
        seed: Decides the positions, 16 of each image.
    """
    found = [Consumer(network, read, seed) for read in network.reads if _is_known(network, read)]
    with in_eval_mode(network.model), torch.inference_mode():
        handles = [consumer.watch() for consumer in found]
        try:
            for batch in split(images[:_IMAGES], _BATCH):
                network.model(batch)
        finally:
            for handle in handles:
                handle.remove()
    return found


def _is_known(network: Network, read: Read) -> bool:
    layer = network.model.get_submodule(read.module)
    if isinstance(layer, nn.Conv2d):
        return read.dim == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


class Consumer:
    """A layer that reads channels, and sums over images and positions of what it is given.

    Its inputs are columns, channel by channel: one per element of a convolution's kernel. In float64.

    Args:
        network: A traced network.
        read: The layer, a `Linear` or `Conv2d`.
        seed: Decides the positions.
    """

    def __init__(self, network: Network, read: Read, seed: int) -> None:
        layer = network.model.get_submodule(read.module)
        assert isinstance(layer, (nn.Linear, nn.Conv2d))
        self._layer = layer
        self.name = read.module
        self.units = read.units
        self._rng = np.random.default_rng([seed, 3])
        self._square: Tensor | None = None
        self._sum: Tensor | None = None
        self._rows = 0

    def watch(self) -> torch.utils.hooks.RemovableHandle:
        """Take part in forwards until the handle is removed."""
        return self._layer.register_forward_pre_hook(lambda _, inputs: self._add(inputs[0]))

    @property
    def taps(self) -> int:
        """Columns per channel."""
        assert self._sum is not None
        return len(self._sum) // len(self.units)

    def mean(self) -> Tensor:
        """(columns,) mean of the inputs."""
        assert self._sum is not None
        return self._sum / self._rows

    def moments(self, centred: bool = True) -> Tensor:
        """(columns, columns) covariance of the inputs, or their second moments if not `centred`."""
        assert self._square is not None
        square = self._square / self._rows
        return square - torch.outer(self.mean(), self.mean()) if centred else square

    def weights(self) -> Tensor:
        """(outputs, columns) weights; zero where an output of a grouped convolution does not read a column."""
        groups = getattr(self._layer, "groups", 1)
        weight = self._layer.weight.detach().double().cpu()
        return torch.block_diag(*(part.flatten(1) for part in weight.chunk(groups)))  # type: ignore[no-untyped-call]

    def gram(self, centred: bool = True) -> FloatArray:
        """(c, c) Gram matrix of the contributions of input channels to the outputs."""
        channels, taps, weights = len(self.units), self.taps, self.weights()
        products = (weights.T @ weights) * self.moments(centred)
        return products.reshape(channels, taps, channels, taps).sum((1, 3)).numpy()

    def channels_of(self, units: IntArray) -> tuple[IntArray, IntArray]:
        """Channels of this layer that belong to some units, and each one's position among the units."""
        position = {int(unit): place for place, unit in enumerate(units)}
        inside = np.flatnonzero(np.isin(self.units, units))
        return inside, np.array([position[int(unit)] for unit in self.units[inside]], dtype=np.int64)

    def _add(self, inputs: Tensor) -> None:
        rows = self._patches(inputs) if isinstance(self._layer, nn.Conv2d) else self._vectors(inputs)
        rows = rows.double()
        square, total = (rows.T @ rows).cpu(), rows.sum(0).cpu()
        self._square = square if self._square is None else self._square + square
        self._sum = total if self._sum is None else self._sum + total
        self._rows += len(rows)

    def _vectors(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        return rows[:, self._some(rows.shape[1])].flatten(0, 1)

    def _patches(self, inputs: Tensor) -> Tensor:
        """(rows, c * taps) what the kernel sees at random positions."""
        layer = self._layer
        assert isinstance(layer, nn.Conv2d)
        assert not isinstance(layer.padding, str)
        (kh, kw), (sh, sw), (dh, dw), (ph, pw) = layer.kernel_size, layer.stride, layer.dilation, layer.padding
        padded = F.pad(inputs, (pw, pw, ph, ph))
        height = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
        width = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
        at = self._some(height * width)
        top, left = at // width * sh, at % width * sw
        taps = [padded[:, :, top + dh * i, left + dw * j] for i in range(kh) for j in range(kw)]  # (n, c, positions)
        return torch.stack(taps, dim=2).permute(0, 3, 1, 2).flatten(2).flatten(0, 1)

    def _some(self, positions: int) -> Tensor:
        """The same random positions for all images of a batch, all of them if they are few."""
        if positions <= _POSITIONS:
            return torch.arange(positions)
        return torch.from_numpy(np.sort(self._rng.choice(positions, _POSITIONS, replace=False)))
