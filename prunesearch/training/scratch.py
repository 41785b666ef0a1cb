"""Drawing a network's weights anew: from-scratch training of a structure, the control for every pruning method.

Source of the control: Liu et al., ICLR 2019, arXiv:1810.05270.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from prunesearch.models.copying import copied
from prunesearch.models.devices import device_of_module, random_apart


def drawn_anew(network: nn.Module, seed: int) -> nn.Module:
    """A copy with fresh random weights and statistics.

    Convolutions as in He et al. 2015, arXiv:1502.01852 (normal, fan-out); other layers as torch draws them; then the
    biases of detection heads as these want them, where they say so with a method `bias_init` (as ultralytics' do: most
    places of an image are background at first).

    A layer whose every parameter is frozen keeps it. No training would change it, so it is there to compute something
    known (ultralytics decodes the sides of boxes with such a convolution), and random weights would stay random.

    Raises:
        ValueError: A parameter belongs to a module that cannot draw it (it has no `reset_parameters`, or its weights
            are computed, as by `weight_norm`).
    """
    fresh = copied(network)
    with random_apart(device_of_module(network)):
        torch.manual_seed(seed)
        for name, module in fresh.named_modules():
            parameters = [*module.parameters(recurse=False)]
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                continue
            own = [*parameters, *module.buffers(recurse=False)]
            reset = getattr(module, "reset_parameters", None)
            if own and reset is None:
                raise ValueError(
                    f"{name or type(network).__name__} ({type(module).__name__}) has tensors of its own and no "
                    "reset_parameters(), so no new weights can be drawn for it. Give it one, or build a new network "
                    "yourself and train that."
                )
            computed = [each for each in ("weight", "bias") if {f"{each}_g", f"{each}_orig"} & set(module._parameters)]
            if computed:
                raise ValueError(
                    f"The {computed[0]} of {name or type(network).__name__} ({type(module).__name__}) is computed from "
                    "other parameters, as by weight_norm or spectral_norm, which nothing draws anew. Take that away "
                    "first, as by torch.nn.utils.remove_weight_norm, or build a new network yourself and train that."
                )
            if reset is not None:
                reset()
            if isinstance(module, _ConvNd):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in fresh.modules():
            begin = getattr(module, "bias_init", None)
            if callable(begin):
                begin()
    return fresh
