"""What the values of options say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

NOBODY = "none"
"""As the only verifier: the winner is taken as it is."""
_SIZES = {True: "a count >= 1, such as 8", False: "a count >= 1, such as 4, or a fraction in (0, 1], such as 0.1"}
"""What sizes of layers may be: counts alone, or fractions, too."""


def number_of(option: str, text: Any, *, whole: bool, at_least: int | None = None) -> Any:
    """The number that a text is; what is one already stays.

    Raises:
        ValueError: It is none, or too small.
    """
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = None
    if number is None or math.isnan(number) or (at_least is not None and number < at_least):
        wanted = "a whole number" if whole else "a number"
        raise ValueError(f"Expected {option} as {wanted}{'' if at_least is None else f' >= {at_least}'}, got {text!r}.")
    return number


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


def entry_of(name: str, value: Any) -> str:
    """The `NAME=VALUE` that `named_options` reads as this value; of text as it is, unless it would be read as JSON."""
    if isinstance(value, str) and not _is_json(value):
        return f"{name}={value}"
    return f"{name}={json.dumps(value)}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def several_names(option: str, text: str) -> list[str]:
    """The names of `NAME,NAME`.

    Raises:
        ValueError: There are fewer than two, or one is empty.
    """
    names = text.split(",")
    if len(names) < 2 or not all(names):
        raise ValueError(f"Expected {option} as two names or more, such as conv1,conv2, got {text!r}.")
    return names


def sizes_by_name(option: str, entries: Sequence[str], *, whole: bool) -> dict[str, Any]:
    """`GLOB=NUMBER` entries as a table in which the entry without a glob, which is for all layers, comes last.

    Raises:
        ValueError: A number is none, or no size of a layer.
    """
    table: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda entry: "=" not in entry or entry.startswith("*=")):
        glob, _, text = entry.rpartition("=")
        try:
            size = int(text) if text.isdigit() or whole else float(text)
        except ValueError:
            size = 0
        if not (size >= 1 if isinstance(size, int) else 0 < size <= 1):
            raise ValueError(f"Expected {option} as {_SIZES[whole]}, alone or after 'GLOB=', got {entry!r}.")
        table[glob or "*"] = size
    return table
