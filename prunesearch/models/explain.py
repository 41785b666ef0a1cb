"""The preflight report: what a search over this network could and could not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prunesearch.html_table import html_table
from prunesearch.plain_text import about, shortened
from prunesearch.structure import Cost, Space

_HEAVIEST = 5


@dataclass(frozen=True)
class GroupLine:
    """One group of an `Explanation`.

    Attributes:
        name: The group's first producer.
        width: Channels in the unpruned network.
        widths: Allowed widths.
        members: Modules that get narrower with it.
        macs_share: Fraction of the network's MACs that vanishes when this group alone is at its narrowest.
    """

    name: str
    width: int
    widths: tuple[int, ...]
    members: tuple[str, ...]
    macs_share: float


@dataclass(frozen=True)
class LayerLine:
    """One layer of an `Explanation`, whether it is a module or a function that a forward calls.

    Attributes:
        name: Of the module; of an operator in the code of one, the module's name, `%` and its own.
        macs: Multiply-accumulates of one image in the unpruned network.
        least: The same in the narrowest structure.
        why: Why it keeps its width, or some of it; None if nothing keeps it.
    """

    name: str
    macs: int
    least: int
    why: str | None


@dataclass(frozen=True, repr=False)
class Explanation:
    """What `Network.explain` says; `print` shows it as a table, `as_dict` gives it to programs.

    Attributes:
        groups: One line per group.
        frozen: Layers that keep their width, and why.
        notes: What the caller should know.
        layers: Every layer that costs something or keeps its width, with the reason.
        heaviest: The layers with the most MACs in the unpruned network, and their fractions of all.
        structures: Number of structures in the space.
        full: Cost of the unpruned network.
        minimum: Cost of the narrowest structure.
    """

    groups: tuple[GroupLine, ...]
    frozen: Mapping[str, str]
    notes: tuple[str, ...]
    layers: tuple[LayerLine, ...]
    heaviest: tuple[tuple[str, float], ...]
    structures: int
    full: Cost
    minimum: Cost

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON."""
        return {**asdict(self), "full": self.full.amounts, "minimum": self.minimum.amounts}

    def __repr__(self) -> str:
        frozen = f"layers that keep their width: {len(self.frozen)}"
        heaviest = ", ".join(f"{shortened(layer, 60)} {share:.1%}" for layer, share in self.heaviest)
        lines = [self._summary, f"most MACs: {heaviest}", f"{frozen}; notes: {len(self.notes)}", "print it to see all"]
        return "\n  ".join(["Explanation", *lines])

    def _repr_html_(self) -> str:
        rows = [
            (line.name, line.width, f"{line.macs_share:.1%}", _allowed(line), _listed(line.members))
            for line in self.groups
        ]
        headings = ["group", "width", "MACs it can save", "allowed widths", "layers"]
        frozen = [f"{layer} keeps its width: {reason}" for layer, reason in self.frozen.items()]
        return html_table(headings, rows, [self._summary, *frozen, *self.notes])

    @property
    def _summary(self) -> str:
        return (
            f"{len(self.groups)} groups, {about(self.structures)} structures; "
            f"MACs {self.minimum.macs:,} to {self.full.macs:,} ({self.minimum.macs / self.full.macs:.1%} to 100%), "
            f"parameters {self.minimum.params:,} to {self.full.params:,} "
            f"({self.minimum.params / self.full.params:.1%} to 100%)"
        )

    def __str__(self) -> str:
        wide = max(len("group"), *(len(line.name) for line in self.groups))
        rows = [f"{'group':<{wide}}  {'width':>5}  {'saves':>6}  allowed widths; members"]
        for line in self.groups:
            rows.append(
                f"{line.name:<{wide}}  {line.width:>5}  {line.macs_share:>6.1%}  {_allowed(line)}; "
                f"{_listed(line.members)}"
            )
        rows += [
            f"layer {line.name}: {line.macs:,} MACs ({line.macs / self.full.macs:.1%}), at least {line.least:,}"
            for line in self.layers
            if line.macs
        ]
        rows += [f"frozen: {layer}: {reason}" for layer, reason in self.frozen.items()]
        rows += [f"note: {note}" for note in self.notes]
        rows.append("most MACs: " + ", ".join(f"{layer} {share:.1%}" for layer, share in self.heaviest))
        rows.append(self._summary)
        return "\n".join(rows)


def _allowed(line: GroupLine) -> str:
    return f"{line.widths[0]}..{line.widths[-1]} ({len(line.widths)})"


def _listed(names: Sequence[str], at_most: int = 4) -> str:
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def explain(space: Space, frozen: Mapping[str, str], notes: tuple[str, ...]) -> Explanation:
    """Describe a space."""
    alone = np.tile(np.array(space.full), (len(space.groups), 1))
    np.fill_diagonal(alone, space.minimum)
    full = space.cost(space.full)
    shares = 1.0 - space.macs(alone) / full.macs
    lines = tuple(
        GroupLine(group.name, group.width, group.widths, group.members, float(share))
        for group, share in zip(space.groups, shares, strict=True)
    )
    by_layer = sorted(space.layer_macs(space.full).items(), key=lambda item: -item[1])
    heaviest = tuple((layer, macs / full.macs) for layer, macs in by_layer[:_HEAVIEST])
    return Explanation(
        lines, dict(frozen), notes, _layers(space, frozen), heaviest, space.size, full, space.cost(space.minimum)
    )


def _layers(space: Space, frozen: Mapping[str, str]) -> tuple[LayerLine, ...]:
    costs, least = space.layer_macs(space.full), space.layer_macs(space.minimum)
    return tuple(
        LayerLine(name, costs.get(name, 0), least.get(name, 0), frozen.get(name) or _unchanged(name, costs, least))
        for name in dict.fromkeys((*costs, *frozen))
    )


def _unchanged(name: str, costs: Mapping[str, int], least: Mapping[str, int]) -> str | None:
    return "what it reads and what it makes stay" if costs[name] == least[name] else None
