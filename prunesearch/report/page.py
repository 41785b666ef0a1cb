"""From a database of studies to one HTML file that works offline."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prunesearch.files import as_path, same_file, write_text
from prunesearch.latency_table import LatencyTable, as_table
from prunesearch.report import cards, layers, tables, trials
from prunesearch.report.contents import StudyContents, comparable, read
from prunesearch.report.figures import colours, figures
from prunesearch.report.layers import GroupRow, LayerRow
from prunesearch.report.loading import loading
from prunesearch.report.measure import Measure, measure_of
from prunesearch.report.plot import Plot
from prunesearch.study.database import Database, as_url, parse
from prunesearch.study.store import Store
from prunesearch.study.tables import listed

_ROWS = 25
"""Rows of the table of trials that are there without a script, and on paper."""
_TITLES = {
    "study": "Study",
    "number": "Trial",
    "score": "Score",
    "macs": "MACs",
    "params": "Parameters",
    "latency": "Predicted ms",
    "seconds": "Seconds",
    "searcher": "Searcher",
    "structure": "Structure",
}


@dataclass(frozen=True)
class Section:
    """What a page shows of studies whose scores can be compared.

    Attributes:
        studies: Those that have a winner.
        colours: Of each.
        figures: By the part of the page that has them.
        groups: Widths of all winners.
        measure: What scores are of.
        layers: (study, colour, its layers) of each.
        conditions: Under which latency was measured, in words, and the names of the studies.
    """

    studies: list[StudyContents]
    colours: list[int]
    figures: dict[str, list[Plot]]
    groups: list[GroupRow]
    measure: Measure
    layers: list[tuple[StudyContents, int, list[LayerRow]]]
    conditions: dict[str, list[str]]

    @property
    def is_sensitive(self) -> bool:
        """Whether sensitivities of groups are known."""
        return any(row.sensitivity is not None for row in self.groups)


def write_report(
    study: str | Path,
    out: str | Path,
    study_names: Sequence[str] | None = None,
    *,
    title: str | None = None,
    table: LatencyTable | str | Path | None = None,
) -> Path:
    """Write everything known of some studies as one HTML page that works offline; the database is only read.

    The page appears whole or not at all: on an error an older page at `out` stays as it was.

    Args:
        study: URL of the database, such as `"sqlite:///search.db"`, or the path of its file.
        out: The file to write; its folder must exist.
        study_names: The studies to report, in this order; all of the database by default.
        title: Of the page; by default it names the network, the data and the budget.
        table: What the latency of every trial is predicted from, a latency table or its file. A finished search under a
            latency budget has recorded its predictions, and needs none.

    Returns:
        The path of the page.

    Raises:
        ValueError: `out` cannot be a page, there is no study of a name, `study` is not the URL of a database, or the
            table is of none of the studies' networks.
        TypeError: The table or the names are something else.
        StudyUnreadable: The database cannot be read.
    """
    path = as_path(out)
    if path.is_dir():
        raise ValueError(f"Expected a file to write, got the folder {path}. Give for example {path / 'report.html'}.")
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"Expected a name that ends in .html, such as {path.stem}.html, got {path.name}.")
    if not path.parent.is_dir():
        raise ValueError(f"Expected a file in a folder that exists, got {path}. Make the folder {path.parent} first.")
    measured = as_table(table)
    study = as_url(study)
    database = parse(study)
    if database.path is not None and same_file(database.path, path):
        raise ValueError(f"{path} is the database of the studies, and would be lost. Name another file.")
    with closing(Store(study, create=False)) as store:
        studies = read(store, study_names, measured)
    page = render(studies, database.name, datetime.now(timezone.utc), title=title, url=_shown(database))
    write_text(path, page, errors="xmlcharrefreplace")  # lone surrogates have no UTF-8
    return path


def render(
    studies: Sequence[StudyContents],
    database: str,
    written: datetime,
    *,
    title: str | None = None,
    url: str | None = None,
) -> str:
    """Render the page.

    Args:
        studies: What it is about.
        database: File name of the database; the folder is nobody's business.
        written: Date of the page, in UTC.
        title: Of the page; by default it names the network, the data and the budget.
        url: Of the database, as it may be shown; that of a file by default.
    """
    environment = Environment(
        loader=PackageLoader("prunesearch.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["hash"] = _hash
    environment.filters["listed"] = listed
    groups = comparable(studies)
    colour = colours([study for study in studies if study.scored])
    sections = [_section(group, colour, i) for i, group in enumerate(groups) if any(study.scored for study in group)]
    shown = [found for study in studies if (found := cards.card(study)) is not None]
    address = url or f"sqlite:///{database}"
    page = environment.get_template("page.html").render(
        title=title or cards.title_of(list(studies)),
        database=database,
        written=written.strftime("%Y-%m-%d %H:%M UTC"),
        version=metadata.version("prunesearch"),
        style=_inlined(environment, "page.css"),
        script=_inlined(environment, "page.js"),
        studies=studies,
        groups=groups,
        sections=sections,
        cards=shown,
        question=tables.question(studies),
        notes=tables.notes(studies),
        followed=tables.followed(studies),
        comparison=tables.comparison(studies),
        loading=[(study.name, loading(study, address)) for study in studies if study.winner is not None],
        trials=trials.trials(groups),
        trial_columns=_trial_columns(studies),
        best_rows=trials.best_rows(groups, _ROWS),
    )
    return page.lstrip()


def _section(group: Sequence[StudyContents], colour: dict[str, int], number: int) -> Section:
    won = [study for study in group if study.scored]
    details = [
        (study, colour[study.name], layers.layers(study.space, study.winner.structure))
        for study in won
        if study.winner is not None
    ]
    mine = [colour[study.name] for study in won]
    conditions: dict[str, list[str]] = {}
    for study in won:
        if study.conditions:
            conditions.setdefault(tables.in_words(study.conditions), []).append(study.name)
    return Section(won, mine, figures(won, colour, number), layers.groups(won), measure_of(won[0]), details, conditions)


def _trial_columns(studies: Sequence[StudyContents]) -> dict[str, str]:
    has_latency = any(study.predicted_ms for study in studies)
    negated = dict.fromkeys(measure_of(study).name for study in studies if measure_of(study).is_negated)
    titles = {**_TITLES, "score": f"Score (minus {', '.join(negated)})"} if negated else _TITLES
    return {name: title for name, title in titles.items() if name != "latency" or has_latency}


def _shown(database: Database) -> str:
    """The URL to type: relative to the folder of a file, without the address of a server."""
    return f"sqlite:///{database.name}" if database.server is None else f"postgresql://USER@SERVER/{database.name}"


def _inlined(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _hash(text: Any) -> Markup:
    """What a Content-Security-Policy names an inlined text by."""
    return Markup(f"'sha256-{base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()}'")
