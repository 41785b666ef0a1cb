"""Numbers to be met: networks return tensors of the shape of the targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesearch.models.nested import Batch
from prunesearch.tasks.outputs import described, main_output
from prunesearch.tasks.task import Task, targets_of

Error = Literal["squared", "absolute", "huber"]
_ERRORS: dict[str, Callable[..., Tensor]] = {"squared": F.mse_loss, "absolute": F.l1_loss, "huber": F.huber_loss}


def regression(error: Error = "squared") -> Task:
    """Batches are (inputs, targets), with targets (n,) or (n, ...); networks return numbers of that shape.

    Suits restored images and autoencoders, too, whose targets are images. Judged by R², the share of the targets'
    variance that is explained (1 is perfect, 0 what their mean would give).

    Args:
        error: The loss, a mean over what belongs to an example: `"squared"`, `"absolute"` or `"huber"`.

    Raises:
        ValueError: An unknown error.
    """
    if error not in get_args(Error):
        raise ValueError(f"Unknown error {error!r}; there are {', '.join(get_args(Error))}.")
    return Task(loss=_ErrorOf(error), metric=R2, metric_name="R2", check=check, name="regression")


@dataclass(frozen=True)
class _ErrorOf:
    kind: Error

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        own, wanted = _fitting(main_output(outputs), batch[1])
        return _ERRORS[self.kind](own, wanted, reduction="none").reshape(len(wanted), -1).mean(1)


def check(outputs: Any, batch: Batch) -> None:
    """Make sure that the network returns what can be compared with the targets, and that these are finite.

    Raises:
        ValueError: The shapes differ, or a target is NaN or infinite.
    """
    targets = targets_of(
        batch, "a tensor of numbers", "Make each a tensor; those of inputs of one size have one shape."
    )
    if not bool(targets.isfinite().all()):
        n = int((~targets.isfinite()).reshape(len(targets), -1).any(1).sum())
        raise ValueError(
            f"Expected finite targets, got NaN or infinite ones in {n} of {len(targets)} examples. Leave these "
            "examples out, or give a Task whose loss leaves out such numbers."
        )
    own, wanted = _fitting(main_output(outputs), targets)
    if own.shape[1:] != wanted.shape[1:]:
        raise ValueError(
            f"Expected outputs of the shape of the targets, {tuple(wanted.shape)}; the network returned "
            f"{described(outputs)}."
        )


def _fitting(own: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same number of dimensions: (n,) and (n, 1) mean the same."""
    if own.dim() == 2 and wanted.dim() == 1 and own.shape[1] == 1:
        own = own[:, 0]
    elif own.dim() == 1 and wanted.dim() == 2 and wanted.shape[1] == 1:
        wanted = wanted[:, 0]
    return own, wanted.to(own.dtype)


class R2:
    """Share of the variance of the targets that is explained, of each number of an example apart, then all together.

    Of targets of several sizes, whose numbers have no counterpart in one another, variance is that of all numbers.
    Sums are of differences from the first target: those of targets that do not vary are zero, whatever is rounded.
    """

    higher_is_better = True

    def __init__(self) -> None:
        self._first: dict[tuple[int, ...], Tensor] = {}
        self._sums: dict[tuple[int, ...], Tensor] = {}

    def update(self, outputs: Any, batch: Batch) -> None:
        """Take in outputs and targets of a batch."""
        own, wanted = (x.detach().double().cpu() for x in _fitting(main_output(outputs), batch[1]))
        shape = tuple(wanted.shape[1:])
        wanted, own = wanted.reshape(len(wanted), -1), own.reshape(len(own), -1)
        apart = wanted - self._first.setdefault(shape, wanted[0].clone())
        count = torch.full_like(wanted[0], len(wanted))
        sums = torch.stack([count, apart.sum(0), apart.square().sum(0), (wanted - own).square().sum(0)])
        self._sums[shape] = self._sums[shape] + sums if shape in self._sums else sums

    def compute(self) -> float:
        """R²; 0 where the targets do not vary."""
        several = list(self._sums.values())  # at least one, as it is computed after updates only
        n, total, squares, errors = several[0] if len(several) == 1 else self._of_all_numbers()
        variance = (squares - total.square() / n).sum()
        return float(1 - errors.sum() / variance) if variance > 0 else 0.0

    def _of_all_numbers(self) -> Tensor:
        """The sums over all numbers alike: of differences from the very first one."""
        start = next(iter(self._first.values()))[0]
        found = []
        for shape, (n, total, squares, errors) in self._sums.items():
            moved = self._first[shape] - start
            about = total + n * moved, squares + 2 * moved * total + n * moved.square()
            found.append(torch.stack([n, *about, errors]).sum(1))
        return torch.stack(found).sum(0)
