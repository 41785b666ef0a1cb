"""What networks and their layers are given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from prunesearch.models.network import Network


def takes_images(network: Network) -> Tensor:
    """The example input of a network that takes one tensor of images, (n, ...).

    Further arguments of its forward do no harm, as long as it was traced without them: they take their defaults.

    Raises:
        ValueError: It was traced with something else, of which there are no data to score with.
    """
    inputs = network.example_inputs
    if isinstance(inputs, tuple) and len(inputs) == 1 and isinstance(inputs[0], Tensor):
        return inputs[0]
    kinds = ", ".join(type(value).__name__ for value in inputs)
    raise ValueError(
        f"Structures are scored on images, so the network must take one tensor; {type(network.model).__name__} was "
        f"traced with {len(inputs)} inputs ({kinds}). Wrap it in a module whose forward takes the images only."
    )


def first_input(layer: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """What a layer is given for the first argument of its forward, by position or by name."""
    return arguments[0] if arguments else keywords[first_argument(layer)]


def first_argument(layer: nn.Module) -> str:
    """Name of the first argument of a layer's forward."""
    return next(iter(inspect.signature(layer.forward).parameters))
