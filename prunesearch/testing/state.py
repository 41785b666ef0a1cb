"""What of a model, and of the process, must be as it was."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn


def state_of(model: nn.Module) -> list[Any]:
    """Everything a caller could notice to have changed."""
    return [
        [(name, tensor.cpu().numpy().tobytes()) for name, tensor in model.state_dict().items()],
        [(name, module.training, _hooks(module)) for name, module in model.named_modules()],
        [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
    ]


def generators() -> list[Any]:
    """The states of the global random generators; that of torch if it is imported."""
    torch = sys.modules.get("torch")
    states = [] if torch is None else [torch.get_rng_state().tolist()]
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    return [*states, random.getstate(), [np.asarray(part).tolist() for part in numpy_state]]  # the place in it, too


def _hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)
