"""What the values of options say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def named_options(option: str, entries: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` entries as a table; values are JSON (`200`, `[1, 0.8]`), or else text.

    Raises:
        ValueError: An entry has no name.
    """
    table: dict[str, Any] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"Expected {option} as NAME=VALUE, such as population=20, got {entry!r}.")
        try:
            table[name] = json.loads(text)
        except ValueError:
            table[name] = text
    return table


def sizes_by_name(option: str, entries: Sequence[str], *, whole: bool) -> dict[str, Any]:
    """`GLOB=NUMBER` entries as a table in which the entry without a glob, which is for all layers, comes last.

    Raises:
        ValueError: A number is none.
    """
    table: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda entry: "=" not in entry or entry.startswith("*=")):
        glob, _, text = entry.rpartition("=")
        try:
            table[glob or "*"] = int(text) if text.isdigit() or whole else float(text)
        except ValueError:
            wanted = "a count (8)" if whole else "a count (4) or a fraction (0.1)"
            raise ValueError(f"Expected {option} as {wanted}, or such after 'GLOB=', got {entry!r}.") from None
    return table
