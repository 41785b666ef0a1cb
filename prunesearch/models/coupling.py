"""Which channels can only be removed together: labels, ties and the record of every tensor they run through.

Each channel of each tensor carries a *label*. Operators tie labels (union-find): channels with the same label stay or
go together. A frozen label always stays. What the walk over the network records here is all that slimming, masking,
costing and ranking need later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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
        attribute: Name of the attribute.
        units: Unit of each counted channel.
    """

    module: str
    attribute: str
    units: IntArray


@dataclass(frozen=True)
class Read:
    """A module that mixes channels, so that a removed one must not reach it.

    Attributes:
        module: Qualified name of the module.
        dim: The dimension of its input that holds channels.
        units: (size of the dimension,) unit of each channel.
    """

    module: str
    dim: int
    units: IntArray


class Labels:
    """Union-find over channel labels, with reasons for those that must stay."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reason: dict[int, str] = {}

    def fresh(self, n: int) -> IntArray:
        """(n,) new labels, tied to nothing."""
        start = len(self._parent)
        self._parent.extend(range(start, start + n))
        return np.arange(start, start + n)

    def tie(self, a: IntArray, b: IntArray) -> None:
        """Tie two (n,) arrays of labels, entry by entry."""
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            low, high = sorted((self.root(x), self.root(y)))
            if low != high:
                self._parent[high] = low
                if high in self._reason:
                    self._reason.setdefault(low, self._reason.pop(high))

    def freeze(self, labels: IntArray, reason: str) -> None:
        """Make labels, and all that is tied to them, stay for good; the first reason is kept."""
        for label in labels.tolist():
            self._reason.setdefault(self.root(label), reason)

    def root(self, label: int) -> int:
        """The representative of a label."""
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def roots(self, labels: IntArray) -> IntArray:
        """(n,) representatives of (n,) labels."""
        return np.array([self.root(label) for label in labels.tolist()], dtype=np.int64)

    def reason(self, label: int) -> str | None:
        """Why a label must stay, or None if it may go."""
        return self._reason.get(self.root(label))


@dataclass(frozen=True)
class UnitGroup:
    """Units that are interchangeable: each runs through the same tensors the same number of times.

    Attributes:
        name: Producer of their channels.
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
    """Labels after the walk: consecutive unit ids, and how they fall into groups."""

    def __init__(self, labels: Labels, producers: Iterable[tuple[str, IntArray]], uses: Iterable[IntArray]) -> None:
        self._labels = labels
        self._ids: dict[int, int] = {}
        signatures = self._signatures(uses)
        self.groups: list[UnitGroup] = []
        self.frozen: dict[str, str] = {}
        self._group_of: dict[int, int] = {}
        for name, produced in producers:
            self._add(name, self.ids(produced), produced, signatures)

    @property
    def count(self) -> int:
        """How many units there are, frozen ones included."""
        return len(self._ids)

    def ids(self, labels: IntArray) -> IntArray:
        """(n,) unit ids of (n,) labels."""
        roots = self._labels.roots(labels).tolist()
        return np.array([self._ids.setdefault(root, len(self._ids)) for root in roots], dtype=np.int64)

    def width(self, units: IntArray) -> Width:
        """The number of kept channels among `units`, as a function of a structure.

        Exact because every unit of a group has the same signature, hence the same number of channels here.
        """
        channels = Counter(self._group_of.get(unit, -1) for unit in units.tolist())
        constant = channels.pop(-1, 0)
        return Width(constant, tuple((g, n // len(self.groups[g].units)) for g, n in sorted(channels.items())))

    def _signatures(self, uses: Iterable[IntArray]) -> dict[int, tuple[tuple[int, int], ...]]:
        collected: dict[int, list[tuple[int, int]]] = {}
        for index, labels in enumerate(uses):
            for unit, n in Counter(self.ids(labels).tolist()).items():
                collected.setdefault(unit, []).append((index, n))
        return {unit: tuple(entries) for unit, entries in collected.items()}

    def _add(
        self,
        name: str,
        units: IntArray,
        produced: IntArray,
        signatures: dict[int, tuple[tuple[int, int], ...]],
    ) -> None:
        channels = Counter(units.tolist())
        buckets: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for unit, label in zip(units.tolist(), produced.tolist(), strict=True):
            reason = self._labels.reason(label)
            if reason is not None:
                self.frozen.setdefault(name, reason)
            elif unit not in self._group_of:
                bucket = buckets.setdefault(signatures.get(unit, ()), [])
                if unit not in bucket[-1:]:
                    bucket.append(unit)
        for nth, bucket in enumerate(buckets.values(), 1):
            members = list(dict.fromkeys(bucket))
            self._group_of.update(dict.fromkeys(members, len(self.groups)))
            suffix = "" if nth == 1 else f"#{nth}"
            self.groups.append(UnitGroup(name + suffix, channels[members[0]], np.array(members)))
