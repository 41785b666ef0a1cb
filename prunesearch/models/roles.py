"""What the parameters of a layer do with channels: which weights produce them, which read them, and what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from prunesearch.models.isolation import in_eval_mode
from prunesearch.models.network import Network
from prunesearch.models.normalised import is_torchs
from prunesearch.models.operators.kind import Role


def role_of(network: Network, tensor: str, dim: int) -> Role:
    """What a parameter does with the channels of one of its dimensions.

    A weight `produces` or `reads` them, the weight of a BatchNorm `scales` them; anything else, such as a bias, is
    `other`. Of a layer that torch does not have and of which nobody said it, the weight is taken for that of a linear
    layer. Where no layer says it, the forward may: a function is given the parameter as a weight, or what is computed
    of it.
    """
    role = _of_layer(network, tensor, dim)
    told = network.weight_roles.get(tensor, ())
    return told[dim] if role == "other" and dim < len(told) else role


def _of_layer(network: Network, tensor: str, dim: int) -> Role:
    owner, _, attribute = tensor.rpartition(".")
    module: Any = network.model.get_submodule(owner)
    kind = network.kinds.alike(module)
    if kind is not None and kind.roles:
        return kind.role(attribute, dim)
    if attribute != "weight" or is_torchs(type(module)) or module.weight.dim() < 2:
        return "other"
    return "produces" if dim == 0 else "reads"


def weights(network: Network) -> Mapping[str, Tensor]:
    """Every parameter by its name, as layers use it.

    In place of what torch computes a layer's weight of (`weight_norm`, `spectral_norm` and others) there is that
    weight, under the name of the parameter that has its shape; the others of that layer are left out.
    """
    found = dict[str, Tensor](network.model.named_parameters())
    with in_eval_mode(network.model), torch.no_grad():
        for place, module in network.model.named_modules():
            for sources, weight in _computed(module):
                names = [f"{place}.{source}".lstrip(".") for source in sources]
                alike = next((name for name in names if name in found and found[name].shape == weight.shape), None)
                if alike is not None:
                    found = {name: tensor for name, tensor in found.items() if name not in names} | {alike: weight}
    return found


def _computed(module: nn.Module) -> Iterator[tuple[list[str], Tensor]]:
    """What torch computes a layer's tensors of, by their names in it, and what comes out now."""
    if parametrize.is_parametrized(module):
        lists: Any = module.parametrizations
        for name, made in lists.items():
            sources = [source for source, _ in made.named_parameters(recurse=False)]
            yield [f"parametrizations.{name}.{source}" for source in sources], getattr(module, name)
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield [f"{hook.name}_v", f"{hook.name}_g"], hook.compute_weight(module)
        elif isinstance(hook, SpectralNorm):
            yield [f"{hook.name}_orig"], hook.compute_weight(module, do_power_iteration=False)
