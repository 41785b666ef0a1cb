"""Upper limits on cost, and the set of structures that meet them.

A `Budget` is what the user says; `Budget.check(space)` turns it into a `FeasibleSet` with absolute integers, or
raises with the reachable range. A budget is never a soft penalty: searchers propose members of the set only.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from prunesearch.errors import InfeasibleBudget
from prunesearch.structure import Cost, FloatArray, IntArray, Space, Structure

Limit: TypeAlias = int | float | str
Resource: TypeAlias = Literal["macs", "params"]

_SUFFIX = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_BISECTIONS = 32  # a step of any width up to 2**14 channels is found


@dataclass(frozen=True)
class Budget:
    """Upper limits on the cost of one image, absolute or relative to the unpruned network; all must hold.

    Attributes:
        macs: Multiply-accumulates: a count (`20_000_000`, `"20M"`) or a share of the unpruned network (`"50%"`).
        params: Parameters, likewise.
        flops: The same as `macs`, counting a multiply-accumulate twice: `flops="40M"` is `macs="20M"`, and a
            percentage means the same for both. Give one of the two.

    Example:
        >>> Budget(macs="40%", params="1.5M")
        Budget(macs='40%', params='1.5M', flops=None)
        >>> Budget(macs=0.4)
        Traceback (most recent call last):
        ...
        ValueError: Expected macs as a count of at least 1 or a share such as "50%", got 0.4. Did you mean "40%"?
    """

    macs: Limit | None = None
    params: Limit | None = None
    flops: Limit | None = None

    def __post_init__(self) -> None:
        given = {name: limit for name, limit in vars(self).items() if limit is not None}
        if not given:
            raise ValueError('Expected at least one limit, got none. Say for example Budget(macs="50%").')
        if self.macs is not None and self.flops is not None:
            raise ValueError(f"Expected macs or flops, got both ({self.macs!r}, {self.flops!r}); 1 MAC = 2 FLOPs.")
        for name, limit in given.items():
            _parse(name, limit)

    def __str__(self) -> str:
        return ", ".join(f"{name}={limit}" for name, limit in vars(self).items() if limit is not None)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read the command line's form, `"macs=40%,params=1.5M"`.

        Raises:
            ValueError: An unknown resource or a limit that cannot be read.
        """
        limits: dict[str, str] = {}
        for part in text.split(","):
            name, equals, limit = part.partition("=")
            if not equals or name.strip() not in cls.__dataclass_fields__:
                raise ValueError(f'Expected a budget such as "macs=50%" or "macs=20M,params=1M", got {text!r}.')
            limits[name.strip()] = limit.strip()
        return cls(**limits)

    def check(self, space: Space) -> FeasibleSet:
        """Resolve the limits against a space.

        Raises:
            InfeasibleBudget: Nothing in the space is cheap enough, or a limit is above the unpruned network.
        """
        wanted = {"macs": self.macs if self.flops is None else self.flops, "params": self.params}
        limits: list[tuple[Resource, int]] = []
        for resource in ("macs", "params"):
            limit = wanted[resource]
            if limit is not None:
                halves = 2 if resource == "macs" and self.flops is not None else 1
                limits.append((resource, _resolve(space, resource, limit, halves)))
        return FeasibleSet(space, tuple(limits))


@dataclass(frozen=True)
class FeasibleSet:
    """The structures of `space` that meet every limit; never empty.

    Attributes:
        space: Where the structures live.
        limits: Pairs (resource, largest allowed count).
    """

    space: Space
    limits: tuple[tuple[Resource, int], ...]

    def admits(self, cost: Cost) -> bool:
        """Whether a cost is within every limit."""
        return all(getattr(cost, resource) <= limit for resource, limit in self.limits)

    def excess(self, cost: Cost) -> float:
        """How far a cost is above the limits: the largest overshoot as a fraction of its limit, 0 if within."""
        return max(max(0.0, getattr(cost, resource) / limit - 1.0) for resource, limit in self.limits)

    def contains(self, structures: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """(p,) whether each of (p, g) structures is within every limit."""
        array = np.asarray(structures)
        within = np.ones(len(array), dtype=np.bool_)
        for resource, limit in self.limits:
            within &= getattr(self.space, resource)(array) <= limit
        return within

    def usage(self, structures: npt.ArrayLike) -> FloatArray:
        """(p,) largest share of a limit that each of (p, g) structures uses; at most 1 within the set."""
        array = np.asarray(structures)
        return np.max([getattr(self.space, resource)(array) / limit for resource, limit in self.limits], axis=0)

    def tightened(self, share: float) -> FeasibleSet:
        """The set for a `share` in (0, 1] of every limit, or for the narrowest structure's cost if that is more."""
        lowest = self.space.cost(self.space.minimum)
        return FeasibleSet(
            self.space,
            tuple((resource, max(int(limit * share), getattr(lowest, resource))) for resource, limit in self.limits),
        )

    def repair(self, structures: npt.ArrayLike) -> IntArray:
        """(p, g) structures moved into the set; those already in it are returned as they are.

        An infeasible one is shrunk along the straight line to the narrowest structure, as little as needed, and what
        rounding down to allowed widths left over is handed back group by group, largest loss first. Nothing grows
        beyond the width it came with.
        """
        array = np.asarray(structures, dtype=np.int64)
        outside = ~self.contains(array)
        repaired = array.copy()
        if outside.any():
            minimum, wanted = np.array(self.space.minimum), array[outside]
            repaired[outside] = self._furthest(
                lambda t: minimum + t * (wanted - minimum), rows=len(wanted), end=1.0, ceiling=wanted
            )
        return repaired

    def fit(self, structures: npt.ArrayLike) -> IntArray:
        """(p, g) structures moved along the line through the narrowest one until they just use the limits up.

        Like `repair`, but a cheap structure grows too: proportions are what a structure says, the budget says the
        scale. A group that reaches its full width stays there; once all that grow have, the others follow.
        """
        array = np.asarray(structures, dtype=np.int64)
        minimum, full = np.array(self.space.minimum), np.array(self.space.full)
        above = np.maximum(array - minimum, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            stretch = np.where(above > 0, (full - minimum) / above, 0.0).max(axis=1, keepdims=True, initial=0.0)
        corner = np.where(above > 0, full, minimum)

        def path(t: FloatArray) -> FloatArray:
            first = np.minimum(minimum + np.minimum(t, 1.0) * stretch * above, corner)
            return first + np.maximum(t - 1.0, 0.0) * (full - first)

        return self._furthest(path, rows=len(array), end=2.0, ceiling=np.broadcast_to(full, array.shape))

    def widen(self, structures: npt.ArrayLike) -> IntArray:
        """(p, g) members of the set, widened step by step, relatively narrowest group first, until none fits another.

        Each group is offered one step in turn. Widths never shrink; a structure outside the set is returned as it is.
        """
        array = np.asarray(structures, dtype=np.int64)
        full = np.broadcast_to(self.space.full, array.shape)
        return self._top_up(self.space.indices(array), full.astype(np.float64), self.space.indices(full))

    def _furthest(
        self, path: Callable[[FloatArray], FloatArray], *, rows: int, end: float, ceiling: IntArray
    ) -> IntArray:
        """Bisect how far each row can follow its path, which starts at the narrowest structure and only rises.

        Cost never falls along it, so bisection is sound.
        """

        def snapped(t: FloatArray) -> IntArray:
            return self.space.from_indices(self.space.indices(path(t)))

        low, high = np.zeros((rows, 1)), np.full((rows, 1), end)
        low = np.where(self.contains(snapped(high))[:, None], high, low)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            inside = self.contains(snapped(middle))[:, None]
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        reached = path(low)
        return self._top_up(self.space.indices(reached), reached, self.space.indices(ceiling))

    def _top_up(self, indices: IntArray, wanted: FloatArray, highest: IntArray) -> IntArray:
        """Widen group by group, largest loss by rounding first, until no group can take another step."""
        loss = (wanted - self.space.from_indices(indices)) / np.array(self.space.full)
        order = np.argsort(-loss, axis=1, kind="stable")
        rows = np.arange(len(indices))
        grew = True
        while grew:  # ends: every round but the last widens something
            grew = False
            for rank in range(indices.shape[1]):
                column = order[:, rank]
                trial = indices.copy()
                trial[rows, column] = np.minimum(trial[rows, column] + 1, highest[rows, column])
                accepted = self.contains(self.space.from_indices(trial)) & (trial != indices).any(axis=1)
                indices = np.where(accepted[:, None], trial, indices)
                grew |= bool(accepted.any())
        return self.space.from_indices(indices)


def as_structures(array: npt.ArrayLike) -> list[Structure]:
    """Turn (p, g) widths into a list of structures."""
    return [tuple(int(width) for width in row) for row in np.asarray(array)]


def as_array(structures: Sequence[Structure], space: Space) -> IntArray:
    """Turn structures into (p, g) widths, also when there are none."""
    return np.array(structures, dtype=np.int64).reshape(len(structures), len(space.groups))


def above_threshold(feasible: FeasibleSet, scores: Sequence[FloatArray]) -> Structure:
    """The structure of the lowest threshold that meets the budget, of each group's ascending scores; then widened."""
    space = feasible.space
    thresholds = np.append(np.unique(np.concatenate([np.zeros(0), *scores])), np.inf)
    kept = [
        (len(values) - np.searchsorted(values, thresholds)) * group.unit
        for group, values in zip(space.groups, scores, strict=True)
    ]
    wanted = np.stack(kept, axis=1) if kept else np.zeros((len(thresholds), 0))
    structures = space.from_indices(space.indices(wanted))
    return as_structures(feasible.widen(structures[[int(np.argmax(feasible.contains(structures)))]]))[0]


def _resolve(space: Space, resource: Resource, limit: Limit, halves: int) -> int:
    value, is_share = _parse(resource, limit)
    low, high = (int(getattr(space, resource)([widths])[0]) for widths in (space.minimum, space.full))
    absolute = int(value * high if is_share else value / halves)
    reached = f"The space reaches from {low:,} to {high:,} {resource} ({100 * low / high:.1f}% to 100%)."
    if absolute < low:
        raise InfeasibleBudget(
            f"A budget of {limit} ({absolute:,} {resource}) cannot be met. {reached} Raise the budget, or trace with "
            "a smaller min_channels or round_to.",
            limit=absolute,
            reachable=(low, high),
            unit=resource,
        )
    if absolute > high:
        raise InfeasibleBudget(
            f"A budget of {limit} ({absolute:,} {resource}) is more than the unpruned network costs, so there is "
            f"nothing to search for. {reached} Lower the budget.",
            limit=absolute,
            reachable=(low, high),
            unit=resource,
        )
    return absolute


def _parse(name: str, limit: Limit) -> tuple[Fraction, bool]:
    """Return (value, whether it is a share of the unpruned network); exact, so that 90% of 10 is 9."""
    expected = f'Expected {name} as a count of at least 1 or a share such as "50%", got {limit!r}.'
    if isinstance(limit, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*(%|[kMG]?)\s*", limit)
        if match is None:
            raise ValueError(f"{expected} Counts may end in k, M or G.")
        number, suffix = Fraction(match[1]), match[2]
        if suffix == "%":
            if number <= 0:
                raise ValueError(expected)
            return number / 100, True
        value = number * _SUFFIX[suffix]
    elif isinstance(limit, bool) or not isinstance(limit, (numbers.Integral, numbers.Real)):
        raise TypeError(expected)
    elif not math.isfinite(limit):
        raise ValueError(expected)
    else:
        value = Fraction(float(limit)) if isinstance(limit, float) else Fraction(int(limit))
    if value < 1:
        hint = f' Did you mean "{float(value * 100):g}%"?' if value > 0 else ""
        raise ValueError(expected + hint)
    return value, False
