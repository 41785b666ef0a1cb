"""Calls of BatchNorm in any forward, by a module or as a function, and other statistics for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunesearch.models.batch_norm import Moments, batch_norm


@dataclass(frozen=True)
class NormCall:
    """A BatchNorm that is about to normalise with running statistics.

    Attributes:
        name: Of the running mean among the buffers of the model.
        mean: (c,) running mean, the model's own.
        variance: (c,) running variance, the model's own.
        eps: Added to the variances.
    """

    name: str
    mean: Tensor
    variance: Tensor
    eps: float


Others: TypeAlias = Callable[[NormCall, Tensor], Moments | None]
"""From a call and the (n, c, ...) that is normalised: the statistics to normalise with; None for the running ones."""


class NormCalls(TorchFunctionMode):
    """While it is entered, shows each BatchNorm of a model that uses running statistics, and may give it others.

    Those that are given others compute as in training mode (`batch_norm`). One that uses the statistics of the batch is
    not shown, nor one that does not compute by `torch.nn.functional.batch_norm`.

    Args:
        model: The model whose forward runs.
        others: Gives the statistics.
    """

    def __init__(self, model: nn.Module, others: Others) -> None:
        super().__init__()
        self._names = {id(buffer): name for name, buffer in model.named_buffers()}
        self._others = others

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch, or what replaces it."""
        keywords = kwargs or {}
        replaced = self._replaced(*args, **keywords) if func is F.batch_norm else None
        return func(*args, **keywords) if replaced is None else replaced

    def _replaced(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor | None:
        """What `F.batch_norm` of these arguments gives with other statistics; None if there are none."""
        name = self._names.get(id(running_mean))
        if name is None or training or running_mean is None or running_var is None:
            return None
        moments = self._others(NormCall(name, running_mean, running_var, eps), input)
        return None if moments is None else batch_norm(input, weight, bias, eps, moments=moments)
