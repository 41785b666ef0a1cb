"""Running a gated network so that channels which an image does not need are not computed.

Images of a batch that need the same channels of a convolution run through it together, on slices of its weights. If all
of them do, as in every batch of one image, the next gated convolution is given these channels only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.copying import copied
from prunesearch.models.gates import GatedConv, gated_layers


def skipping(model: nn.Module) -> nn.Module:
    """A copy of a gated network for inference, in eval mode, that skips what an image does not need.

    Its outputs are those of the gated network up to rounding; BatchNorm is folded into the convolutions. It saves less
    time than multiply-accumulates, and may save none: for a small convolution, choosing channels costs more than
    computing them all. One batch at a time: it remembers between its layers what the images need.

    Raises:
        ValueError: The network has no gates.
    """
    network = copied(model).eval().requires_grad_(False)
    layers = gated_layers(network)
    if not layers:
        raise ValueError(f"Expected a network that `gated` gave, got {type(model).__name__} without a gate.")
    readers = {source for layer in layers.values() for source in layer.sources}
    made: dict[GatedConv, SkippingConv] = {}

    def make(layer: GatedConv) -> SkippingConv:
        if layer not in made:
            made[layer] = SkippingConv(layer, [make(source) for source in layer.sources], layer in readers)
        return made[layer]

    for name, layer in layers.items():
        network.set_submodule(name, make(layer))
    return network


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
        squeeze = self.gate.squeeze.weight
        squeezed = F.linear(x.mean((2, 3)), squeeze if sent is None else squeeze.index_select(1, sent))
        saliency = self.gate.saliency(squeezed)
        self._active = self._layer[0].is_active(saliency)
        groups = _alike([self._active, *(source._active for source in self._sources)])
        if len(groups) == 1:
            wanted = _where(self._active[0])
            self._sent = wanted if self._has_reader else None
            out = self._compute(x, saliency, wanted, sent, 0)
            return out if self._has_reader else self._spread(out, wanted)
        self._sent = None
        parts = []
        for images in groups:
            wanted = _where(self._active[images[0]])
            out = self._compute(x[images], saliency[images], wanted, sent, int(images[0]))
            parts.append(self._spread(out, wanted))
        back = torch.argsort(torch.cat(groups))
        return torch.cat(parts)[back]

    def _compute(self, x: Tensor, saliency: Tensor, wanted: Tensor, sent: Tensor | None, image: int) -> Tensor:
        """Channels `wanted`, for images that all need what `image` does; x has all channels, or those sent."""
        weight, bias, read = self.weight.index_select(0, wanted), self.bias.index_select(0, wanted), sent
        if self._sources and sent is None:
            read = _where(self._sources[0]._active[image])
            x = x.index_select(1, read)
        weight = weight if read is None else weight.index_select(1, read)
        conv = self._layer[0].conv
        if 0 in weight.shape:  # torch has no convolution without channels
            out = bias.view(1, -1, 1, 1).expand(len(x), -1, *_extent(conv, x))
        else:
            out = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation)
        return out * saliency.index_select(1, wanted)[:, :, None, None]

    def _spread(self, some: Tensor, wanted: Tensor) -> Tensor:
        """All channels, those not computed zero."""
        full = some.new_zeros(len(some), len(self.weight), *some.shape[2:])
        return full.index_copy_(1, wanted, some)


def _where(active: Tensor) -> Tensor:
    return active.nonzero().flatten()


def _alike(needs: list[Tensor]) -> list[Tensor]:
    """Indices of images, grouped by equal rows of everything."""
    n = len(needs[0])
    if n == 1:
        return [torch.zeros(1, dtype=torch.int64)]
    rows = torch.cat(needs, 1)
    if bool((rows[1:] == rows[:1]).all()):
        return [torch.arange(n, device=rows.device)]
    _, group = torch.unique(rows, dim=0, return_inverse=True)
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
