"""Learning from another network's answers: its outputs and, if wanted, where its features look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.models.nested import Batch, called, tensors_in


def attention_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of the (n, h, w) maps of attention of two (n, c, h, w) features; c may differ.

    Which suits pruned networks: nothing has to be learnt to compare 11 channels with 16. Source: Zagoruyko and
    Komodakis, ICLR 2017, arXiv:1612.03928, activation-based with p = 2, with the mean over positions of their code.
    """
    return (_attention(features) - _attention(teacher)).pow(2).mean()


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.float().pow(2).mean(1).flatten(1), dim=1)


def features_loss(returned: Any, teacher: Any) -> Tensor:
    """The mean of `attention_loss` over what a module returns: a tensor, or a nest of them, such as a dictionary.

    Tensors without positions, or of whole numbers, do not count.

    Raises:
        ValueError: There is nothing that counts, or not in both networks, as where a module returns more in eval mode.
    """
    mine, theirs = _maps(returned), _maps(teacher)
    if not mine or len(mine) != len(theirs):
        raise ValueError(
            "Expected a module to take features of that returns as many tensors (n, c, *positions) in training mode "
            f"as in the teacher, at least one; it returns {len(mine)}, and {len(theirs)} in the teacher. Name another."
        )
    return torch.stack([attention_loss(a, b) for a, b in zip(mine, theirs, strict=True)]).mean()


def _maps(returned: Any) -> list[Tensor]:
    return [each for each in tensors_in(returned) if each.dim() > 2 and each.is_floating_point()]


class Watched:
    """What some modules of a network return in a forward; a context.

    Args:
        network: The network.
        names: Of its modules.

    Raises:
        ValueError: The network has no such module.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        modules = dict(network.named_modules())
        unknown = [name for name in names if name not in modules]
        if unknown:
            raise ValueError(
                f"{type(network).__name__} has no module {unknown[0]!r} to take features of; it has "
                f"{', '.join(list(modules)[1:9])}, ..."
            )
        self._kind = type(network).__name__
        self._modules = {name: modules[name] for name in names}
        self._returned: dict[str, list[Any]] = {}

    @property
    def features(self) -> list[Any]:
        """What came of each module, in the order of their names: of one that ran several times all of it.

        Raises:
            ValueError: One was not called.
        """
        for name, returned in self._returned.items():
            if not returned:
                raise ValueError(
                    f"{name} is no module that the forward of {self._kind} calls, so it has no features. Name what "
                    "is called, such as one of its children."
                )
        return [each for returned in self._returned.values() for each in returned]

    def __enter__(self) -> Watched:
        self._returned = {name: [] for name in self._modules}
        self._handles = [module.register_forward_hook(self._noting(name)) for name, module in self._modules.items()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def _noting(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._returned[name].append(output)

        return hook


@torch.no_grad()
def answers(teacher: nn.Module, inputs: Batch, names: Sequence[str]) -> tuple[Any, list[Any]]:
    """Outputs and features of a teacher."""
    with Watched(teacher, names) as watched:
        return called(teacher, inputs), watched.features
