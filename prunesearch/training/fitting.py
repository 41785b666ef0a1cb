"""Whether a network and its training data fit together, found out before the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from prunesearch.models.finite import numbers_in
from prunesearch.models.misfit import outputs_of
from prunesearch.models.nested import Batch, in_format, moved, tensors_in

_EXTRA_STATE = ("get_extra_state", "set_extra_state")


def check_weights(network: nn.Module) -> None:
    """Make sure that a network has weights, and that they are numbers.

    Raises:
        ValueError: A parameter or buffer has no shape or no values yet, or holds NaN; the message has its name.
    """
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"{name} of {type(network).__name__} has no shape yet. Run the network once before.")
        if tensor.is_meta:
            raise ValueError(
                f"{name} of {type(network).__name__} is on the meta device, which keeps no values. Give it some: "
                'network.to_empty(device="cpu"), then load_state_dict.'
            )
        if tensor.is_floating_point() and bool(numbers_in(tensor).isnan().any()):
            raise ValueError(f"{name} of {type(network).__name__} holds NaN. Load other weights.")


def check_extra_state(network: nn.Module) -> None:
    """Make sure that whatever state comes out of a training can be put into a network.

    Raises:
        ValueError: A module gives extra state, and takes none; the message has its name.
    """
    for name, module in network.named_modules():
        gives, takes = (getattr(type(module), each) is not getattr(nn.Module, each) for each in _EXTRA_STATE)
        if gives and not takes:
            raise ValueError(
                f"{name or 'the network'} of {type(network).__name__} has get_extra_state, and no set_extra_state, so "
                "no trained state could be put back. Give its class both, or neither."
            )


def laid_out(network: nn.Module, images: Batch, device: torch.device) -> tuple[torch.memory_format, Any]:
    """Lay the network's weights out in memory as its forward is fastest: channels last, if it runs so and learns so.

    Args:
        network: Changed in place, in layout only.
        images: (n, ...) examples, or several inputs.
        device: Where the network is.

    Returns:
        The layout, for tensors of four dimensions, and what the network returns.

    Raises:
        ValueError: The network does not run on these images.
    """
    placed = moved(images, device)
    if any(x.dim() == 4 for x in tensors_in(placed)):
        network.to(memory_format=torch.channels_last)
        try:
            with _Convolutions() as seen:
                outputs = outputs_of(network, in_format(placed, torch.channels_last))
            if device.type != "cpu" or not seen.narrow:
                return torch.channels_last, outputs
        except ValueError:  # such as of a view that wants the usual order
            pass
        network.to(memory_format=torch.contiguous_format)
    return torch.contiguous_format, outputs_of(network, placed)


_BLOCK = 16
"""Channels that oneDNN takes at once, at most: 8 with AVX2, 16 with AVX-512."""


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Looks for convolutions whose gradients a CPU does not compute where channels are last.

    Those of one pixel, with a stride, of fewer channels than oneDNN takes at once: there the gradient of the weights
    writes past its memory. Numbers are wrong, the process dies, or it hangs
    (https://github.com/uxlfoundation/oneDNN/issues/6035). Pruned shortcuts of ResNets are such.

    Attributes:
        narrow: Whether there was one.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.narrow = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            _, weight, _, stride, *_ = args
            self.narrow |= weight.shape[1] < _BLOCK and max(weight.shape[2:]) == 1 and max(stride) > 1
        return func(*args, **(kwargs or {}))
