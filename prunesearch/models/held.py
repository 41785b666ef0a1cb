"""Tensors that modules hold as plain attributes: no parameters, no buffers, in no state dict.

Their channels go like those of a buffer. In the slimmed network they are buffers that are not persistent, so that they
are saved with it and go with it to another device.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All of them, by the name of the module and the attribute."""
    return {
        f"{name}.{attribute}".lstrip("."): value
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor)
    }


def make_buffers(model: nn.Module, names: Iterable[str]) -> None:
    """Make those of some names buffers, in place; whatever else has such a name stays as it is."""
    held = held_tensors(model)
    for name in names:
        if name in held:
            owner, _, attribute = name.rpartition(".")
            module = model.get_submodule(owner)
            del vars(module)[attribute]
            module.register_buffer(attribute, held[name], persistent=False)
