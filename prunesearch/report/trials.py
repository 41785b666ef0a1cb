"""Every trial of a page: the data for its script, and the rows that are there without it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

from prunesearch.report.contents import StudyContents
from prunesearch.trial import Trial

_COLUMNS = (
    "study",
    "number",
    "structure",
    "macs",
    "params",
    "latency",
    "score",
    "failure",
    "seconds",
    "searcher",
)


def sources(groups: Sequence[Sequence[StudyContents]]) -> list[dict[str, Any]]:
    """The studies of the database by the names that trials go by: which study of a page, and which figures have it."""
    return [
        {"name": name, "study": study.name, "group": number}
        for number, group in enumerate(groups)
        for study in group
        for name, _ in study.rounds or ((study.name, len(study.trials)),)
    ]


def trials(groups: Sequence[Sequence[StudyContents]]) -> dict[str, Any]:
    """Every trial, in the form in which the page's script reads it."""
    rows: list[list[Any]] = []
    source = 0
    for study in (study for group in groups for study in group):
        latency = iter(study.predicted_ms)
        remaining = iter(study.trials)
        for _, length in study.rounds or ((study.name, len(study.trials)),):
            for trial in islice(remaining, length):
                rows.append([source, *_cells(trial, next(latency, math.nan))])
            source += 1
    names = list(dict.fromkeys(str(row[-1]) for row in rows))
    for row in rows:
        row[-1] = names.index(row[-1])
    return {"columns": list(_COLUMNS), "sources": sources(groups), "searchers": names, "trials": rows}


def best_rows(groups: Sequence[Sequence[StudyContents]], most: int) -> list[dict[str, Any]]:
    """The first rows of the table of trials as the page is opened; the script does the others."""
    data = trials(groups)
    score = _COLUMNS.index("score")
    order = sorted(data["trials"], key=lambda row: (row[score] is None, 0.0 if row[score] is None else -row[score]))
    rows = [dict(zip(_COLUMNS, row, strict=True)) for row in order[:most]]
    names = {"study": [source["name"] for source in data["sources"]], "searcher": data["searchers"]}
    return [{**row, **{column: known[row[column]] for column, known in names.items()}} for row in rows]


def _cells(trial: Trial, latency: float) -> tuple[Any, ...]:
    return (
        trial.number,
        trial.structure,
        trial.cost.macs,
        trial.cost.params,
        None if math.isnan(latency) else round(latency, 6),
        trial.score,
        trial.failure,
        round(trial.seconds, 4),
        trial.searcher,
    )
