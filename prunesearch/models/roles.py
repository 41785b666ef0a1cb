"""What the parameters of a layer do with channels: which weights produce them, and which read them."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from prunesearch.models.normalised import is_torchs

Role = Literal["produces", "reads", "scales", "other"]


def role_of(model: nn.Module, tensor: str, dim: int) -> Role:
    """What a parameter does with the channels of one of its dimensions.

    A weight `produces` or `reads` them, the weight of a BatchNorm `scales` them; anything else, such as a bias, is
    `other`.
    """
    owner, _, attribute = tensor.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and attribute.startswith("weight"):
        return "produces" if dim == 0 else "reads"
    if attribute != "weight":
        return "other"
    if isinstance(module, _BatchNorm):
        return "scales"
    if isinstance(module, _ConvTransposeNd):
        return "produces" if dim == 1 else "reads"
    weight: Any = module.weight
    is_of_others = not is_torchs(type(module)) and weight.dim() > 1
    if isinstance(module, (nn.Linear, _ConvNd)) or is_of_others:
        return "produces" if dim == 0 else "reads"
    return "other"
