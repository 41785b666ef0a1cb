"""What the values of options say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from prunesearch.registry import check_options

if TYPE_CHECKING:
    from prunesearch.study.events import Callback

_T = TypeVar("_T")


def ends(timeout: float | None, patience: int | None) -> list[Callback]:
    """The callbacks that end a search early, as options ask for."""
    from prunesearch.study.events import early_stopping, stop_after

    found: list[Callback] = []
    if timeout is not None:
        found.append(stop_after(timeout))
    if patience is not None:
        found.append(early_stopping(patience))
    return found


def width_rules(round_to: list[str] | None, min_channels: list[str] | None, ignore: list[str] | None) -> dict[str, Any]:
    """The options about widths as arguments of `trace`.

    Raises:
        ValueError: A number is none.
    """
    return {
        "round_to": _by_name("--round-to", round_to or ["1"], whole=True),
        "min_channels": _by_name("--min-channels", min_channels or ["0.1"], whole=False),
        "ignored_layers": ignore or (),
    }


def named_options(entries: list[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` entries as a table; values are JSON (`200`, `[1, 0.8]`), or else text.

    Raises:
        ValueError: An entry has no name.
    """
    table: dict[str, Any] = {}
    for entry in entries or ():
        name, equals, text = entry.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"Expected --option as NAME=VALUE, such as population=20, got {entry!r}.")
        try:
            table[name] = json.loads(text)
        except ValueError:
            table[name] = text
    return table


def settings(kind: type[_T], entries: list[str] | None) -> _T:
    """`NAME=VALUE` entries as a value of a dataclass of settings.

    Raises:
        TypeError: There is no such setting, or it is no number.
        ValueError: It is out of range.
    """
    given = named_options(entries)
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # it is one
    check_options(given, defaults, "method")
    return kind(**given)


def _by_name(option: str, entries: Sequence[str], *, whole: bool) -> dict[str, Any]:
    """`GLOB=NUMBER` entries as a table in which the entry without a glob, which is for all layers, comes last."""
    table: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda entry: "=" not in entry or entry.startswith("*=")):
        glob, _, text = entry.rpartition("=")
        try:
            table[glob or "*"] = int(text) if text.isdigit() or whole else float(text)
        except ValueError:
            wanted = "a count (8)" if whole else "a count (4) or a fraction (0.1)"
            raise ValueError(f"Expected {option} as {wanted}, or such after 'GLOB=', got {entry!r}.") from None
    return table
