"""Which channels can only be removed together: labels, ties and the record of every tensor they run through.

Each channel of each tensor carries a *label*. Operators tie labels: channels whose labels are tied stay or go
together. A frozen label always stays. What the walk over the network records here is all that slimming, masking,
costing and ranking need later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from prunesearch.models.forms import Share
from prunesearch.models.literals import Place
from prunesearch.models.recorded import Position
from prunesearch.structure import IntArray, Width


@dataclass(frozen=True)
class Cut:
    """A tensor of the model that is narrowed along one dimension.

    Attributes:
        tensor: Qualified name of the parameter or buffer.
        dim: The dimension.
        units: (size of the dimension,) unit of each of its entries.
    """

    tensor: str
    dim: int
    units: IntArray


@dataclass(frozen=True)
class Count:
    """A module attribute, such as `out_channels`, that must equal the number of kept channels.

    Attributes:
        module: Qualified name of the module.
        attribute: Name of the attribute; of an item in it with its position, as in `sizes.0`.
        units: Unit of each counted channel.
    """

    module: str
    attribute: str
    units: IntArray


@dataclass(frozen=True)
class Literal:
    """A number in the code of a forward that must equal the number of kept channels; see `models.literals`.

    Attributes:
        module: Qualified name of the module whose method holds it.
        place: Where in the code of that method.
        units: Unit of each counted channel.
    """

    module: str
    place: Place
    units: IntArray


@dataclass(frozen=True)
class Followed:
    """A number among the arguments of an operator that follows the number of kept channels.

    Attributes:
        node: Name of the operator's node in the recorded forward.
        position: The way to the number in its arguments.
        terms: What it is a sum of: the unit of each counted channel, and the share of their number.
        constant: What is added to that.
    """

    node: str
    position: Position
    terms: tuple[tuple[IntArray, Share], ...]
    constant: int = 0

    @property
    def units(self) -> IntArray:
        """The units of all channels that it depends on."""
        return np.concatenate([units for units, _ in self.terms])

    def number(self, kept: npt.NDArray[np.bool_]) -> int:
        """What it is where some of all units, (units,) of them, are kept."""
        return int(sum((share.ratio * int(kept[units].sum()) for units, share in self.terms), Fraction(self.constant)))


@dataclass(frozen=True)
class Read:
    """An operator that mixes channels, so that a removed one must not reach it.

    Attributes:
        place: Qualified name of the module, or of the node in the recorded forward (`walk.place`).
        dim: The dimension of its input that holds channels.
        units: (size of the dimension,) unit of each channel.
        macs: Multiply-accumulates of the operator in the unpruned network, of one image; 0 if it mixes without any, or
            in training only.
    """

    place: str
    dim: int
    units: IntArray
    macs: int = 0

    @property
    def is_layer(self) -> bool:
        """Whether it is a module, whose input can be seen from outside."""
        return "%" not in self.place


class Labels:
    """Channel labels: which of them are tied, and which must stay for what reason. Ties are solved when asked for."""

    def __init__(self) -> None:
        self._count = 0
        self._solved: IntArray = np.empty(0, dtype=np.int64)  # the unit of each label, by the ties up to then
        self._new_ties: list[tuple[IntArray, IntArray]] = []
        self._frozen: list[tuple[IntArray, str]] = []

    def fresh(self, n: int) -> IntArray:
        """(n,) new labels, tied to nothing."""
        self._count += n
        return np.arange(self._count - n, self._count)

    def tie(self, a: IntArray, b: IntArray) -> None:
        """Tie two (n,) arrays of labels, entry by entry."""
        if a.shape != b.shape:
            raise ValueError(f"Expected two arrays of labels of one length, got {len(a)} and {len(b)}.")
        if a is not b:
            self._new_ties.append((a, b))

    def count_alike(self, a: IntArray, b: IntArray) -> bool:
        """Whether as many of either stay whatever goes, by what is tied so far."""
        if len(a) != len(b):
            return False
        return _alike(self._by_earlier_ties(), a, b) or _alike(self.units(), a, b)  # the first mostly answers it

    def freeze(self, labels: IntArray, reason: str) -> None:
        """Make labels, and all that is or will be tied to them, stay for good; the first reason is kept."""
        self._frozen.append((labels, reason))

    def units(self) -> IntArray:
        """(labels,) the unit of each label: tied labels have the same, from 0."""
        before = self._by_earlier_ties()
        if self._new_ties:
            ends = tuple(before[np.concatenate(side)] for side in zip(*self._new_ties, strict=True))
            n = int(before.max()) + 1
            edges = coo_array((np.ones(len(ends[0]), dtype=np.bool_), ends), shape=(n, n))
            before = np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)[before]
        self._solved, self._new_ties = before, []
        return before

    def _by_earlier_ties(self) -> IntArray:
        """(labels,) their units if nothing had been tied since they were last asked for."""
        first = int(self._solved.max(initial=-1)) + 1
        return np.concatenate([self._solved, np.arange(first, first + self._count - len(self._solved))])

    def reasons(self) -> Sequence[tuple[IntArray, str]]:
        """Labels that must stay, and why, in the order in which it was found."""
        return tuple(self._frozen)


def _alike(units: IntArray, a: IntArray, b: IntArray) -> bool:
    return np.array_equal(np.sort(units[a]), np.sort(units[b]))


@dataclass(frozen=True)
class UnitGroup:
    """Units that are interchangeable: each runs through the same tensors the same number of times.

    Attributes:
        name: Producer of their channels; of several groups of one producer the second has `#2` behind it, and so on.
        per_unit: Channels of that producer in each unit.
        units: (units,) their ids, in the order of the producer's channels.
    """

    name: str
    per_unit: int
    units: IntArray

    @property
    def width(self) -> int:
        """Channels of the producer in all units together."""
        return self.per_unit * len(self.units)


class Units:
    """Labels after the walk: units, numbered from 0, and how they fall into groups."""

    def __init__(self, labels: Labels, producers: Iterable[tuple[str, IntArray]], uses: Iterable[IntArray]) -> None:
        self._unit_of = labels.units()
        self.count = int(self._unit_of.max(initial=-1)) + 1
        self._reasons, self._reason_of = self._first_reasons(labels)
        signatures = self._signatures(uses)
        self.groups: list[UnitGroup] = []
        self.frozen: dict[str, str] = {}
        self._group_of = np.full(self.count, -1)
        self._named: Counter[str] = Counter()  # how many groups have a name
        for name, produced in producers:
            self._add(name, self.ids(produced), signatures)

    def ids(self, labels: IntArray) -> IntArray:
        """(n,) units of (n,) labels."""
        return self._unit_of[labels]

    def groups_of(self, labels: IntArray) -> list[int]:
        """Indices of the groups that labels belong to."""
        return self.groups_with(self.ids(labels))

    def groups_with(self, units: IntArray) -> list[int]:
        """Indices of the groups that units belong to."""
        return [group for group in np.unique(self._group_of[units]).tolist() if group >= 0]

    def are_free(self, labels: IntArray) -> bool:
        """Whether all of some labels belong to groups."""
        return bool((self._group_of[self.ids(labels)] >= 0).all())

    def width(self, units: IntArray) -> Width:
        """The number of kept channels among `units`, as a function of a structure.

        Exact because every unit of a group has the same signature, hence the same number of channels here.
        """
        constant, *channels = np.bincount(self._group_of[units] + 1, minlength=1).tolist()
        return Width(constant, tuple((g, n // len(self.groups[g].units)) for g, n in enumerate(channels) if n))

    def _first_reasons(self, labels: Labels) -> tuple[list[str], IntArray]:
        """Every reason to stay, and per unit the index of the first that holds, or -1."""
        reasons: list[str] = []
        reason_of = np.full(self.count, -1)
        for frozen, reason in labels.reasons():
            units = self.ids(frozen)
            reason_of[units[reason_of[units] < 0]] = len(reasons)
            reasons.append(reason)
        return reasons, reason_of

    def _signatures(self, uses: Iterable[IntArray]) -> IntArray:
        """(units,) equal for two units if every use holds as many channels of the one as of the other."""
        signature = np.zeros(self.count, dtype=np.int64)
        distinct = 1
        for labels in uses:
            units, channels = np.unique(self.ids(labels), return_counts=True)
            _, refined = np.unique(signature[units] * (channels.max(initial=0) + 1) + channels, return_inverse=True)
            signature[units] = distinct + refined
            distinct += len(units)
        return signature

    def _add(self, name: str, units: IntArray, signatures: IntArray) -> None:
        frozen = self._reason_of[units]
        if (frozen >= 0).any():
            self.frozen.setdefault(name, self._reasons[frozen[frozen >= 0][0]])
        members, first, channels = np.unique(units, return_index=True, return_counts=True)
        order = np.argsort(first)
        members, channels = members[order], channels[order]
        free = (self._reason_of[members] < 0) & (self._group_of[members] < 0)
        members, channels = members[free], channels[free]
        for signature in dict.fromkeys(signatures[members].tolist()):
            alike = signatures[members] == signature
            self._group_of[members[alike]] = len(self.groups)
            self._named[name] += 1
            suffix = "" if self._named[name] == 1 else f"#{self._named[name]}"
            self.groups.append(UnitGroup(name + suffix, int(channels[alike][0]), members[alike]))
