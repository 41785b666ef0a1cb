"""What networks and their layers are given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from prunesearch.models.copying import copied
from prunesearch.models.following import check_size, recorded
from prunesearch.models.nested import Batch, batch_of, in_order_of, parts_of, size_of
from prunesearch.models.network import Network
from prunesearch.models.sizes import batches_by_size, by_size

_COMPARED = 2
"""Images of each size."""


def example_batch(network: Network) -> Batch:
    """What a network was traced with, in the form in which it is given data: of a single input that alone.

    Further arguments of its forward do no harm, as long as it was traced without them: they take their defaults.

    Raises:
        ValueError: There is something in it that data cannot be a batch of.
    """
    batch = batch_of(network.example_inputs, network.example_keywords)
    if isinstance(batch, Tensor):
        return batch
    if network.inputs.is_listed:  # then its costs are those of one image of the list
        raise ValueError(
            f"{type(network.model).__name__} was traced with a list or tuple as its first input, which is taken for a "
            "list of images, and data can only hold tensors (n, ...). Wrap it in a module that takes each tensor as an "
            "input of its own."
        )
    for name, part in parts_of(batch).items():
        if part is not None and not isinstance(part, Tensor):
            raise ValueError(
                f"{type(network.model).__name__} was traced with a {type(part).__name__} as its input {name}, and data "
                "can only hold tensors (n, ...). Wrap it in a module whose forward takes the tensors only."
            )
    try:
        size_of(batch)
    except ValueError as error:
        raise ValueError(f"{type(network.model).__name__} cannot be given batches of images: {error}") from error
    return batch


def check_inputs(network: Network, inputs: Batch) -> None:
    """Make sure that inputs are in the form of what a network was traced with, whatever their size.

    Raises:
        ValueError: They are not.
    """
    example = example_batch(network)
    for batch in batches_by_size(inputs, _COMPARED):
        in_order_of(example, batch)


def check_recorded(network: Network, inputs: Batch) -> None:
    """Make sure that the recorded forward of a network holds for inputs, in their form and in each of their sizes.

    A size is looked at where there are several: on two images the recording is compared with the model itself.

    Raises:
        ValueError: It does not.
    """
    check_inputs(network, inputs)
    if by_size(inputs) is None:
        return
    example = example_batch(network)
    recording = recorded(copied(network.model).eval(), network.inputs, network.leaves, way=network.way)
    for few in batches_by_size(inputs, _COMPARED):
        check_size(recording, network.inputs.with_tensors(in_order_of(example, few)))


def first_input(layer: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """What a layer is given for the first argument of its forward, by position or by name."""
    return arguments[0] if arguments else keywords[first_argument(layer)]


def first_argument(layer: nn.Module) -> str:
    """Name of the first argument of a layer's forward."""
    return next(iter(inspect.signature(layer.forward).parameters))
