"""Torch's own counter of what a forward costs, without its tally by module."""

from __future__ import annotations

from typing import Any, Protocol

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


class Counter(Protocol):
    """What counts while it is entered."""

    def __enter__(self) -> Any:
        """Begin."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool | None:
        """End."""

    def get_total_flops(self) -> int:
        """How many so far."""


class Uncounted(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Where nobody wants to know. What TorchScript functions do is seen only beneath a mode like this one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))

    def get_total_flops(self) -> int:
        """None were counted."""
        return 0


class FlopCounter(FlopCounterMode):
    """`FlopCounterMode` for the total alone.

    That tells modules apart by hooks on the gradients of what they are given. Without gradients, as here, those fail on
    a view of a parameter, such as a class token that was expanded to all images.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker = _Everything()  # type: ignore[assignment]


class _Everything:
    """What tells `FlopCounterMode` which modules run: always the whole."""

    parents = ("Global",)

    def __enter__(self) -> _Everything:
        return self

    def __exit__(self, *error: Any) -> None:
        pass
