"""What the parameters of a layer do with channels: which weights produce them, and which read them."""

from __future__ import annotations

from typing import Any

from prunesearch.models.network import Network
from prunesearch.models.normalised import is_torchs
from prunesearch.models.operators.kind import Role


def role_of(network: Network, tensor: str, dim: int) -> Role:
    """What a parameter does with the channels of one of its dimensions.

    A weight `produces` or `reads` them, the weight of a BatchNorm `scales` them; anything else, such as a bias, is
    `other`. Of a layer that torch does not have and of which nobody said it, the weight is taken for that of a linear
    layer.
    """
    owner, _, attribute = tensor.rpartition(".")
    module: Any = network.model.get_submodule(owner)
    kind = network.kinds.alike(module)
    if kind is not None and kind.roles:
        return kind.role(attribute, dim)
    if attribute != "weight" or is_torchs(type(module)) or module.weight.dim() < 2:
        return "other"
    return "produces" if dim == 0 else "reads"
