"""Upper limits on cost, and the set of structures that meet them.

A `Budget` is what the user says; `Budget.check(network)` turns it into a `FeasibleSet` with absolute numbers, or
raises with the reachable range. A budget is never a soft penalty: searchers propose members of the set only. What can
be limited is said in `prunesearch.resources`.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from prunesearch.errors import InfeasibleBudget
from prunesearch.question import in_words
from prunesearch.resources import RESOURCES, check_names, check_resource_name, make_resource, metered
from prunesearch.resources.resource import Metered, Resource, Subject, space_of
from prunesearch.structure import Cost, FloatArray, IntArray, Space, Structure

Limit: TypeAlias = int | float | str

_EXACT = Context(prec=200)  # digits: more than any limit has
_LIMIT = re.compile(r"\s*(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*(%|[kMG]?)\s*")
_SUFFIX = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_BISECTIONS = 32  # a step of any width up to 2**14 channels is found


@dataclass(frozen=True, init=False, repr=False)
class Budget:
    """Upper limits on the cost of one image, absolute or relative to the unpruned network; all must hold.

    However a limit is written, it is kept in its shortest form: `"50 %"` is `"50%"`, and `20_000_000` is `"20M"`.

    Args:
        table: What resources are predicted from that take a table (`latency_ms`), or the path of its file.
        resources: Resources of your own as objects (`resources.resource.Resource`), which limits call by their names.
        **limits: By the names of resources: `macs`, `params`, `flops` (two for each MAC), `latency_ms` (of one forward,
            by the table), `peak_memory` (bytes, with as many images as the network was traced with), `energy_mj` (of
            one forward, by a table), one that an installed package adds, or `"package.module:attribute"`. A limit is a
            count (`20_000_000`, `"20M"`), a number of what is measured (`4.0`), or a share of what the unpruned network
            costs (`"50%"`).

    Attributes:
        limits: Pairs (name, limit in its shortest form).
        resources: What is limited, in the same order.
        table: The table.

    Raises:
        ValueError: There is no limit, one cannot be read, or nothing of that name can be limited; two resources have
            one name; or a table is missing, or nobody takes it.
        TypeError: A limit is no number, and no text.
        ContractBroken: A resource has not all that its contract asks for.

    Example:
        >>> print(Budget(macs="40%", params="1.5M"))
        macs=40%, params=1.5M
        >>> Budget(macs=0.4)
        Traceback (most recent call last):
        ...
        ValueError: Expected macs as a count of at least 1 or a share such as "50%", got 0.4. Did you mean "40%"?
    """

    limits: tuple[tuple[str, str], ...]
    resources: tuple[Resource, ...]
    table: Any

    def __init__(self, *, table: Any = None, resources: Sequence[Resource] = (), **limits: Limit | None) -> None:
        given = {name: limit for name, limit in limits.items() if limit is not None}
        if not given:
            raise ValueError('Expected at least one limit, got none. Say for example Budget(macs="50%").')
        own = [*RESOURCES]
        names = sorted(given, key=lambda name: (own.index(name) if name in own else len(own), name))
        found = tuple(make_resource(name, resources, table) for name in names)
        check_names(found)
        unused = [each for each in resources if each not in found]
        if unused:
            raise ValueError(f"The budget has the resource {unused[0].name!r}, and no limit on it.")
        tables = [resource.table for resource in found if hasattr(resource, "table")]
        if table is not None and not tables:
            raise ValueError(
                "Expected latency_ms and table together, got a table, and no limit that is predicted from one."
            )
        shortest = [_shortest(resource, given[name]) for name, resource in zip(names, found, strict=True)]
        object.__setattr__(self, "limits", tuple(zip(names, shortest, strict=True)))
        object.__setattr__(self, "resources", found)
        object.__setattr__(self, "table", tables[0] if tables else None)

    def __str__(self) -> str:
        return in_words(self.as_facts())

    def as_facts(self) -> dict[str, Any]:
        """The limits by resource as they are written, and what they are predicted from: plain values."""
        bases = [str(basis) for each in self.resources if (basis := getattr(each, "basis", ""))]
        return {"limits": dict(self.limits), **({"by": bases} if bases else {})}

    def __repr__(self) -> str:
        return f"Budget({', '.join(f'{name}={limit!r}' for name, limit in self.limits)})"

    @classmethod
    def parse(cls, text: str, table: Any = None) -> Budget:
        """Read the command line's form, `"macs=40%,params=1.5M"`; `table` is what `latency_ms` is predicted from.

        Raises:
            ValueError: An unknown resource, one that is limited twice, or a limit that cannot be read.
        """
        limits: dict[str, Any] = {**parse_limits(text)}
        return cls(**limits, table=table)

    def check(self, subject: Subject) -> FeasibleSet:
        """Resolve the limits against a space, or against a traced network, which some resources need.

        Raises:
            InfeasibleBudget: Nothing in the space is cheap enough, or a limit is above the unpruned network.
            ValueError: A resource needs the network, or its table is of another one, not complete, or too noisy.
            ContractBroken: A resource does not do what its contract asks for.
        """
        found = {each.name: metered(each, subject) for each in self.resources}
        space, limits = space_of(subject), zip(self.resources, self.limits, strict=True)
        resolved = tuple((each.name, _resolve(space, found[each.name], limit)) for each, (_, limit) in limits)
        costs = [told for each in self.resources if (told := found[each.name].told_apart(space))]
        return FeasibleSet(space, resolved, found, asked={**self.as_facts(), **({"costs": costs} if costs else {})})


@dataclass(frozen=True)
class FeasibleSet:
    """The structures of `space` that meet every limit; never empty.

    It stands wherever a `Budget` is taken for the same network: it is one that is resolved already.

    Attributes:
        space: Where the structures live.
        limits: Pairs (name of the resource, largest allowed cost).
        meters: By name, what says the cost; of what the space alone says it is made if it is missing.
        asked: The budget as its caller wrote it (`Budget.as_facts`), and what costs of resources without a `basis` are
            known by (`Metered.told_apart`).
        lowered: Limits that were lowered since.
    """

    space: Space
    limits: tuple[tuple[str, float], ...]
    meters: Mapping[str, Metered] = field(default_factory=dict, compare=False, repr=False)
    asked: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    lowered: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        missing = [name for name, _ in self.limits if name not in self.meters]
        if missing:
            made = {name: metered(make_resource(name), self.space) for name in missing}
            object.__setattr__(self, "meters", {**self.meters, **made})

    def __str__(self) -> str:
        return in_words(self.as_facts())

    def as_facts(self) -> dict[str, Any]:
        """The budget as it was asked for, with the limits that were lowered since: plain values."""
        asked = self.asked or {"limits": dict(self.limits)}
        return {**asked, **({"lowered": dict(self.lowered)} if self.lowered else {})}

    def check(self, subject: Subject) -> FeasibleSet:
        """Itself, as it is resolved.

        Raises:
            ValueError: It is of another space.
        """
        space = space_of(subject)
        if space is not self.space and space != self.space:
            raise ValueError(f"Expected the budget {self} to be resolved for {space!r}; it is for {self.space!r}.")
        return self

    def lowered_to(self, limits: Mapping[str, float]) -> FeasibleSet:
        """The set under lower limits; one that is not lower than what is there changes nothing.

        Args:
            limits: By the name of the resource, which need not have been limited so far; absolute.

        Raises:
            InfeasibleBudget: Not even the narrowest structure meets them.
            ValueError: A resource that cannot be limited here.
        """
        found, meters = dict(self.limits), dict(self.meters)
        for name, limit in limits.items():
            if name not in meters:
                meters[name] = metered(make_resource(name), self.space)
            least, full = meters[name].costs([self.space.minimum, self.space.full]).tolist()
            if limit < least:
                raise InfeasibleBudget(
                    f"No structure has {name} of at most {limit:,.6g}; the narrowest has {least:,.6g}.",
                    limit=limit,
                    reachable=(least, full),
                    unit=name,
                )
            found[name] = min(limit, found.get(name, math.inf))
        return replace(self, meters=meters)._under(found)

    def _under(self, limits: Mapping[str, float]) -> FeasibleSet:
        """The set under other limits, all of them; those that are not as before are taken note of."""
        before = dict(self.limits)
        changed = {name: limit for name, limit in limits.items() if before.get(name) != limit}
        return replace(self, limits=tuple(limits.items()), lowered=tuple({**dict(self.lowered), **changed}.items()))

    def cost(self, structure: Sequence[int]) -> Cost:
        """Cost of one structure, with that of every limited resource; checks the structure first."""
        exact = self.space.cost(structure)
        more = {
            name: metered.amount(metered.costs([structure])[0])
            for name, metered in self.meters.items()
            if name not in ("macs", "params")
        }
        return replace(exact, more=more) if more else exact

    def costs(self, resource: str, structures: npt.ArrayLike) -> npt.NDArray[Any]:
        """(p,) what (p, g) structures cost of a limited resource."""
        return self.meters[resource].costs(structures)

    def quadratic(self, resource: str) -> FloatArray:
        """Like `Space.quadratic`; an approximation of what has no formula, which the projections put right."""
        return self.meters[resource].quadratic(self.space)

    def shown(self, cost: Cost) -> str:
        """A cost in words: MACs, parameters, and whatever else is limited."""
        more = [self.meters[name].shown(value) for name, value in cost.more.items()]
        return ", ".join([f"{cost.macs:,} MACs", f"{cost.params:,} parameters", *more])

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

    def usage_with(self, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> FloatArray:
        """(m,) `usage` of a (g,) structure if one group, the m-th of (m,) `groups`, has another of (m,) `widths`."""
        meters = ((self.meters[resource], limit) for resource, limit in self.limits)
        return np.max([meter.costs_with(structure, groups, widths) / limit for meter, limit in meters], axis=0)

    def tightened(self, share: float) -> FeasibleSet:
        """The set for a `share` in (0, 1] of every limit, or for the narrowest structure's cost if that is more."""
        lowest = self.cost(self.space.minimum)
        limits = {
            resource: max(self.meters[resource].amount(limit * share), lowest[resource])
            for resource, limit in self.limits
        }
        return self._under(limits)

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


BudgetOrSet: TypeAlias = Budget | FeasibleSet
"""What searchers take: limits as they are written, or resolved for the network."""

AnyBudget: TypeAlias = BudgetOrSet | str


def as_budget(given: AnyBudget, table: object = None) -> BudgetOrSet:
    """A budget as it is, also one that is resolved; a text is in the command line's form.

    Args:
        given: The budget.
        table: What latency is predicted from, or the path of its file, if the budget has none yet.

    Raises:
        TypeError: It is none of these.
        ValueError: The text cannot be read, or there are two tables, or one for a budget that is resolved.
    """
    if isinstance(given, str):
        return Budget.parse(given, table)
    if isinstance(given, FeasibleSet):
        if table is not None:
            raise ValueError("Expected no table, as the budget is resolved already; got one. Leave table= out.")
        return given
    if not isinstance(given, Budget):
        raise TypeError(f'Expected budget as Budget(macs="50%"), or as a text such as "macs=50%"; got {given!r}.')
    if table is None:
        return given
    if given.table is not None:
        raise ValueError("Expected one latency table, got two: the budget has its own. Leave table= out.")
    own = [each for each in given.resources if each.name not in RESOURCES]
    limits: dict[str, Any] = dict(given.limits)
    return Budget(table=table, resources=own, **limits)


def parse_limits(text: str) -> dict[str, str]:
    """The limits of `Budget.parse` as they are written, by resource.

    Raises:
        ValueError: An unknown resource, or one that is limited twice.
    """
    limits: dict[str, str] = {}
    for part in text.split(","):
        name, equals, limit = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            meant = f"macs={text.strip()}" if _LIMIT.fullmatch(text) else text.replace(":", "=") if ":" in text else ""
            hint = f' Did you mean "{meant}"?' if meant else ""
            raise ValueError(f'Expected a budget such as "macs=50%" or "macs=20M,params=1M", got {text!r}.{hint}')
        check_resource_name(name)
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


def _resolve(space: Space, metered: Metered, limit: str) -> float:
    """A limit as an absolute number.

    Raises:
        InfeasibleBudget: No structure meets it, or every one does.
        ValueError: Predictions are too uncertain to tell, or the network costs nothing of it.
    """
    name = metered.resource.name
    value, is_share = _parse(metered.resource, limit)
    low, high = metered.costs([space.minimum, space.full]).tolist()
    if high == 0:
        raise ValueError(
            f"Expected a limit on what the network costs; of {name} the unpruned network costs 0 "
            f"{metered.resource.unit}. Leave {name} out of the budget."
        )
    wanted = value * Fraction(high) if is_share else value
    absolute = metered.amount(int(wanted) if metered.resource.is_count else float(wanted))
    reached = (
        f"The space reaches from {low:,} to {high:,} {name}"
        if metered.resource.is_count
        else (f"The space is predicted to reach from {low:.3g} to {high:.3g} {metered.resource.unit}")
    )
    reached += f" ({100 * low / high:.1f}% to 100%). {getattr(metered.meter, 'remark', '')}".rstrip()
    problem = ""
    if absolute < low:
        meant = (
            f' Did you mean "{name}={limit}%"?' if metered.resource.is_count and not is_share and value < 100 else ""
        )
        problem = f"cannot be met. {reached} Raise the budget, or trace with a smaller min_channels or round_to.{meant}"
    elif absolute == 0:
        problem = f"leaves nothing. {reached} Raise the budget."
    elif absolute > high:
        problem = (
            f"is more than the unpruned network costs, so there is nothing to search for. {reached} Lower the budget."
        )
    if problem:
        sentence = f"A budget of {limit} ({metered.shown(absolute)}) {problem}"
        raise InfeasibleBudget(sentence, limit=absolute, reachable=(low, high), unit=name)
    error = 2 * metered.relative_error * absolute  # NaN, where nothing is known of it, is never too large
    if error > high - low:
        raise ValueError(
            f"The table of {name} is too noisy for a budget of {limit}: predictions are off by "
            f"{metered.relative_error:.0%} (one standard deviation), so by up to {metered.shown(error)}, and all "
            f"structures lie between {low:.3g} and {high:.3g}. Measure again while the machine is idle."
        )
    return absolute


def _shortest(resource: Resource, limit: Limit) -> str:
    """The shortest way to write a limit; of equally short ones a whole number, of the largest unit."""
    value, is_share = _parse(resource, limit)
    if is_share:
        return f"{_decimal(value * 100)}%"
    units = _SUFFIX if resource.is_count else {"": 1}
    forms = [f"{_decimal(value / size)}{suffix}" for suffix, size in reversed(units.items())]
    return min(forms, key=lambda form: (len(form), "." in form))


def _decimal(value: Fraction) -> str:
    """A fraction that decimals can write, written so."""
    return format(_EXACT.divide(Decimal(value.numerator), Decimal(value.denominator)), "f")


def _parse(resource: Resource, limit: Limit) -> tuple[Fraction, bool]:
    """Return (value, whether it is a share of the unpruned network); exact, so that 90% of 10 is 9."""
    counts = resource.is_count
    unit = "a count of at least 1" if counts else f"{resource.unit} above 0"
    expected = f'Expected {resource.name} as {unit} or a share such as "50%", got {limit!r}.'
    if isinstance(limit, str):
        match = _LIMIT.fullmatch(limit)
        if match is None or (not counts and match[2] in _SUFFIX and match[2]):
            raise ValueError(f"{expected} Counts may end in k, M or G." if counts else expected)
        number, suffix = Fraction(match[1]), match[2]
        if suffix == "%":
            if number <= 0:
                raise ValueError(expected)
            return number / 100, True
        value = number * _SUFFIX[suffix]
    elif isinstance(limit, bool) or not isinstance(limit, numbers.Real):
        raise TypeError(expected)
    elif not math.isfinite(limit):
        raise ValueError(expected)
    else:
        value = _as_fraction(limit)
    if value <= 0 or (value < 1 and counts):
        hint = f' Did you mean "{float(value * 100):g}%"?' if value > 0 else ""
        raise ValueError(expected + hint)
    return value, False


def _as_fraction(number: numbers.Real) -> Fraction:
    """A number as it is written, so that np.float32(4.7) is 4.7; a fraction that decimals cannot write as a float."""
    if isinstance(number, numbers.Rational):
        exact = Fraction(int(number.numerator), int(number.denominator))
        if pow(10, exact.denominator.bit_length(), exact.denominator) == 0:
            return exact
    return Fraction(str(number) if isinstance(number, np.floating) else repr(float(number)))
