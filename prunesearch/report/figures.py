"""Which figures a page has of studies whose scores can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from prunesearch.report.contents import StudyContents
from prunesearch.report.plot import Plot
from prunesearch.report.scores import history, score_against, score_against_latency, score_axis
from prunesearch.report.series import Series
from prunesearch.report.winners import accuracy_against, predicted_against_measured

COLOURS = 8
"""How many colours of series the style sheet has; further series begin again."""


def colours(studies: Sequence[StudyContents]) -> dict[str, int]:
    """A colour for each study."""
    return {study.name: i % COLOURS for i, study in enumerate(studies)}


def figures(studies: Sequence[StudyContents], colour: Mapping[str, int], group: int = 0) -> dict[str, list[Plot]]:
    """The figures of comparable studies, by section; those about which nothing is known are left out.

    Args:
        studies: Comparable ones.
        colour: Of each.
        group: Their number on the page, which makes names unique.
    """
    series = [Series(study, colour[study.name]) for study in studies if study.scored]
    if not series:
        return {"front": [], "history": [], "latency": []}
    score = score_axis(series)
    limited = dict.fromkeys(("macs", *(name for each in series for name in each.study.limits if name != "latency_ms")))
    sections: dict[str, list[Plot | None]] = {
        "front": [
            *(score_against(resource, series, score) for resource in limited),
            score_against_latency(series, score),
            accuracy_against(series, "macs"),
            accuracy_against(series, "ms"),
        ],
        "history": [history(series, score)],
        "latency": [predicted_against_measured(series)],
    }
    return {
        section: [replace(plot, name=f"{plot.name}-{group}", group=group) for plot in plots if plot is not None]
        for section, plots in sections.items()
    }
