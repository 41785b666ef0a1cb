"""What of a model, and of the process, must be as it was."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn


def state_of(model: nn.Module) -> list[Any]:
    """Everything a caller could notice to have changed."""
    return [
        [(name, tensor.numpy().tobytes()) for name, tensor in model.state_dict().items()],
        [(name, module.training, len(module._forward_hooks)) for name, module in model.named_modules()],
        [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
    ]


def generators() -> list[Any]:
    """The states of the global random generators."""
    return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002
