"""The role: a structure goes in, a score comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from prunesearch.structure import Structure

if TYPE_CHECKING:
    from prunesearch.evaluators.ways import Way


class Evaluator(Protocol):
    """Scores structures; higher is better.

    Deterministic: the same structure gets the same score, whatever else is in the batch and whatever was scored
    before. Leaves the network, its mode and every random generator as found.

    It may have an attribute `measures` that says what its scores are: `"loss"` (minus a loss), `"fidelity"`,
    `"agreement"` (a share in [0, 1]), or the name of the task's metric, such as `"accuracy"`.
    """

    @property
    def description(self) -> str:
        """Name and settings in a line; a stored study refuses to go on with another one."""

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Score a batch, one score per structure in order.

        A score may be NaN or infinite; whoever called decides what that means.
        """


@runtime_checkable
class Divisible(Evaluator, Protocol):
    """An evaluator that scores on some of its images, too, so that a search may race (`study.racing`)."""

    @property
    def n_images(self) -> int:
        """How many images it scores on."""

    def on(self, images: Sequence[int]) -> Divisible:
        """The same evaluator on the images at some positions; that on all is the mean of those on equal parts.

        About the mean: nearly so will do, as with BatchNorm statistics of the images themselves.
        """


@runtime_checkable
class Choosing(Evaluator, Protocol):
    """An evaluator that can run structures in several ways, and finds out which is the fastest here."""

    @property
    def way(self) -> Way | None:
        """How it runs them; None while that is open."""

    @property
    def precisions(self) -> Sequence[str]:
        """In which precisions it may come to run them."""

    def described(self, precision: str) -> str:
        """Its description in one of those: scores depend on it."""

    def keep(self, way: Way) -> None:
        """Run structures as was chosen before, as far as that is open."""

    def choose(self, structures: Sequence[Structure]) -> None:
        """Choose what is still open by running some structures; nothing happens if nothing is."""


def divided(evaluator: Evaluator, parts: int) -> tuple[Divisible, ...]:
    """The evaluator on each of so many parts of its images, consecutive ones of nearly equal length.

    Raises:
        TypeError: It cannot score on some of its images.
    """
    if not isinstance(evaluator, Divisible):
        raise TypeError(f"Expected an evaluator with n_images and on(images), got {type(evaluator).__name__}.")
    return tuple(evaluator.on(part.tolist()) for part in np.array_split(np.arange(evaluator.n_images), parts))
