"""Upper limits on cost, and the set of structures that meet them.

A `Budget` is what the user says; `Budget.check(space)` turns it into a `FeasibleSet` with absolute integers, or
raises with the reachable range. A budget is never a soft penalty: searchers propose members of the set only.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from prunesearch.errors import InfeasibleBudget
from prunesearch.latency_model import LatencyModel
from prunesearch.latency_table import LatencyTable
from prunesearch.registry import did_you_mean
from prunesearch.structure import Cost, FloatArray, IntArray, Space, Structure

Limit: TypeAlias = int | float | str
Resource: TypeAlias = Literal["macs", "params", "latency_ms"]

_RESOURCES = ("macs", "params", "flops", "latency_ms")
_EXACT = Context(prec=200)  # digits: more than any limit has
_LIMIT = re.compile(r"\s*(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*(%|[kMG]?)\s*")
_SUFFIX = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_BISECTIONS = 32  # a step of any width up to 2**14 channels is found


@dataclass(frozen=True)
class Budget:
    """Upper limits on the cost of one image, absolute or relative to the unpruned network; all must hold.

    However a limit is written, it is kept in its shortest form: `"50 %"` is `"50%"`, and `20_000_000` is `"20M"`.

    Attributes:
        macs: Multiply-accumulates: a count (`20_000_000`, `"20M"`) or a share of the unpruned network (`"50%"`).
        params: Parameters, likewise.
        flops: The same as `macs`, counting a multiply-accumulate twice: `flops="40M"` is `macs="20M"`, and a
            percentage means the same for both. Give one of the two.
        latency_ms: Milliseconds of one forward, as predicted from `table`, or a share of the unpruned network's.
        table: What latency is predicted from, or the path of its file.

    Example:
        >>> print(Budget(macs="40%", params="1.5M"))
        macs=40%, params=1.5M
        >>> Budget(macs=0.4)
        Traceback (most recent call last):
        ...
        ValueError: Expected macs as a count of at least 1 or a share such as "50%", got 0.4. Did you mean "40%"?
    """

    macs: Limit | None = None
    params: Limit | None = None
    flops: Limit | None = None
    latency_ms: Limit | None = None
    table: LatencyTable | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.table, (str, Path)):
            object.__setattr__(self, "table", LatencyTable.load(self.table))
        given = self._limits()
        if not given:
            raise ValueError('Expected at least one limit, got none. Say for example Budget(macs="50%").')
        if self.macs is not None and self.flops is not None:
            raise ValueError(f"Expected macs or flops, got both ({self.macs!r}, {self.flops!r}); 1 MAC = 2 FLOPs.")
        if (self.latency_ms is None) != (self.table is None):
            raise ValueError(
                f"Expected latency_ms and table together, got latency_ms={self.latency_ms!r} and "
                f"{'no table' if self.table is None else 'a table'}. A table may be the path of its file, which "
                "LatencyTable.measure(network, file=...), or prunesearch latency, makes."
            )
        for name, limit in given.items():
            object.__setattr__(self, name, _shortest(name, limit))

    def __str__(self) -> str:
        limits = ", ".join(f"{name}={limit}" for name, limit in self._limits().items())
        return limits if self.table is None else f"{limits} by table {self.table.fingerprint}"

    def _limits(self) -> dict[str, Limit]:
        return {name: limit for name, limit in vars(self).items() if name != "table" and limit is not None}

    @classmethod
    def parse(cls, text: str, table: LatencyTable | None = None) -> Budget:
        """Read the command line's form, `"macs=40%,params=1.5M"`; `table` is what `latency_ms` is predicted from.

        Raises:
            ValueError: An unknown resource, one that is limited twice, or a limit that cannot be read.
        """
        return cls(**parse_limits(text), table=table)

    def check(self, space: Space) -> FeasibleSet:
        """Resolve the limits against a space.

        Raises:
            InfeasibleBudget: Nothing in the space is cheap enough, or a limit is above the unpruned network.
            ValueError: The latency table is of another network, not complete, or too noisy for this limit.
        """
        wanted = {"macs": self.macs if self.flops is None else self.flops, "params": self.params}
        limits: list[tuple[Resource, float]] = []
        for resource in ("macs", "params"):
            limit = wanted[resource]
            if limit is not None:
                halves = 2 if resource == "macs" and self.flops is not None else 1
                limits.append((resource, _resolve(space, resource, limit, halves)))
        if self.table is None or self.latency_ms is None:
            return FeasibleSet(space, tuple(limits), asked=str(self))
        model = LatencyModel(self.table, space)
        limits.append(("latency_ms", _resolve_latency(model, space, self.latency_ms)))
        return FeasibleSet(space, tuple(limits), model, asked=str(self))


@dataclass(frozen=True)
class FeasibleSet:
    """The structures of `space` that meet every limit; never empty.

    It stands wherever a `Budget` is taken: it is one that is resolved already.

    Attributes:
        space: Where the structures live.
        limits: Pairs (resource, largest allowed count; milliseconds for latency).
        latency: Predicts it, where it is limited.
        asked: The budget as its caller wrote it.
        lowered: Limits that were lowered since.
    """

    space: Space
    limits: tuple[tuple[Resource, float], ...]
    latency: LatencyModel | None = None
    asked: str = field(default="", compare=False)
    lowered: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        lowered = ", ".join(f"{resource} {limit:.10g}" for resource, limit in self.lowered)
        return f"{self.asked}, lowered to {lowered}" if lowered else self.asked

    def check(self, space: Space) -> FeasibleSet:
        """Itself, as it is resolved.

        Raises:
            ValueError: It is of another space.
        """
        if space is not self.space and space != self.space:
            raise ValueError(f"Expected the budget {self} to be resolved for {space!r}; it is for {self.space!r}.")
        return self

    def lowered_to(self, limits: Mapping[str, float]) -> FeasibleSet:
        """The set under lower limits; one that is not lower than what is there changes nothing.

        Args:
            limits: By resource; absolute.

        Raises:
            InfeasibleBudget: Not even the narrowest structure meets them.
            ValueError: A resource that cannot be limited here.
        """
        found: dict[Any, float] = dict(self.limits)
        lowest = self.cost(self.space.minimum)
        for resource, limit in limits.items():
            if resource not in ("macs", "params", *found):
                raise ValueError(
                    f"Expected lower limits of {', '.join(found)}, macs or params, got one of {resource!r}."
                )
            least = getattr(lowest, resource)
            if limit < least:
                raise InfeasibleBudget(
                    f"No structure has {resource} of at most {limit:,.6g}; the narrowest has {least:,.6g}.",
                    limit=limit,
                    reachable=(least, getattr(self.cost(self.space.full), resource)),
                    unit=resource,
                )
            found[resource] = min(limit, found.get(resource, math.inf))
        changed = {name: limit for name, limit in found.items() if dict(self.limits).get(name) != limit}
        lowered: dict[str, float] = {**dict(self.lowered), **changed}
        return replace(self, limits=tuple(found.items()), lowered=tuple(lowered.items()))

    def cost(self, structure: Sequence[int]) -> Cost:
        """Cost of one structure, with its predicted latency where that is limited; checks the structure first."""
        exact = self.space.cost(structure)
        if self.latency is None:
            return exact
        return replace(exact, latency_ms=float(self.latency.predict([structure])[0]))

    def costs(self, resource: Resource, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) what (p, g) structures cost of a limited resource."""
        if resource == "latency_ms":
            assert self.latency is not None  # it comes with the limit
            return self.latency.predict(structures)
        found: IntArray = getattr(self.space, resource)(structures)
        return found

    def quadratic(self, resource: Resource) -> FloatArray:
        """Like `Space.quadratic`; of latency an approximation, which the projections onto the set put right."""
        return (
            self.space.quadratic(resource)
            if self.latency is None or resource != "latency_ms"
            else (self.latency.quadratic())
        )

    def admits(self, cost: Cost) -> bool:
        """Whether a cost, with its latency where that is limited (`cost`), is within every limit."""
        return all(getattr(cost, resource) <= limit for resource, limit in self.limits)

    def excess(self, cost: Cost) -> float:
        """How far a cost is above the limits: the largest overshoot as a fraction of its limit, 0 if within."""
        return max(max(0.0, getattr(cost, resource) / limit - 1.0) for resource, limit in self.limits)

    def contains(self, structures: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """(p,) whether each of (p, g) structures is within every limit."""
        array = np.asarray(structures)
        within = np.ones(len(array), dtype=np.bool_)
        for resource, limit in self.limits:
            within &= self.costs(resource, array) <= limit
        return within

    def usage(self, structures: npt.ArrayLike) -> FloatArray:
        """(p,) largest share of a limit that each of (p, g) structures uses; at most 1 within the set."""
        array = np.asarray(structures)
        return np.max([self.costs(resource, array) / limit for resource, limit in self.limits], axis=0)

    def tightened(self, share: float) -> FeasibleSet:
        """The set for a `share` in (0, 1] of every limit, or for the narrowest structure's cost if that is more."""
        lowest = self.cost(self.space.minimum)
        limits: list[tuple[Resource, float]] = []
        for resource, limit in self.limits:
            scaled = limit * share if resource == "latency_ms" else int(limit * share)
            limits.append((resource, max(scaled, getattr(lowest, resource))))
        return replace(self, limits=tuple(limits))

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

        MACs and parameters never fall along it, so bisection finds the furthest point. Latency may, where widths are
        well aligned; what is found is then inside all the same, as every point kept has been looked at.
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


def parse_limits(text: str) -> dict[str, str]:
    """The limits of `Budget.parse` as they are written, by resource.

    Raises:
        ValueError: An unknown resource, or one that is limited twice.
    """
    limits: dict[str, str] = {}
    for part in text.split(","):
        name, equals, limit = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            hint = f' Did you mean "macs={text.strip()}"?' if _LIMIT.fullmatch(text) else ""
            raise ValueError(f'Expected a budget such as "macs=50%" or "macs=20M,params=1M", got {text!r}.{hint}')
        if name not in _RESOURCES:
            hint = did_you_mean(name, _RESOURCES)
            raise ValueError(f"A budget cannot limit {name!r}; it can limit {', '.join(_RESOURCES)}.{hint}")
        if name in limits:
            raise ValueError(f"The budget limits {name} twice, to {limits[name]} and to {limit}. Give one of the two.")
        limits[name] = limit
    return limits


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


def _resolve_latency(model: LatencyModel, space: Space, limit: Limit) -> float:
    value, is_share = _parse("latency_ms", limit)
    low, high = model.predict([space.minimum, space.full]).tolist()
    absolute = float(value) * high if is_share else float(value)
    reached = (
        f"By the table the space reaches from {low:.3g} to {high:.3g} ms ({100 * low / high:.1f}% to 100%); no choice "
        f"of widths can save {model.fixed_ms:.3g} ms of it."
    )
    if absolute < low:
        raise InfeasibleBudget(
            f"A budget of {limit} ({absolute:.3g} ms) cannot be met. {reached} Raise the budget, or trace with a "
            "smaller min_channels or round_to.",
            limit=absolute,
            reachable=(low, high),
            unit="latency_ms",
        )
    if absolute > high:
        raise InfeasibleBudget(
            f"A budget of {limit} ({absolute:.3g} ms) is more than the unpruned network takes, so there is nothing to "
            f"search for. {reached} Lower the budget.",
            limit=absolute,
            reachable=(low, high),
            unit="latency_ms",
        )
    error = 2 * model.relative_error * absolute  # NaN, without networks to tell, is never too large
    if error > high - low:
        raise ValueError(
            f"The latency table is too noisy for a budget of {limit}: predictions are off by "
            f"{model.relative_error:.0%} (one standard deviation), so by up to {error:.3g} ms, and all structures lie "
            f"between {low:.3g} and {high:.3g} ms. Measure again while the machine is idle."
        )
    return absolute


def _shortest(name: str, limit: Limit) -> str:
    """The shortest way to write a limit; of equally short ones a whole number, of the largest unit."""
    value, is_share = _parse(name, limit)
    if is_share:
        return f"{_decimal(value * 100)}%"
    units = {"": 1} if name == "latency_ms" else _SUFFIX
    forms = [f"{_decimal(value / size)}{suffix}" for suffix, size in reversed(units.items())]
    return min(forms, key=lambda form: (len(form), "." in form))


def _decimal(value: Fraction) -> str:
    """A fraction that decimals can write, written so."""
    return format(_EXACT.divide(Decimal(value.numerator), Decimal(value.denominator)), "f")


def _parse(name: str, limit: Limit) -> tuple[Fraction, bool]:
    """Return (value, whether it is a share of the unpruned network); exact, so that 90% of 10 is 9."""
    is_time = name == "latency_ms"
    unit = "milliseconds above 0" if is_time else "a count of at least 1"
    expected = f'Expected {name} as {unit} or a share such as "50%", got {limit!r}.'
    if isinstance(limit, str):
        match = _LIMIT.fullmatch(limit)
        if match is None or (is_time and match[2] in _SUFFIX and match[2]):
            raise ValueError(expected if is_time else f"{expected} Counts may end in k, M or G.")
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
        value = Fraction(repr(float(limit))) if isinstance(limit, float) else Fraction(int(limit))
    if value <= 0 or (value < 1 and not is_time):
        hint = f' Did you mean "{float(value * 100):g}%"?' if value > 0 else ""
        raise ValueError(expected + hint)
    return value, False
