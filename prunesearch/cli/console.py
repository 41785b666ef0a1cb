"""How commands print: text is text, whatever is in it, and `--json` is alone on stdout."""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, NoReturn, TextIO

from rich.console import Console
from rich.table import Table as _Table
from rich.text import Text

from prunesearch.plain_text import plain

_NO_LIMIT = 10_000
"""Columns; wider than any table."""


def _console(**settings: Any) -> Console:
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True, **settings)


stdout = _console()
stderr = _console(stderr=True)


class Table(_Table):
    """A table whose cells, headings and title are text as it is, never markup."""

    def __init__(self, *headings: str, title: str | None = None) -> None:
        super().__init__(title=None if title is None else _cell(title))
        for heading in headings:
            self.add_column(heading)

    def add_column(self, header: Any = "", *others: Any, **settings: Any) -> None:
        """Add a column with a heading."""
        super().add_column(_cell(str(header)), *others, **settings)

    def add_row(self, *cells: Any, **settings: Any) -> None:
        """Add a row."""
        super().add_row(*(_cell(str(cell)) for cell in cells), **settings)


def _cell(text: str) -> Text:
    return Text(plain(text).replace("\n", "\\n"))


def say(sentence: str, *, aside: bool = False) -> None:
    """Print a sentence as it is; what is no result goes to stderr."""
    (stderr if aside else stdout).print(plain(sentence))


def fail(sentence: str, *, status: int) -> NoReturn:
    """Say on stderr what went wrong, and end."""
    stderr.print(plain(f"error: {sentence}"), style="red")
    sys.exit(status)


class _Results:
    """Where results for programs go: stdout, from which all others can be kept away."""

    def __init__(self) -> None:
        self._file: Any = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Meanwhile what anything else prints, a model's code or a library's, goes to stderr."""
        before = sys.stdout
        before.flush()
        with _written_by_others_to_stderr() as kept, redirect_stdout(sys.stderr):
            self._file = kept or before
            try:
                yield
            finally:
                self._file.flush()
                self._file = None

    def write(self, text: str) -> None:
        """Print a result."""
        (self._file or sys.stdout).write(text)


@contextmanager
def _written_by_others_to_stderr() -> Iterator[TextIO | None]:
    """Let what does not go through Python, such as C, write to stderr; give stdout, None if it is no file of ours."""
    try:
        ours = sys.stdout.fileno()
        theirs = sys.stderr.fileno()
    except (OSError, ValueError):  # a notebook, or a test
        yield None
        return
    with os.fdopen(os.dup(ours), "w", encoding="utf-8") as kept:
        os.dup2(theirs, ours)
        try:
            yield kept
        finally:
            with suppress(
                AttributeError, OSError, TypeError
            ):  # what C has not written yet; Windows has no such library
                ctypes.CDLL(None).fflush(None)
            os.dup2(kept.fileno(), ours)


results = _Results()


def print_json(value: Any) -> None:
    """Print for programs."""
    results.write(json.dumps(_finite(value), indent=1, default=str, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """JSON has no infinity and nothing that is no number; they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def print_table(table: Table) -> None:
    """A table is never squeezed to fit: a narrow terminal wraps its lines, a pipe gets them whole."""
    wide = _console(width=_NO_LIMIT)
    _console(width=wide.measure(table).maximum).print(table)
