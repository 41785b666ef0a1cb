"""Counting a built network while it runs: the independent witness of the costs that a space predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunesearch.models.devices import device_of_module
from prunesearch.models.flops import FlopCounter
from prunesearch.models.following import inputs_of, with_images
from prunesearch.models.isolation import as_found, isolated, without_fast_paths
from prunesearch.models.misfit import errors_told
from prunesearch.models.nested import moved
from prunesearch.models.recorded import Inputs
from prunesearch.models.wrappers import check_network
from prunesearch.structure import Cost


def count(model: nn.Module, example_inputs: Any) -> Cost:
    """Run the model and count what it costs per image, with torch's own counter (`FlopCounterMode`).

    One multiply-accumulate counts once: of convolutions (transposed ones too), linear layers and matrix products,
    however they are called, bias free. Parameters are all of the model's, each tensor once. The model
    is left as it was, whatever its forward stores or writes.

    Args:
        model: Any module.
        example_inputs: A batch (n, ...), the tuple of positional inputs, or a dictionary of inputs by name.

    Returns:
        MACs of one image, and parameters. What is computed once for all images, such as a table of positions, counts
        whole.

    Raises:
        TypeError: Something else than a network, or inputs without tensors.
        ValueError: The network does not run on them.
    """
    check_network(model)
    inputs = inputs_of(example_inputs)
    params = sum(parameter.numel() for parameter in model.parameters())
    return Cost(macs=_macs_of_one_image(model, inputs), params=params)


def count_layers(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """MACs of one image of each layer that runs as a module, as `count` counts them."""
    counter = FlopCounterMode(display=False)  # with its tally by module
    _run(model, Inputs(tuple(inputs)), counter)
    names = dict(model.named_modules())
    prefix = f"{type(model).__name__}."
    counted = {name.removeprefix(prefix): sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    leaves = [name for name in counted if name in names and not any(True for _ in names[name].children())]
    return {name: counted[name] // 2 // len(inputs[0]) for name in leaves}


def _macs_of_one_image(model: nn.Module, inputs: Inputs) -> int:
    """From runs on n and 2 n images, as a + b n: what costs the same for any number counts whole."""
    n = inputs.images
    few = _macs(model, inputs)
    if inputs.is_listed:
        return few // n
    try:
        many = _macs(model, with_images(inputs, 2 * n))
    except Exception:  # whatever a forward for one number of images raises
        return few // n
    per_image = (many - few) // n
    return few - per_image * n + per_image


def _macs(model: nn.Module, inputs: Inputs) -> int:
    counter = FlopCounter()
    _run(model, inputs, counter)
    return counter.get_total_flops() // 2


def _run(model: nn.Module, inputs: Inputs, counter: FlopCounterMode) -> None:
    given = inputs.args[0] if len(inputs.args) == 1 and not inputs.kwargs else (*inputs.args, dict(inputs.kwargs))
    with as_found(model), without_fast_paths(), isolated(inputs.tensors) as copies, counter:
        ours = inputs.with_tensors(moved(copies, device_of_module(model)))
        with errors_told(model, given):
            model(*ours.args, **ours.kwargs)
