"""Widths and costs of a network layer by layer, unpruned and as a study's winner has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunesearch.report.contents import StudyContents
from prunesearch.report.sensitivity import sensitivity
from prunesearch.structure import Space, Structure, Term, Width


@dataclass(frozen=True)
class LayerRow:
    """One convolution or linear layer.

    Attributes:
        name: Of the module.
        full: Output channels in the unpruned network; None where they are not known to the space.
        kept: Output channels in the winner.
        is_free: Whether any structure changes its outputs.
        macs_full: MACs per image in the unpruned network.
        macs: MACs per image in the winner.
        share_full: Of all MACs of the unpruned network.
        share: Of all MACs of the winner.
    """

    name: str
    full: int | None
    kept: int | None
    is_free: bool
    macs_full: int
    macs: int
    share_full: float
    share: float

    @property
    def kept_percent(self) -> float:
        """Output channels kept, in percent."""
        return 100.0 if not self.full or self.kept is None else round(100 * self.kept / self.full, 2)


@dataclass(frozen=True)
class GroupRow:
    """One group of coupled channels.

    Attributes:
        name: Of the group.
        members: The layers that get narrower with it.
        full: Unpruned width.
        kept: Width in each study's winner.
        saves: Share of all MACs that vanishes when it alone is at its narrowest.
        sensitivity: How much the score falls if it alone keeps half as much; None if that is not known.
        relative: That, as a share of the largest of all groups, from 0 to 1.
    """

    name: str
    members: tuple[str, ...]
    full: int
    kept: tuple[int, ...]
    saves: float
    sensitivity: float | None
    relative: float


def groups(studies: Sequence[StudyContents]) -> list[GroupRow]:
    """Widths of studies of one network that have a winner."""
    winners = [study.winner.structure for study in studies if study.winner is not None]
    space = studies[0].space
    saves = _alone(space)
    found = next(filter(None, (sensitivity(study) for study in studies)), None)
    largest = max(map(abs, found or ()), default=0.0) or 1.0
    return [
        GroupRow(
            name=group.name,
            members=group.members,
            full=group.width,
            kept=tuple(structure[i] for structure in winners),
            saves=saves[i],
            sensitivity=None if found is None else found[i],
            relative=0.0 if found is None else max(0.0, found[i]) / largest,
        )
        for i, group in enumerate(space.groups)
    ]


def _alone(space: Space) -> list[float]:
    """The share of all MACs that each group saves when it alone is at its narrowest."""
    full = max(1, space.cost(space.full).macs)
    narrowed = [(*space.full[:i], narrow, *space.full[i + 1 :]) for i, narrow in enumerate(space.minimum)]
    return [1 - space.cost(structure).macs / full for structure in narrowed]


def layers(space: Space, structure: Structure) -> list[LayerRow]:
    """Every layer that costs MACs, in the order of the network; one that runs twice is there once."""
    terms: dict[str, list[Term]] = {}
    for term in space.macs_terms:
        terms.setdefault(term.layer, []).append(term)
    before = {name: sum(_macs(space, term, space.full) for term in mine) for name, mine in terms.items()}
    after = {name: sum(_macs(space, term, structure) for term in mine) for name, mine in terms.items()}
    all_before, all_after = max(1, sum(before.values())), max(1, sum(after.values()))
    return [
        LayerRow(
            name=name,
            full=_outputs(space, mine[0], space.full),
            kept=_outputs(space, mine[0], structure),
            is_free=bool(mine[0].right.terms),
            macs_full=before[name],
            macs=after[name],
            share_full=before[name] / all_before,
            share=after[name] / all_after,
        )
        for name, mine in terms.items()
    ]


def _macs(space: Space, term: Term, structure: Structure) -> int:
    return term.coefficient * _width(space, term.left, structure) * _width(space, term.right, structure)


def _width(space: Space, width: Width, structure: Structure) -> int:
    return width.constant + sum(per_unit * (structure[i] // space.groups[i].unit) for i, per_unit in width.terms)


def _outputs(space: Space, term: Term, structure: Structure) -> int | None:
    """Output channels; a layer that was only counted, not traced, has all its MACs in the coefficient."""
    is_counted = not term.left.terms and not term.right.terms and term.left.constant == term.right.constant == 1
    return None if is_counted else _width(space, term.right, structure)
