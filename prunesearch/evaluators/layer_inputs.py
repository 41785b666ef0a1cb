"""The layers that read channels, and what they are given: means and covariances, from passes over some images."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.errors import CheckpointError
from prunesearch.evaluators.batchnorm import split
from prunesearch.evaluators.hooks import watched
from prunesearch.evaluators.inputs import example_batch
from prunesearch.models.coupling import Read
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.nested import Batch, called, in_order_of, taken
from prunesearch.models.network import Network
from prunesearch.models.tensor_file import FileKind
from prunesearch.structure import FloatArray, IntArray

_IMAGES = 256
_POSITIONS = 16  # per image and layer
_BATCH = 64
_CHANNELS = 64  # of a Gram matrix that are computed at once
_BYTES = 1 << 30  # of the covariances that one pass gathers
_VERSION = 2  # of how moments are gathered and kept: those of another one are not read
_MOMENTS = FileKind(f"prunesearch-moments-{_VERSION}", "layer", "holds no moments of what a layer is given")


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """A `Linear` or `Conv2d` that reads narrowed channels, and moments of what it is given.

    Its inputs are columns, channel by channel: one per element of a convolution's kernel. On the CPU in float64.

    Attributes:
        name: Qualified name of the layer.
        units: (c,) unit of each of its input channels.
        weights: (outputs, columns), zero where an output of a grouped convolution does not read a column.
        mean: (columns,) of the inputs.
        covariance: (columns, columns) of the inputs.
    """

    name: str
    units: IntArray
    weights: Tensor
    mean: Tensor
    covariance: Tensor

    @property
    def taps(self) -> int:
        """Columns per channel."""
        return len(self.mean) // len(self.units)

    @cached_property
    def cross(self) -> Tensor:
        """(outputs, columns) covariance of the outputs and the inputs."""
        return self.weights @ self.covariance

    def gram(self, centred: bool = True) -> FloatArray:
        """(c, c) Gram matrix of the contributions of input channels to the outputs."""
        channels, taps = len(self.units), self.taps
        rows = []
        for block in torch.split(
            torch.arange(channels * taps), _CHANNELS * taps
        ):  # all products at once could be gigabytes
            products = self.covariance[block]
            if not centred:
                products = products.addr(self.mean[block], self.mean)
            products = products * (self.weights[:, block].T @ self.weights)
            rows.append(products.reshape(-1, taps, channels, taps).sum((1, 3)))
        return torch.cat(rows).numpy()

    def channels_of(self, units: IntArray) -> tuple[IntArray, IntArray]:
        """Channels of this layer that belong to some units, and each one's position among the units."""
        position = {int(unit): place for place, unit in enumerate(units)}
        inside = np.flatnonzero(np.isin(self.units, units))
        return inside, np.array([position[int(unit)] for unit in self.units[inside]], dtype=np.int64)


def layer_inputs(
    network: Network, images: Batch, *, seed: int = 0, cache: str | Path | None = None, most_columns: int | None = None
) -> Iterator[LayerInputs]:
    """Every `Linear` and `Conv2d` that mixes narrowed channels, and moments of what it is given.

    Layers are gathered together as long as their covariances take less than 1 GiB; then comes another pass.

    Args:
        network: A traced network.
        images: (n, ...) images; the first 256 count.
        seed: Decides the positions, 16 of each image.
        cache: Folder where moments are kept, under a fingerprint of the network, the images and the seed.
        most_columns: Layers with more are left out, as a covariance of 8,192 columns takes half a gigabyte.

    Raises:
        ValueError: The network was traced with other inputs.
    """
    in_order_of(example_batch(network), images)
    images = taken(images, slice(_IMAGES))
    folder = None
    if cache is not None:
        folder = Path(cache) / f"moments-{_VERSION}-{network.fingerprint()}-{fingerprint(images)}-{seed}"
    known = [read for read in network.reads if is_linear_map(network, read)]
    if most_columns is not None:
        known = [read for read in known if _columns(network.model.get_submodule(read.place)) <= most_columns]
    for reads in _within(network, known, _BYTES):
        yield from _gathered(network, reads, images, seed, folder)


def matrix_of(layer: nn.Module) -> Tensor:
    """(outputs, columns) weights of a `Linear` or `Conv2d`; on the CPU in float64."""
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    parts = layer.weight.detach().double().cpu().chunk(getattr(layer, "groups", 1))
    return torch.block_diag(*(part.flatten(1) for part in parts))  # type: ignore[no-untyped-call]


class Patches:
    """What a layer's kernel sees at random positions of its output, the same for all images of a batch.

    Args:
        layer: The `Linear` or `Conv2d`.
        seed: Decides the positions, 16 of each image, or all if there are fewer.
    """

    def __init__(self, layer: nn.Module, seed: int) -> None:
        self._layer = layer
        self._rng = np.random.default_rng([seed, 3])
        self._at = torch.arange(0)

    def of(self, inputs: Tensor) -> Tensor:
        """(rows, columns) of a batch of inputs, each call at other positions."""
        layer = self._layer
        if not isinstance(layer, nn.Conv2d):
            rows = inputs.reshape(len(inputs), -1, inputs.shape[-1])
            self._at = self._some(rows.shape[1])
            return rows[:, self._at].flatten(0, 1)
        assert not isinstance(layer.padding, str)
        (kh, kw), (sh, sw), (dh, dw), (ph, pw) = layer.kernel_size, layer.stride, layer.dilation, layer.padding
        padded = F.pad(inputs, (pw, pw, ph, ph))
        height = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
        width = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
        self._at = self._some(height * width)
        top, left = self._at // width * sh, self._at % width * sw
        taps = [padded[:, :, top + dh * i, left + dw * j] for i in range(kh) for j in range(kw)]  # (n, c, positions)
        return torch.stack(taps, dim=2).permute(0, 3, 1, 2).flatten(2).flatten(0, 1)

    def at_same(self, outputs: Tensor) -> Tensor:
        """(rows, channels) of something of the shape of the layer's outputs, where the last inputs were looked at."""
        last = outputs.flatten(2).movedim(1, 2) if isinstance(self._layer, nn.Conv2d) else outputs
        return last.reshape(len(last), -1, last.shape[-1])[:, self._at].flatten(0, 1)

    def _some(self, positions: int) -> Tensor:
        if positions <= _POSITIONS:
            return torch.arange(positions)
        return torch.from_numpy(np.sort(self._rng.choice(positions, _POSITIONS, replace=False)))


class _Sums:
    """Running sums over rows and their products."""

    def __init__(self, columns: int, patches: Patches) -> None:
        self._patches = patches
        self._square = torch.zeros(columns, columns, dtype=torch.float64)
        self._sum = torch.zeros(columns, dtype=torch.float64)
        self._rows = 0

    def add(self, inputs: Tensor) -> None:
        rows = self._patches.of(inputs).double()
        self._square += (rows.T @ rows).cpu()
        self._sum += rows.sum(0).cpu()
        self._rows += len(rows)

    def moments(self) -> dict[str, Tensor]:
        """Mean and covariance; the sums are used up."""
        mean = self._sum / self._rows
        return {"mean": mean, "covariance": self._square.div_(self._rows).addr_(mean, mean, alpha=-1)}


def _gathered(
    network: Network, reads: Sequence[Read], images: Batch, seed: int, folder: Path | None
) -> Iterator[LayerInputs]:
    files = [None if folder is None else folder / f"{read.place}.safetensors" for read in reads]
    stored = [_stored(file) for file in files]
    layers = [network.model.get_submodule(read.place) for read in reads]
    sums = {
        read.place: _Sums(_columns(layer), Patches(layer, seed))
        for read, layer, moments in zip(reads, layers, stored, strict=True)
        if moments is None
    }
    if sums:
        with watched(network.model, [(name, sums_.add) for name, sums_ in sums.items()]), torch.inference_mode():
            for batch in split(images, _BATCH):
                called(network.model, batch)
    for read, layer, file, moments in zip(reads, layers, files, stored, strict=True):
        if moments is None:
            moments = sums.pop(read.place).moments()
            _store(moments, file)
        yield LayerInputs(read.place, read.units, matrix_of(layer), moments["mean"], moments["covariance"])


def _stored(file: Path | None) -> dict[str, Tensor] | None:
    """Moments from the cache, if they are there and as they were written."""
    if file is None or not file.is_file():
        return None
    try:
        return _MOMENTS.read(file)[1]
    except CheckpointError:
        return None


def _store(moments: dict[str, Tensor], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _MOMENTS.write(moments, json.dumps(file.stem), file)


def is_linear_map(network: Network, read: Read) -> bool:
    """Whether a layer that reads narrowed channels is one that `Patches` knows, a `Linear` or zero-padded `Conv2d`."""
    if not read.is_layer or (network.group_of[read.units] < 0).all():
        return False
    layer = network.model.get_submodule(read.place)
    if isinstance(layer, nn.Conv2d):
        return read.dim == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def _columns(layer: nn.Module) -> int:
    return layer.in_channels * math.prod(layer.kernel_size) if isinstance(layer, nn.Conv2d) else layer.in_features  # type: ignore[return-value]


def _within(network: Network, reads: Sequence[Read], limit: int) -> Iterator[list[Read]]:
    """Consecutive reads whose covariances take up to `limit` bytes together; one may take more alone."""
    together: list[Read] = []
    total = 0
    for read in reads:
        size = 8 * _columns(network.model.get_submodule(read.place)) ** 2
        if together and total + size > limit:
            yield together
            together, total = [], 0
        together.append(read)
        total += size
    if together:
        yield together
