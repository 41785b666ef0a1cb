"""How commands print."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

_NO_LIMIT = 10_000
"""Columns; wider than any table."""

stdout = Console(soft_wrap=True)
stderr = Console(stderr=True, soft_wrap=True)


def say(sentence: str, *, aside: bool = False) -> None:
    """Print a sentence as it is; what is no result goes to stderr."""
    (stderr if aside else stdout).print(sentence, markup=False, highlight=False)


def fail(sentence: str, *, status: int) -> NoReturn:
    """Say on stderr what went wrong, and end."""
    stderr.print(f"error: {sentence}", markup=False, highlight=False, style="red")
    sys.exit(status)


def print_json(value: Any) -> None:
    """Print for programs."""
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")  # rich would add colours where they are forced


def print_table(table: Table) -> None:
    """A table is never squeezed to fit: a narrow terminal wraps its lines, a pipe gets them whole."""
    wide = Console(width=_NO_LIMIT)
    Console(width=wide.measure(table).maximum, soft_wrap=True).print(table)
