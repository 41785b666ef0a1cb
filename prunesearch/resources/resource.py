"""The role: what a structure costs of something that a budget limits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from prunesearch.structure import FloatArray, IntArray, Space

_DRAWN = 16
"""Random structures whose costs tell resources apart, besides those of which all groups but one are narrowest."""
_ROUNDING = 1e-9


class Traced(Protocol):
    """A traced network, as far as resources need to know it (`models.network.Network`)."""

    @property
    def space(self) -> Space:
        """Every structure it can take."""


Subject: TypeAlias = Space | Traced
"""Whose structures cost something: a space, or the network that it belongs to."""


class Meter(Protocol):
    """Says what the structures of one space cost of a resource.

    It may have a method `quadratic()`: a (1 + g, 1 + g) matrix A with cost about [1, x] A [1, x], x the kept fractions,
    for methods that need a formula; without one a linear one is fitted. It may have a method
    `costs_with(structure, groups, widths)`: (m,) what `costs` gives of a (g,) structure in each of which one group, the
    m-th of (m,) indices `groups`, has another width, the m-th of (m,) `widths`, for methods that ask for thousands of
    such; without one, `costs` is asked. And attributes: `relative_error`, the standard
    deviation of measured / predicted - 1, where costs are predictions; `remark`, a sentence about what can be reached;
    `verifier`, the name of the one that looks at winners by default; `basis`, what costs depend on besides the network,
    in words.
    """

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) what (p, g) structures cost: integers of what is counted, other numbers of what is measured.

        The same structure always costs the same. No structure costs less than the narrowest.
        """


class Resource(Protocol):
    """Something that a budget limits, such as MACs or milliseconds.

    It may have an attribute `basis`: what costs are made from besides the network, in words, such as the name of a
    table; empty if nothing. Studies know the resource by it. Of a resource without one, whose meter has none either,
    they remember what some structures cost.

    Attributes:
        name: What budgets call it, `Budget(NAME="50%")`.
        unit: What follows a number of it in sentences, such as `"ms"`.
        is_count: Whether it is counted in whole numbers, which may be written with k, M and G.
    """

    name: str
    unit: str
    is_count: bool

    def meter(self, subject: Subject) -> Meter:
        """What says the cost of structures.

        Raises:
            ValueError: It needs more than was given, such as the network besides its space.
        """


@dataclass(frozen=True)
class Metered:
    """A resource with its meter for one space.

    Attributes:
        resource: The resource.
        meter: Says what structures cost of it.
    """

    resource: Resource
    meter: Meter

    def told_apart(self, space: Space) -> str:
        """What tells it from a resource of the same name whose costs are others; empty if its own `basis` does.

        Costs count to six digits, as further ones may be others on another machine.
        """
        if hasattr(self.resource, "basis"):
            return ""
        basis = getattr(self.meter, "basis", None)
        if basis is not None:
            return f"{self.resource.name} of {basis}"
        widened = np.where(np.eye(len(space.full), dtype=bool), space.full, space.minimum)
        drawn = space.sample(np.random.default_rng(0), _DRAWN)
        costs = self.costs(np.vstack([space.minimum, space.full, widened, drawn]).astype(np.int64))
        digits = ",".join(f"{float(cost):.6g}" for cost in costs)
        return f"{self.resource.name} {hashlib.sha256(digits.encode()).hexdigest()[:8]}"

    @property
    def relative_error(self) -> float:
        """Standard deviation of measured / predicted - 1; NaN of what is exact, or not known."""
        return float(getattr(self.meter, "relative_error", float("nan")))

    @property
    def verifier(self) -> str:
        """Name of the verifier that looks at winners by default; empty if there is none."""
        return str(getattr(self.meter, "verifier", ""))

    def costs(self, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) what (p, g) structures cost: an array, where somebody's meter gives a list or a tensor, too."""
        return np.asarray(self.meter.costs(np.asarray(structures)))

    def costs_with(self, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> npt.NDArray[Any]:
        """(m,) what a structure costs if one group, the m-th of `groups`, has another width; see `Meter`."""
        own = getattr(self.meter, "costs_with", None)
        if callable(own):
            return np.asarray(own(structure, groups, widths))
        structures = np.repeat(np.asarray(structure, dtype=np.int64)[None], len(groups), axis=0)
        structures[np.arange(len(groups)), groups] = widths
        return self.costs(structures)

    def amount(self, value: float) -> float:
        """A limit or a cost as what it is: a whole number of what is counted."""
        return int(value) if self.resource.is_count else float(value)

    def shown(self, value: float) -> str:
        """An amount with its unit."""
        return f"{value:,} {self.resource.unit}" if self.resource.is_count else f"{value:.3g} {self.resource.unit}"

    def quadratic(self, space: Space) -> FloatArray:
        """(1 + g, 1 + g) matrix A with cost about [1, x] A [1, x]: the meter's own, or one that is fitted.

        Never more than the cost of the narrowest structure there, so that what can be met stays so: a matrix that says
        more is scaled.
        """
        own = getattr(self.meter, "quadratic", None)
        matrix: FloatArray = own() if callable(own) else self._fitted(space)
        lowest = np.concatenate([[1.0], np.array(space.minimum) / np.array(space.full)])
        says, costs = float(lowest @ matrix @ lowest), float(self.costs([space.minimum])[0])
        return matrix * (costs / says) if says > costs * (1 + _ROUNDING) else matrix

    def _fitted(self, space: Space) -> FloatArray:
        """Linear, through the narrowest structure and those that widen one group of it alone.

        Where widths multiply, such lines meet 0 above the narrowest structure; they have no constant then.
        """
        full, least = np.array(space.full), np.array(space.minimum)
        widened = np.where(np.eye(len(full), dtype=bool), full, least)
        base, *others = self.costs(np.vstack([least, widened])).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = np.maximum(0.0, np.array(others) - base) / (1 - least / full)
        slopes = np.where(np.isfinite(slopes), slopes, 0.0)
        matrix = np.zeros((len(full) + 1, len(full) + 1))
        matrix[0, 1:] = slopes
        matrix[0, 0] = max(0.0, base - float(slopes @ (least / full)))
        return matrix


def space_of(subject: Subject) -> Space:
    """The space of a network; a space as it is."""
    return subject if isinstance(subject, Space) else subject.space
