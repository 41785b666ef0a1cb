"""Torch's own counter of what a forward costs, without its tally by module."""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import FlopCounterMode


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
