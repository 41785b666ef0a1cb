"""Questions: tables of plain values that say what a study or a training answers, and so what may continue it."""

from __future__ import annotations

import json
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


def plain(value: Any) -> Any:
    """A value as JSON has it; of what JSON does not know its text.

    Example:
        >>> plain((1, 2.5)), plain(dict)
        ([1, 2.5], "<class 'dict'>")
    """
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)


def named(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A part that has a name and options, as a question has it."""
    given = {"options": {option: plain(value) for option, value in sorted(options.items())}} if options else {}
    return {"name": name, **given}


def limits_of(budget: Any, *also: str) -> Any:
    """A budget of a question without what costs are predicted from and what else it says, but for the parts named.

    Example:
        >>> limits_of({"limits": {"latency_ms": "4"}, "by": ["table 12ab"], "lowered": {"latency_ms": 3.5}}, "lowered")
        {'limits': {'latency_ms': '4'}, 'lowered': {'latency_ms': 3.5}}
    """
    if not isinstance(budget, Mapping) or "limits" not in budget:
        return budget
    return {name: budget[name] for name in ("limits", *also) if name in budget}


def in_words(value: Any) -> str:
    """A field of a question in words.

    Example:
        >>> in_words({"limits": {"macs": "50%", "latency_ms": "4"}, "by": ["table 12ab"]})
        'macs=50%, latency_ms=4 by table 12ab'
        >>> in_words({"name": "evolution", "options": {"population": 20}}), in_words({"name": "random"})
        ('evolution(population=20)', 'random')
        >>> in_words({"description": "accuracy(metric=loss)", "parts": 8}), in_words(3)
        ('accuracy(metric=loss), race of 8 parts', '3')
    """
    if not isinstance(value, Mapping):
        return str(value)
    if "limits" in value:
        bases = [*(value.get("by") or ()), *(value.get("costs") or ())]
        by = f" by {' and '.join(map(str, bases))}" if bases else ""
        lowered = f", lowered to {_listed(value['lowered'], ' ')}" if value.get("lowered") else ""
        return f"{_listed(value['limits'], '=')}{by}{lowered}"
    if "description" in value:
        return str(value["description"]) + (f", race of {value['parts']} parts" if value.get("parts") else "")
    if "name" in value:
        rest = {name: each for name, each in value.items() if name not in ("name", "options")}
        options = f"({_listed(value['options'], '=')})" if value.get("options") else ""
        return f"{value['name']}{options}" + (f", {_listed(rest, ' ')}" if rest else "")
    return _listed(value, " ")


def _listed(values: Any, between: str) -> str:
    found = values.items() if isinstance(values, Mapping) else ()
    return ", ".join(f"{name}{between}{in_words(value)}" for name, value in found)
