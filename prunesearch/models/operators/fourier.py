"""Fourier transforms, which mix what lies along their dimensions, and complex numbers as pairs of real ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from prunesearch.models.operators.kind import Kind
from prunesearch.models.operators.values import Tracked, Value, Walk, argument, dims_of, give_up, tracked


def transform(walk: Walk, node: fx.Node) -> Value:
    """`torch.fft`: channels stay along the dimensions of the transform, and are what they were along the others."""
    source = argument(node, 0, "input")
    for other in node.all_input_nodes[1:]:
        walk.keep(other, node, "computes with how many there are")
    value, n = walk.value(source), len(walk.shape(source))
    if value is None:
        return None
    mixed = dims_of(walk, _dims(node, n), n)
    if mixed is None:
        return give_up(walk, node)
    for dim in mixed:
        walk.freeze(value.at(dim), node, "mixes channels")
    return tracked({dim: labels for dim, labels in value.axes.items() if dim not in mixed})


def _dims(node: fx.Node, n: int) -> Any:
    """The dimensions of a transform: of one the last by default, of two the last two, of several as many as sizes."""
    name = getattr(node.target, "__name__", "").removeprefix("fft_")
    if name.endswith("shift"):
        given = argument(node, 1, "dim")
        return tuple(range(n)) if given is None else given
    default: Any = (-2, -1) if name.endswith("2") else -1
    given = argument(node, 2, "dim", default=None if name.endswith("n") else default)
    if given is not None:
        return given
    sizes = argument(node, 1, "s")
    return tuple(range(n))[-len(sizes) :] if isinstance(sizes, (tuple, list)) else tuple(range(n))


def from_pairs(walk: Walk, node: fx.Node) -> Value:
    """`view_as_complex`: the last dimension goes, which has the two parts."""
    value, last = walk.value(node.args[0]), len(walk.shape(node.args[0])) - 1
    if value is None:
        return None
    walk.freeze(value.at(last), node, "takes pairs of channels together")
    return tracked({dim: labels for dim, labels in value.axes.items() if dim != last})


def to_pairs(walk: Walk, node: fx.Node) -> Value:
    """`view_as_real`: one more dimension, the last, with the two parts."""
    value = walk.value(node.args[0])
    return None if value is None else Tracked(value.axes)


_TRANSFORMS = (
    torch.fft.fft, torch.fft.ifft, torch.fft.rfft, torch.fft.irfft, torch.fft.hfft, torch.fft.ihfft,
    torch.fft.fft2, torch.fft.ifft2, torch.fft.rfft2, torch.fft.irfft2,
    torch.fft.fftn, torch.fft.ifftn, torch.fft.rfftn, torch.fft.irfftn, torch.fft.fftshift, torch.fft.ifftshift,
)  # fmt: skip
KINDS: dict[Any, Kind] = {
    **dict.fromkeys(_TRANSFORMS, Kind(transform)),
    torch.view_as_complex: Kind(from_pairs),
    torch.view_as_real: Kind(to_pairs),
}
