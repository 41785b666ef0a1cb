"""Whether a network and its training data fit together, found out before the first step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from prunesearch.models.nested import Batch, Nest, called, described, mapped, moved, tensors_in
from prunesearch.models.undisturbed import undisturbed


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
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise ValueError(f"{name} of {type(network).__name__} holds NaN. Load other weights.")


def laid_out(network: nn.Module, images: Batch, device: torch.device) -> tuple[torch.memory_format, int]:
    """Lay the network's weights out in memory as its forward is fastest: channels last, if it runs so.

    Args:
        network: Changed in place, in layout only.
        images: (n, ...) examples, or several inputs.
        device: Where the network is.

    Returns:
        The layout, for tensors of four dimensions, and the number of the network's outputs.

    Raises:
        ValueError: The network does not run on these images, or does not return (n, classes) logits.
    """
    placed = moved(images, device)
    if any(x.dim() == 4 for x in tensors_in(placed)):
        network.to(memory_format=torch.channels_last)
        try:
            return torch.channels_last, output_count(network, in_format(placed, torch.channels_last))
        except ValueError:  # such as of a view that wants the usual order
            network.to(memory_format=torch.contiguous_format)
    return torch.contiguous_format, output_count(network, placed)


def in_format(images: Batch, layout: torch.memory_format) -> Batch:
    """The batch with its tensors of four dimensions laid out so in memory."""
    return mapped(images, lambda x: x.contiguous(memory_format=layout) if x.dim() == 4 else x)


def output_count(network: nn.Module, images: Batch) -> int:
    """Logits per image of a classifier: one per class, or one for two classes.

    Raises:
        ValueError: It does not run on these images, or does not return (n, classes) logits.
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        with undisturbed([*tensors_in(images)]) as copies:
            logits = called(network.eval(), Nest(images)(*copies))
    except Exception as error:  # whatever the forward of somebody's network raises
        raise ValueError(
            f"{type(network).__name__} cannot run on {'images' if isinstance(images, Tensor) else 'inputs'} of "
            f"{described(images)}: {error}"
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"Expected a classifier that returns (n, classes) logits in eval mode, got {got}.")
    return int(logits.shape[1])
