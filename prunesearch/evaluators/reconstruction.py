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
from prunesearch.structure import FloatArray

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
    readers = [_Reader(network, read, seed) for read in network.reads if _Reader.knows(network, read)]
    with in_eval_mode(network.model), torch.inference_mode():
        handles = [reader.watch() for reader in readers]
        try:
            for batch in split(images[:_IMAGES], _BATCH):
                network.model(batch)
        finally:
            for handle in handles:
                handle.remove()
    for reader in readers:
        between = reader.gram(centred)
        energy = float(between.sum()) or 1.0
        position = np.full(network.unit_count, -1)
        for gram, units in zip(grams, network.units, strict=True):
            position[:] = -1
            position[units] = np.arange(len(units))
            inside = np.flatnonzero(position[reader.units] >= 0)
            places = position[reader.units[inside]]
            np.add.at(gram, np.ix_(places, places), between[np.ix_(inside, inside)] / energy)
    return grams


class _Reader:
    """A layer that reads channels, and the sums over images that its Gram matrix follows from."""

    def __init__(self, network: Network, read: Read, seed: int) -> None:
        layer = network.model.get_submodule(read.module)
        assert isinstance(layer, (nn.Linear, nn.Conv2d))
        self._layer = layer
        self.units = read.units
        self._rng = np.random.default_rng([seed, 3])
        self._square: Tensor | None = None
        self._sum: Tensor | None = None
        self._rows = 0

    @staticmethod
    def knows(network: Network, read: Read) -> bool:
        layer = network.model.get_submodule(read.module)
        if isinstance(layer, nn.Conv2d):
            return read.dim == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return isinstance(layer, nn.Linear)

    def watch(self) -> torch.utils.hooks.RemovableHandle:
        return self._layer.register_forward_pre_hook(lambda _, inputs: self._add(inputs[0]))

    def gram(self, centred: bool) -> FloatArray:
        """(c, c) Gram matrix of the contributions of input channels."""
        assert self._square is not None
        assert self._sum is not None
        square = self._square / self._rows
        if centred:
            mean = self._sum / self._rows
            square = square - torch.outer(mean, mean)
        channels, columns = len(self.units), len(square)
        weight, groups = self._layer.weight.detach().double().cpu(), getattr(self._layer, "groups", 1)
        # a convolution's group reads its own channels only, so the others' contributions do not meet
        blocks = [part.flatten(1).T @ part.flatten(1) for part in weight.chunk(groups)]
        products = torch.block_diag(*blocks) * square  # type: ignore[no-untyped-call]
        taps = columns // channels
        return products.reshape(channels, taps, channels, taps).sum((1, 3)).numpy()

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
