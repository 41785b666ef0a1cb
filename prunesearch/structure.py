"""What may be pruned and what any choice costs: groups, structures, the space and its exact cost.

Numpy only. `models.trace` derives a `Space` from a network once; from then on the cost of one structure, or of
millions, follows from integers.

Letters used for shapes throughout the package: `g` groups, `p` structures in a batch, `l` layers, `n` images,
`c` channels, `h w` space.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Structure: TypeAlias = tuple[int, ...]
"""Kept channels per group, aligned with `Space.groups`: how many, never which."""

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]

_EXACT_FLOAT = 2**53  # integers up to here are exact in float64, where matrix products are fast
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together: a producer, its BatchNorm, a residual stream, every consumer.

    Attributes:
        name: The module that produces the channels first.
        width: Channels of that module in the unpruned network.
        unit: How many of them go at a time; 1 except where a grouped convolution ties several.
        widths: Allowed kept widths, ascending, multiples of `unit`; the last one is `width`.
        members: Every module that loses channels when the group is narrowed.
    """

    name: str
    width: int
    unit: int
    widths: tuple[int, ...]
    members: tuple[str, ...]

    @property
    def units(self) -> int:
        """Number of separately removable units in the unpruned network."""
        return self.width // self.unit


@dataclass(frozen=True)
class Width:
    """The width of one tensor dimension as an affine function of a structure.

    Attributes:
        constant: Channels that are always there.
        terms: Pairs (group index, channels per kept unit of that group).
    """

    constant: int
    terms: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Term:
    """One addend of a cost: `coefficient * left * right`.

    A convolution's MACs are (kernel elements x output positions) x input channels x output channels; a BatchNorm's
    weight is 1 x its channels x 1. Every cost we count has this form, so a whole network's is a quadratic form.
    """

    layer: str
    coefficient: int
    left: Width
    right: Width


@dataclass(frozen=True)
class Cost:
    """What one structure costs per image.

    Attributes:
        macs: Multiply-accumulates, each counted once: of convolutions, linear layers and matrix products. Exact.
        params: Parameters, every one of the network's. Exact.
        more: Of other resources, by name, where a budget limits them, such as `{"latency_ms": 3.2}`.
    """

    macs: int
    params: int
    more: Mapping[str, float] = field(default_factory=dict, repr=False, hash=False)

    def __getitem__(self, resource: str) -> float:
        """The cost of one resource, by its name.

        Raises:
            KeyError: It is not known.
        """
        return self.amounts[resource]

    @property
    def amounts(self) -> dict[str, float]:
        """What is known of it, by the names of resources."""
        return {"macs": self.macs, "params": self.params, **self.more}


@dataclass(frozen=True, repr=False)
class Space:
    """Every structure one traced network can take, and the integers from which their costs follow.

    Attributes:
        groups: What can be narrowed, in the order the network runs.
        macs_terms: Addends of the MACs of one image.
        params_terms: Addends of the number of parameters.

    Example:
        >>> stem = Group("stem", width=16, unit=1, widths=(4, 8, 12, 16), members=("stem", "head"))
        >>> kept, rgb, ten = Width(0, ((0, 1),)), Width(3), Width(10)
        >>> space = Space(
        ...     groups=(stem,),
        ...     macs_terms=(Term("stem", 9 * 32 * 32, rgb, kept), Term("head", 1, kept, ten)),
        ...     params_terms=(Term("stem.weight", 9, rgb, kept), Term("head.weight", 1, kept, ten)),
        ... )
        >>> space.cost((8,))
        Cost(macs=221264, params=296)
    """

    groups: tuple[Group, ...]
    macs_terms: tuple[Term, ...]
    params_terms: tuple[Term, ...]

    def __repr__(self) -> str:
        low, high = self.cost(self.minimum), self.cost(self.full)
        macs, params = f"MACs {low.macs:,} to {high.macs:,}", f"parameters {low.params:,} to {high.params:,}"
        return f"Space({len(self.groups)} groups, {macs}, {params})"

    @cached_property
    def full(self) -> Structure:
        """The unpruned structure."""
        return tuple(group.width for group in self.groups)

    @cached_property
    def minimum(self) -> Structure:
        """The narrowest structure; no other costs less."""
        return tuple(group.widths[0] for group in self.groups)

    @cached_property
    def size(self) -> int:
        """How many structures there are."""
        return math.prod(len(group.widths) for group in self.groups)

    @cached_property
    def choices(self) -> IntArray:
        """(g,) number of allowed widths of each group."""
        return np.array([len(group.widths) for group in self.groups], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything in the space; equal for equal spaces, in any process."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()[:16]

    def check(self, structure: Sequence[int]) -> Structure:
        """Return `structure` as a `Structure`, or say what is wrong with it.

        Raises:
            ValueError: Wrong length, or a width its group does not allow.
            TypeError: A width is no whole number.
        """
        try:
            checked = tuple(index(width) for width in structure)
        except TypeError:
            said = f"Expected one whole width per group ({len(self.groups)}), got {structure!s:.80}."
            raise TypeError(said) from None
        if len(checked) != len(self.groups):
            raise ValueError(f"Expected one width per group ({len(self.groups)}), got {len(checked)}: {checked}.")
        for group, width in zip(self.groups, checked, strict=True):
            if width not in group.widths:
                raise ValueError(
                    f"Group {group.name!r} allows the widths {_shorten(group.widths)}, got {width}. "
                    "Choose one of them, or trace with another round_to or min_channels."
                )
        return checked

    def cost(self, structure: Sequence[int]) -> Cost:
        """Cost of one structure, exact; checks the structure first."""
        return self.cost_as_built(self.check(structure))

    def cost_as_built(self, structure: Structure) -> Cost:
        """Cost of a network of these widths, exact; whether a search may choose them is not checked."""
        row = np.array([structure], dtype=np.int64).reshape(1, len(self.groups))
        return Cost(macs=int(self.macs(row)[0]), params=int(self.params(row)[0]))

    def macs(self, structures: npt.ArrayLike) -> IntArray:
        """(p,) exact MACs of (p, g) structures; widths are not checked."""
        return self._macs_form.evaluate(self._units(structures))

    def params(self, structures: npt.ArrayLike) -> IntArray:
        """(p,) exact parameter counts of (p, g) structures; widths are not checked."""
        return self._params_form.evaluate(self._units(structures))

    def costs_with(self, resource: str, structure: npt.ArrayLike, groups: IntArray, widths: IntArray) -> IntArray:
        """(m,) exact costs of a structure in each of which one group, the m-th of `groups`, has another width.

        As `macs` or `params` of these m structures, in far less time.

        Args:
            resource: `"macs"` or `"params"`.
            structure: (g,) what they all are otherwise.
            groups: (m,) indices of groups.
            widths: (m,) the width of each; not checked.
        """
        return self._form(resource).evaluate_with(
            self._units(np.asarray(structure)[None])[0], groups, widths // self._unit[groups]
        )

    def quadratic(self, resource: str) -> FloatArray:
        """(1 + g, 1 + g) matrix A of non-negative coefficients with cost = [1, x] A [1, x], x the kept fractions.

        Args:
            resource: `"macs"` or `"params"`.
        """
        full = np.array([1, *(group.units for group in self.groups)], dtype=np.float64)
        return self._form(resource).coefficients() * np.outer(full, full)

    def layer_macs(self, structure: Sequence[int]) -> dict[str, int]:
        """MACs of each layer at one structure, in the order the network runs."""
        return _by_layer(self.macs_terms, self.check(structure), self.groups)

    def indices(self, structures: npt.ArrayLike) -> IntArray:
        """(p, g) position of each width among its group's allowed widths; a width between two counts as the lower."""
        array = self._matrix(structures)
        widths = np.clip(array, 0, np.array(self.full)).astype(np.int64)  # rounds down
        return self._positions[np.arange(len(self.groups)), widths]

    def from_indices(self, indices: npt.ArrayLike) -> IntArray:
        """(p, g) widths for (p, g) positions among the allowed widths; the inverse of `indices`."""
        return self._widths[np.arange(len(self.groups)), self._matrix(indices).astype(np.int64)]

    def sample(self, rng: np.random.Generator, p: int) -> IntArray:
        """(p, g) structures, each width drawn uniformly from its group's allowed widths."""
        return self.from_indices(rng.integers(0, self.choices, size=(p, len(self.groups))))

    @cached_property
    def _unit(self) -> IntArray:
        return np.array([group.unit for group in self.groups], dtype=np.int64)

    @cached_property
    def _widths(self) -> IntArray:
        """(g, most choices) allowed widths; a group with fewer repeats its widest."""
        table = np.repeat(np.array(self.full, dtype=np.int64)[:, None], self.choices.max(initial=0), axis=1)
        for row, group in zip(table, self.groups, strict=True):
            row[: len(group.widths)] = group.widths
        return table

    @cached_property
    def _positions(self) -> IntArray:
        """(g, widest + 1) what `indices` says of every width, looked up as it is asked for thousands of times."""
        widths = np.arange(max(self.full, default=0) + 1)
        rows = [np.searchsorted(group.widths, widths, side="right") - 1 for group in self.groups]
        return np.maximum(np.array(rows, dtype=np.int64).reshape(len(self.groups), len(widths)), 0)

    def _matrix(self, values: npt.ArrayLike) -> npt.NDArray[Any]:
        array = np.asarray(values)
        if array.ndim != 2 or array.shape[1] != len(self.groups):
            raise ValueError(f"Expected an array of shape (p, {len(self.groups)}), got {array.shape}.")
        return array

    def _units(self, structures: npt.ArrayLike) -> IntArray:
        return self._matrix(structures).astype(np.int64) // self._unit

    def _form(self, resource: str) -> _QuadraticForm:
        return {"macs": self._macs_form, "params": self._params_form}[resource]

    @cached_property
    def _macs_form(self) -> _QuadraticForm:
        return _QuadraticForm.of(self.macs_terms, self.groups)

    @cached_property
    def _params_form(self) -> _QuadraticForm:
        return _QuadraticForm.of(self.params_terms, self.groups)


def space_from_dict(facts: Mapping[str, Any]) -> Space:
    """Return the space that `dataclasses.asdict` turned into `facts`; JSON's lists become tuples again.

    Example:
        >>> stem = Group("stem", width=4, unit=1, widths=(2, 4), members=("stem",))
        >>> space = Space((stem,), macs_terms=(Term("stem", 9, Width(3), Width(0, ((0, 1),))),), params_terms=())
        >>> space_from_dict(dataclasses.asdict(space)) == space
        True
    """
    return Space(
        groups=tuple(
            Group(group["name"], group["width"], group["unit"], tuple(group["widths"]), tuple(group["members"]))
            for group in facts["groups"]
        ),
        macs_terms=tuple(_term_from(term) for term in facts["macs_terms"]),
        params_terms=tuple(_term_from(term) for term in facts["params_terms"]),
    )


def _term_from(term: Mapping[str, Any]) -> Term:
    return Term(term["layer"], term["coefficient"], _width_from(term["left"]), _width_from(term["right"]))


def _width_from(width: Mapping[str, Any]) -> Width:
    return Width(width["constant"], tuple((group, per_unit) for group, per_unit in width["terms"]))


class _QuadraticForm:
    """The sum of all terms as `u^T Q u`, u = (1, units kept of every group): one matrix product for any batch."""

    def __init__(self, matrix: npt.NDArray[Any]) -> None:
        self._matrix = matrix

    @classmethod
    def of(cls, terms: Iterable[Term], groups: Sequence[Group]) -> _QuadraticForm:
        size = len(groups) + 1
        exact = np.zeros((size, size), dtype=object)  # Python integers: no overflow while summing
        for term in terms:
            for i, left in _entries(term.left):
                for j, right in _entries(term.right):
                    exact[i, j] += term.coefficient * left * right
        full = np.array([1, *(group.units for group in groups)], dtype=object)
        largest = int(full @ exact @ full)
        if largest < _EXACT_FLOAT:
            return cls(exact.astype(np.float64))
        return cls(exact.astype(np.int64) if largest < 2**63 else exact)

    def coefficients(self) -> FloatArray:
        return self._matrix.astype(np.float64)

    def evaluate(self, units: IntArray) -> IntArray:
        values = np.empty(len(units), dtype=np.int64)
        for start in range(0, len(units), _ROWS_AT_ONCE):
            rows = units[start : start + _ROWS_AT_ONCE]
            u = np.concatenate([np.ones((len(rows), 1), dtype=np.int64), rows], axis=1).astype(self._matrix.dtype)
            # every product and partial sum is at most the value at full width, so float64 stays exact
            values[start : start + _ROWS_AT_ONCE] = ((u @ self._matrix) * u).sum(axis=1)
        return values

    def evaluate_with(self, units: IntArray, groups: IntArray, changed: IntArray) -> IntArray:
        """(m,) values at (g,) units of which one, that of the m-th of `groups`, is `changed` to another number."""
        exact = self._matrix if self._matrix.dtype == object else self._matrix.astype(np.int64)
        u = np.concatenate([[1], units]).astype(exact.dtype)
        slopes = (exact + exact.T) @ u
        more = changed - units[groups]
        values: IntArray = u @ exact @ u + more * (slopes[1:][groups] + more * exact.diagonal()[1:][groups])
        return values.astype(np.int64)  # sums that overflow on the way are right again at the end


def _entries(width: Width) -> list[tuple[int, int]]:
    constant = [(0, width.constant)] if width.constant else []
    return constant + [(group + 1, per_unit) for group, per_unit in width.terms]


def _value(width: Width, structure: Structure, groups: Sequence[Group]) -> int:
    return width.constant + sum(structure[i] // groups[i].unit * per_unit for i, per_unit in width.terms)


def _by_layer(terms: Iterable[Term], structure: Structure, groups: Sequence[Group]) -> dict[str, int]:
    total: dict[str, int] = {}
    for term in terms:
        value = term.coefficient * _value(term.left, structure, groups) * _value(term.right, structure, groups)
        total[term.layer] = total.get(term.layer, 0) + value
    return total


def _shorten(widths: Sequence[int]) -> str:
    return str(tuple(widths)) if len(widths) <= 6 else f"({widths[0]}, {widths[1]}, ..., {widths[-1]})"
