"""Running a gated network so that channels which an image does not need are not computed.

Images of a batch that need the same channels of a convolution run through it together, on slices of its weights. If all
of them do, as in every batch of one image, the next gated convolution is given these channels only.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.gates import GatedConv, gated_layers


def skipping(model: nn.Module) -> nn.Module:
    """A copy of a gated network for inference, in eval mode, that skips what an image does not need.

    Its outputs are those of the gated network up to rounding; BatchNorm is folded into the convolutions. It saves less
    time than multiply-accumulates, and may save none: for a small convolution, choosing channels costs more than
    computing them all. One batch at a time: it remembers between its layers what the images need.

    Raises:
        ValueError: The network has no gates.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    layers = gated_layers(copied)
    if not layers:
        raise ValueError(f"Expected a network that `gated` gave, got {type(model).__name__} without a gate.")
    readers = {source for layer in layers.values() for source in layer.sources}
    made: dict[GatedConv, SkippingConv] = {}

    def make(layer: GatedConv) -> SkippingConv:
        if layer not in made:
            made[layer] = SkippingConv(layer, [make(source) for source in layer.sources], layer in readers)
        return made[layer]

    for name, layer in layers.items():
        copied.set_submodule(name, make(layer))
    return copied


class SkippingConv(nn.Module):
    """A gated convolution that computes, for each image, the channels it needs from those that are there.

    Args:
        layer: What it does the work of.
        sources: The one that alone it reads, if there is one.
        has_reader: Whether such another one reads this one.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: GatedConv, sources: Sequence[SkippingConv], has_reader: bool) -> None:
        super().__init__()
        folded = torch.nn.utils.fuse_conv_bn_eval(layer.conv, layer.norm)
        assert folded.bias is not None  # BatchNorm's
        self.register_buffer("weight", folded.weight.detach())
        self.register_buffer("bias", folded.bias.detach())
        self.gate = layer.gate
        self._layer, self._sources = (layer,), tuple(sources)  # torch does not register what is in a tuple
        self._has_reader = has_reader
        self._sent: Tensor | None = None  # channels that the latest output consists of; None for all
        self._active = torch.empty(0)  # (n, channels) which of them each image of the latest batch got

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w), or only the channels that the source sent -> (n, channels, h', w'), or only those needed."""
        sent = self._sources[0]._sent if self._sources else None
        squeeze = self.gate.squeeze.weight if sent is None else self.gate.squeeze.weight[:, sent]
        saliency = self.gate.saliency(F.linear(x.mean((2, 3)), squeeze))
        self._active = self._layer[0].is_active(saliency)
        needs = [self._active, *(source._active for source in self._sources)]
        groups = _alike(torch.cat(needs, 1))
        self._sent = self._active[0].nonzero().flatten() if len(groups) == 1 and self._has_reader else None
        if self._sent is not None:
            return self._compute(x, saliency, groups[0], sent)
        full: Tensor | None = None
        for images in groups:
            out = self._compute(x, saliency, images, sent)
            if full is None:
                full = out.new_zeros(len(x), len(self.weight), *out.shape[2:])
            full[images[:, None], self._active[images[0]].nonzero().flatten()] = out
        assert full is not None  # a batch has an image
        return full

    def _compute(self, x: Tensor, saliency: Tensor, images: Tensor, sent: Tensor | None) -> Tensor:
        """The channels that some images get, who all get the same; x has all channels, or those sent."""
        wanted = self._active[images[0]].nonzero().flatten()
        some = x if len(images) == len(x) else x[images]
        weight, read = self.weight[wanted], sent
        if self._sources and sent is None:
            read = self._sources[0]._active[images[0]].nonzero().flatten()
            some = some[:, read]
        weight = weight if read is None else weight[:, read]
        conv, bias = self._layer[0].conv, self.bias[wanted]
        if 0 in weight.shape:  # torch has no convolution without channels
            out = bias.view(1, -1, 1, 1).expand(len(some), -1, *_extent(conv, some))
        else:
            out = F.conv2d(some, weight, bias, conv.stride, conv.padding, conv.dilation)
        return out * saliency[images][:, wanted, None, None]


def _alike(needs: Tensor) -> list[Tensor]:
    """Indices of images, grouped by equal rows."""
    if bool((needs[1:] == needs[:1]).all()):
        return [torch.arange(len(needs), device=needs.device)]
    _, group = torch.unique(needs, dim=0, return_inverse=True)
    return list(torch.split(torch.argsort(group, stable=True), torch.bincount(group).tolist()))


def _extent(conv: nn.Conv2d, x: Tensor) -> tuple[int, int]:
    """Height and width of what a convolution gives."""
    probe = F.conv2d(
        x.new_zeros(1, 1, *x.shape[2:]),
        x.new_zeros(1, 1, *conv.kernel_size),
        None,
        conv.stride,
        conv.padding,
        conv.dilation,
    )
    return probe.shape[2], probe.shape[3]
