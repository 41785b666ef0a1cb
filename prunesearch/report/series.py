"""One study in the figures, and what several have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunesearch.report.contents import StudyContents


@dataclass(frozen=True)
class Series:
    """One study in the figures.

    Attributes:
        study: Which.
        colour: Its colour, the same in every figure of a page.
    """

    study: StudyContents
    colour: int


def legend_of(series: Sequence[Series]) -> tuple[tuple[str, int | None, str], ...]:
    """A line of the legend for each."""
    return tuple(("dot", each.colour, each.study.name) for each in series)


def first_known(series: Sequence[Series], key: str) -> float | None:
    """A number of the first summary that has it."""
    return next((value for each in series if (value := each.study.number(key)) is not None), None)
