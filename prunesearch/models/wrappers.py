"""What torch wraps around a network, as data parallelism and compilers do. A file is of the network inside."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel


def unwrapped(model: nn.Module) -> nn.Module:
    """The network that `DataParallel`, `DistributedDataParallel`, `AveragedModel` or `torch.compile` hold.

    Args:
        model: A network, wrapped or not, with wrapped or plain parts; it is not changed.

    Returns:
        The network itself; if parts of it are wrapped, a copy without these wrappers that has the same tensors.

    Raises:
        TypeError: It is no network, or a TorchScript program.
    """
    check_network(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("Expected a network, got a TorchScript program; give the module that it was made from.")
    inner = _inside(model)
    if inner is not None:
        return unwrapped(inner)
    memo = {id(part): unwrapped(inside) for part in model.modules() if (inside := _inside(part)) is not None}
    if not memo:
        return model
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {**{id(tensor): tensor for tensor in tensors}, **memo})


def check_network(given: object, name: str = "a network") -> None:
    """Make sure that something is a network.

    Raises:
        TypeError: It is not; what has a network, such as a traced one or the result of a search, is said to have it.
    """
    if isinstance(given, nn.Module):
        return
    what, attributes = type(given).__name__, vars(given) if hasattr(given, "__dict__") else {}
    if isinstance(given, type):
        what = f"the class {given.__name__}; make one first"
    elif isinstance(attributes.get("model"), nn.Module):
        what += "; give its .model"
    elif hasattr(type(given), "build"):
        what += "; give what its .best.build() makes" if "best" in attributes else "; give what its .build() makes"
    raise TypeError(f"Expected {name} (torch.nn.Module), got {what}.")


def _inside(model: nn.Module) -> nn.Module | None:
    """What a wrapper holds; None if it is none."""
    attribute = None
    if isinstance(model, (nn.DataParallel, DistributedDataParallel, AveragedModel)):
        attribute = "module"
    elif type(model).__module__.startswith("torch._dynamo"):  # importing its class would take a second
        attribute = "_orig_mod"
    return None if attribute is None else getattr(model, attribute, None)
