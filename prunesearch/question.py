"""Questions: tables of plain values that say what a study or a training answers, and so what may continue it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(field, stored value, asked value) of every field that differs; what one side lacks is None there.

    Example:
        >>> list(differences({"seed": 0, "lr": 0.1}, {"seed": 1, "lr": 0.1}))
        [('seed', 0, 1)]
    """
    for field in dict.fromkeys((*asked, *stored)):
        if stored.get(field) != asked.get(field):
            yield field, stored.get(field), asked.get(field)


def innermost(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What `differences` gives, as far in as both values are tables.

    Example:
        >>> list(innermost({"recipe": {"epochs": 6, "lr": 0.1}}, {"recipe": {"epochs": 7, "lr": 0.1}}))
        [('epochs', 6, 7)]
    """
    for field, was, now in differences(stored, asked):
        both = isinstance(was, Mapping) and isinstance(now, Mapping)
        within = list(innermost(was, now)) if both else []
        yield from within or [(field, was, now)]
