"""From a database of studies to one HTML file that works offline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from prunesearch.report import figures, tables
from prunesearch.report.contents import StudyContents, by_network, read
from prunesearch.study.database import parse
from prunesearch.study.store import Store


def write_report(url: str, out: str | Path, names: Sequence[str] | None = None) -> Path:
    """Write everything known of some studies as one HTML page that works offline; the database is only read.

    The page appears whole or not at all: on an error an older page at `out` stays as it was.

    Args:
        url: Of the database, such as `"sqlite:///search.db"`.
        out: The file to write; its folder must exist.
        names: The studies to report, in this order; all of the database by default.

    Returns:
        The path of the page.

    Raises:
        ValueError: `out` cannot be a file, there is no study of a name, or `url` is not one of a database.
        StudyUnreadable: The database cannot be read.
    """
    path = Path(out)
    if path.is_dir():
        raise ValueError(f"Expected a file to write, got the folder {path}. Give for example {path / 'report.html'}.")
    if not path.parent.is_dir():
        raise ValueError(f"Expected a file in a folder that exists, got {path}. Make the folder {path.parent} first.")
    with closing(Store(url, create=False)) as store:
        studies = read(store, names)
    _write(path, render(studies, parse(url).name, datetime.now(timezone.utc)))
    return path


def render(studies: Sequence[StudyContents], database: str, written: datetime) -> str:
    """Render the page.

    Args:
        studies: What it is about.
        database: File name of the database; the folder is nobody's business.
        written: Date of the page, in UTC.
    """
    environment = Environment(
        loader=PackageLoader("prunesearch.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    won = [study for study in studies if study.scored]
    best = max(won, key=lambda study: max(score for _, score in study.scored), default=None)
    colour = figures.colours(won)
    return environment.get_template("page.html").render(
        database=database,
        written=written.strftime("%Y-%m-%d %H:%M UTC"),
        versions={name: metadata.version(name) for name in ("prunesearch", "plotly")},
        studies=studies,
        question=tables.question(studies),
        comparison=tables.comparison(studies),
        history=figures.as_html(figures.history(won, colour), "history"),
        scatter=figures.as_html(figures.score_against_macs(won, colour), "scatter"),
        networks=[
            (group, figures.as_html(figures.kept_widths(group, colour), f"widths-{i}"), tables.widths(group))
            for i, group in enumerate(by_network(won))
        ],
        best=best,
        arguments=tables.arguments(best, database) if best else {},
        trials=tables.trials(studies),
        plotly_js=Markup(get_plotlyjs()),
    )


def _write(path: Path, page: str) -> None:
    """Write beside the target, then rename: a rename within a folder is atomic."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")  # lone surrogates have no UTF-8
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
