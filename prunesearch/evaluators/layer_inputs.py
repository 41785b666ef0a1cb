"""The layers that read channels, and what they are given: means and covariances, from passes over some images."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunesearch.errors import CheckpointError
from prunesearch.evaluators.inputs import check_recorded, example_batch
from prunesearch.evaluators.patches import Patches
from prunesearch.evaluators.recalibration import split
from prunesearch.models.copying import copied
from prunesearch.models.devices import device_of_float64, in_float64, placed
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.following import check_number, recorded
from prunesearch.models.isolation import as_found, isolated
from prunesearch.models.kept_whole import Calls
from prunesearch.models.linear_map import LinearMap
from prunesearch.models.linear_maps import input_of, maps_by_node, weight_of
from prunesearch.models.masked import Kept, MaskedReplay, masked_states, staying, without
from prunesearch.models.nested import Batch, in_order_of, taken
from prunesearch.models.network import Network
from prunesearch.models.recorded import Recording
from prunesearch.models.tensor_file import FileKind
from prunesearch.models.walk import place
from prunesearch.structure import FloatArray, IntArray

_IMAGES = 256
_BATCH = 64
_CHANNELS = 64  # of a Gram matrix that are computed at once
_BYTES = 1 << 30  # of the covariances that one pass gathers
_VERSION = 3  # of how moments are gathered and kept: those of another one are not read
_MOMENTS = FileKind(f"prunesearch-moments-{_VERSION}", "layer", "holds no moments of what a layer is given")


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """A linear layer or convolution that reads narrowed channels, and moments of what it is given.

    Its inputs are columns, channel by channel: one per element of a convolution's kernel. Tensors are on the device of
    the network, in float64.

    Attributes:
        name: Qualified name of the layer's module, or of its node in the recorded forward (`walk.place`).
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

    def gram(self, *, centred: bool) -> FloatArray:
        """(c, c) Gram matrix of the contributions of input channels to the outputs, or of these without their means."""
        channels, taps = len(self.units), self.taps
        rows = []
        for start in range(0, channels * taps, _CHANNELS * taps):  # all products at once could be gigabytes
            block = slice(start, start + _CHANNELS * taps)
            products = self.covariance[block]
            if not centred:
                products = products.addr(self.mean[block], self.mean)
            products = products * (self.weights[:, block].T @ self.weights)
            rows.append(products.reshape(-1, taps, channels, taps).sum((1, 3)))
        return torch.cat(rows).cpu().numpy()

    def channels_of(self, units: IntArray) -> tuple[IntArray, IntArray]:
        """Channels of this layer that belong to some units, and each one's position among the units."""
        position = {int(unit): place for place, unit in enumerate(units)}
        inside = np.flatnonzero(np.isin(self.units, units))
        return inside, np.array([position[int(unit)] for unit in self.units[inside]], dtype=np.int64)


def layer_inputs(
    network: Network,
    images: Batch,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    of: Collection[LinearMap] | None = None,
    kept: Kept | None = None,
) -> Iterator[LayerInputs]:
    """Every linear layer and convolution that mixes narrowed channels, and moments of what it is given.

    However it is spelt: as a module, as a class derived from one, or as a function (`Network.linear_maps`). Layers are
    gathered together as long as their covariances take less than 1 GiB; then comes another pass.

    Args:
        network: A traced network.
        images: (n, ...) images; the first 256 count.
        seed: Decides the positions, 16 of each image.
        cache: Folder where moments are kept, under a fingerprint of the network, the images and the seed.
        of: The layers, of `network.linear_maps`. By default all but depthwise convolutions: their outputs go with their
            inputs, and it is the layer behind them that misses these.
        kept: (units,) which units of the network stay, all by default. Channels of the others are given as zeros, and
            the outputs of layers among them have weights of zero.

    Raises:
        ValueError: The network was traced with other inputs, or for another number of images only.
    """
    check_recorded(network, images)
    images = taken(images, slice(_IMAGES))
    folder = None
    if cache is not None:
        of_kept = "" if kept is None else f"-{fingerprint(torch.from_numpy(kept))}"
        folder = Path(cache) / f"moments-{_VERSION}-{network.fingerprint()}-{fingerprint(images)}-{seed}{of_kept}"
    units = {read.place: read.units for read in network.reads}
    forward = _Forward(network, kept)
    chosen = [one for one in network.linear_maps if one.loses_inputs] if of is None else of
    for layers in _within(chosen, _BYTES):
        for layer, found in _gathered(forward, layers, images, seed, folder):
            weights = layer.matrix(found["weight"])
            if kept is not None:
                stay = placed(_outputs(network, layer, kept), weights.device)
                weights = weights.masked_fill(~stay[:, None], 0)
            yield LayerInputs(layer.place, units[layer.place], weights, found["mean"], found["covariance"])


class _Forward:
    """The recorded forward of a network, run with a look at what its linear maps are given."""

    def __init__(self, network: Network, kept: Kept | None) -> None:
        self._network = network
        self._model = network.model if kept is None else masked_states(network, kept)
        self._stays = {} if kept is None else staying(network, kept)
        self.device = network.device

    @cached_property
    def _recording(self) -> Recording:
        network = self._network
        return recorded(copied(network.model).eval(), network.inputs, network.leaves, way=network.way)

    def run(self, images: Batch, sums: Mapping[str, _Sums]) -> None:
        """Run it on all images; sums are by the place of their map."""
        network, recording = self._network, self._recording
        by_node = maps_by_node(recording.graph, [one for one in network.linear_maps if one.place in sums])
        looks = {node: sums[layer.place].add for node, layer in by_node.items()}
        size = recording.images if network.way.as_given else _BATCH
        example = example_batch(network)
        with as_found(self._model), torch.inference_mode():
            for batch in split(images, size):
                tensors = in_order_of(example, batch)
                check_number(network.way, type(network.model).__name__, recording.images, len(tensors[0]))
                with isolated(tensors) as copies:
                    _Watching(recording, self._model, self._stays, looks).run(*copies)


class _Watching(MaskedReplay):
    """Shows the inputs and the weights of some nodes before it computes them."""

    def __init__(
        self,
        recording: Recording,
        model: nn.Module,
        reads: Mapping[str, list[tuple[int, Tensor]]],
        looks: Mapping[fx.Node, Callable[[Tensor, Tensor], None]],
    ) -> None:
        super().__init__(recording, model, reads, Calls())
        self._looks = looks
        self._of_place = reads

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node."""
        look = self._looks.get(n)
        if look is not None:
            is_module = n.op == "call_module"
            weight = self.fetch_attr(str(n.target)).weight if is_module else self.env[weight_of(n)]
            look(without(self.env[input_of(n)], self._of_place.get(place(n), ())), weight)
        return super().run_node(n)


class _Sums:
    """Running sums over rows and their products, and the weight that they are multiplied by; where the network is.

    In float64, products included: covariances are differences of large numbers, and what is fitted or ranked by them
    divides by what little is left of them (`cap` by a hundred millionth of a variance), which in float32 is rounding.
    """

    def __init__(self, layer: LinearMap, seed: int, device: torch.device) -> None:
        self._patches = Patches(layer, seed)
        device = device_of_float64(device)
        self._square = torch.zeros(layer.columns, layer.columns, dtype=torch.float64, device=device)
        self._sum = torch.zeros(layer.columns, dtype=torch.float64, device=device)
        self._weight = torch.zeros(0)
        self._rows = 0

    def add(self, inputs: Tensor, weight: Tensor) -> None:
        rows = in_float64(self._patches.of(inputs))
        self._square += rows.T @ rows
        self._sum += rows.sum(0)
        self._rows += len(rows)
        self._weight = weight

    def moments(self) -> dict[str, Tensor]:
        """Mean and covariance, and the weight; the sums are used up."""
        mean = self._sum / self._rows
        covariance = self._square.div_(self._rows).addr_(mean, mean, alpha=-1)
        return {"mean": mean, "covariance": covariance, "weight": self._weight.detach().contiguous()}


def _gathered(
    forward: _Forward, layers: Sequence[LinearMap], images: Batch, seed: int, folder: Path | None
) -> Iterator[tuple[LinearMap, dict[str, Tensor]]]:
    """Layers with their moments and weights, from the cache or from one run."""
    files = [None if folder is None else folder / f"{layer.place}.safetensors" for layer in layers]
    stored = [_stored(file, forward.device) for file in files]
    missing = [layer for layer, found in zip(layers, stored, strict=True) if found is None]
    sums = {layer.place: _Sums(layer, seed, forward.device) for layer in missing}
    if sums:
        forward.run(images, sums)
    for layer, file, found in zip(layers, files, stored, strict=True):
        if found is None:
            found = sums.pop(layer.place).moments()
            _store(found, file)
        yield layer, found


def _stored(file: Path | None, device: torch.device) -> dict[str, Tensor] | None:
    """Moments from the cache, if they are there and as they were written."""
    if file is None or not file.is_file():
        return None
    try:
        found = _MOMENTS.read(file)[1]
    except CheckpointError:
        return None
    return {name: placed(tensor, device_of_float64(device)) for name, tensor in found.items()}


def _store(moments: dict[str, Tensor], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _MOMENTS.write(moments, json.dumps(file.stem), file)


def _outputs(network: Network, layer: LinearMap, kept: Kept) -> Tensor:
    """(outputs,) which outputs of a layer stay; all, where its weight is computed."""
    cuts = () if layer.weight is None else network.cuts_of.get(layer.weight, ())
    found = [torch.from_numpy(kept[cut.units]) for cut in cuts if cut.dim == layer.output_dim]
    return found[0] if found else torch.ones(layer.shape[0], dtype=torch.bool)


def _bytes(layer: LinearMap) -> int:
    """Of its covariance."""
    return 8 * layer.columns**2


def _within(layers: Iterable[LinearMap], limit: int) -> Iterator[list[LinearMap]]:
    """Consecutive layers whose covariances take up to `limit` bytes together; one may take more alone."""
    together: list[LinearMap] = []
    total = 0
    for layer in layers:
        size = _bytes(layer)
        if together and total + size > limit:
            yield together
            together, total = [], 0
        together.append(layer)
        total += size
    if together:
        yield together
