"""How what older releases stored as sentences, or in other places, becomes facts; used once for each file."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from prunesearch.budget import Budget
from prunesearch.question import named
from prunesearch.structure import Space, space_from_dict

_CALL = re.compile(r"(.+?)\((.*)\)")
_KEPT = re.compile(r"(.+) ([0-9a-f]{16})")
_RACE = re.compile(r"(.*), race=(\d+) parts")
_ACCURACY = re.compile(r"accuracy\(metric=(\w+), images=(\d+)")
_SOURCE = re.compile(r"trial (\d+) of study (['\"])(.*)\2")
_TIMED = ("predicted_ms", "measured_ms", "low_ms", "high_ms", "slowdown")


def source_of(worker: str) -> str | None:
    """The trial of another study whose score was taken over, which version 4 named in place of the worker."""
    found = _SOURCE.fullmatch(worker)
    return None if found is None else json.dumps({"study": found[3], "trial": int(found[1])})


def text_of(question: str) -> str:
    """A question as version 5 has it, as JSON; one that cannot be read stays as it is."""
    try:
        return json.dumps(question_of(json.loads(question)))
    except (AttributeError, TypeError, ValueError, RecursionError):
        return question


def question_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A question whose fields are nested, where version 4 had sentences."""
    nested = {"budget": _budget, "searcher": _named, "criterion": _criterion, "evaluator": _evaluator, "task": _task}
    return {
        field: nested[field](value) if field in nested and isinstance(value, str) else value
        for field, value in asked.items()
    }


def _budget(text: str) -> dict[str, Any] | str:
    limits, by, table = text.partition(" by ")
    pairs = [part.partition("=") for part in limits.split(", ")]
    if not all(equals for _, equals, _ in pairs):  # no budget of ours
        return text
    return {"limits": {name: limit for name, _, limit in pairs}, **({"by": [table]} if by else {})}


def _named(text: str) -> dict[str, Any]:
    """A name and its options, as in `evolution(population=20, settings={'a': 1})`."""
    found = _CALL.fullmatch(text)
    if found is None:
        return {"name": text}
    return named(found[1], dict(_options(found[2])))


def _options(text: str) -> Iterator[tuple[str, Any]]:
    depth, start, parts = 0, 0, []
    for place, letter in enumerate(f"{text},"):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    for part in filter(None, parts):
        name, _, value = part.partition("=")
        try:
            yield name, ast.literal_eval(value)
        except (SyntaxError, ValueError):
            yield name, value


def _criterion(text: str) -> dict[str, Any]:
    found = _KEPT.fullmatch(text)
    return _named(text) if found is None else {**_named(found[1]), "kept": found[2]}


def _evaluator(text: str) -> dict[str, Any]:
    found = _RACE.fullmatch(text)
    return {"description": text} if found is None else {"description": found[1], "parts": int(found[2])}


def _task(text: str) -> dict[str, Any]:
    name, *rest = text.split(", ")
    return {"name": name, **dict(part.rpartition(" ")[::2] for part in rest)}


def _scoring(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What scores were made by, as far as the sentences of a question say it."""
    evaluator = str(asked.get("evaluator", ""))
    found, race = _ACCURACY.match(evaluator), _RACE.fullmatch(evaluator) is not None
    names = {"criterion": asked.get("criterion"), "weight_source": asked.get("weight_source")}
    facts: dict[str, Any] = {name: value for name, value in names.items() if re.fullmatch(r"[a-z0-9_]+", str(value))}
    if evaluator:
        facts |= {"evaluator": evaluator.partition("(")[0], "race": race}
    if found is not None:
        facts |= {"metric": found[1], "measures": found[1], "images": int(found[2])}
    return facts


def facts_of(question: str, space: str, summary: str | None) -> tuple[str, dict[str, list[str]]]:
    """A study's summary as version 5 has it, and the costs of trials that it held, by the name of their study.

    What cannot be read stays as it is: readers check every fact, and anybody may have edited the database.
    """
    try:
        asked, stored = json.loads(question), json.loads(summary or "{}")
        limits = _limits(str(asked.get("budget", "")), space_from_dict(json.loads(space)))
        facts = {"scoring": _scoring(asked), **limits, **stored}
        if isinstance(facts.get("notes"), list):
            facts["notes"] = [{"kind": "scores", "said": note} for note in facts["notes"] if isinstance(note, str)]
        return json.dumps(_without_latency(facts)), _costs(stored)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return summary or "{}", {}


def _limits(budget: str, space: Space) -> dict[str, Any]:
    """Absolute limits, of those that follow from the space alone, and what the unpruned network costs."""
    exact = [part for part in budget.partition(" by table ")[0].split(", ") if not part.startswith("latency_ms")]
    facts: dict[str, Any] = {"unpruned": space.cost(space.full).amounts}
    try:
        return {"limits": dict(Budget.parse(",".join(exact)).check(space).limits), **facts}
    except ValueError:  # only latency is limited, or it is no budget of ours
        return facts


def _without_latency(facts: dict[str, Any]) -> dict[str, Any]:
    """Verdicts and rounds in place of what version 4 kept of a search under a latency budget."""
    latency = facts.get("latency")
    if not isinstance(latency, dict):
        return facts
    rest = {name: value for name, value in facts.items() if name != "latency"}
    limit, attempts = latency.get("limit_ms"), latency.get("attempts", [])
    common = {name: latency.get(name) for name in ("table", "conditions", "expected_error")}
    verdicts = [
        {
            "verifier": "latency",
            "structure": each["structure"],
            "holds": each["measured_ms"] <= limit,
            "said": "",
            "limits": {},
            "shortfall": max(0.0, each["measured_ms"] / limit - 1),
            "facts": {**{name: each.get(name) for name in _TIMED}, "limit_ms": limit, **common},
        }
        for each in attempts
        if isinstance(limit, (int, float))
    ]
    found = {
        "limits": {**facts.get("limits", {}), "latency_ms": limit},
        "unpruned": {**facts.get("unpruned", {}), "latency_ms": latency.get("full_ms")},
        "winner": latency.get("winner"),
        "rounds": [{"study": name, "limits": {}} for name in latency.get("rounds", [])],
        "verdicts": verdicts,
    }
    return {**found, **{name: rest[name] for name in rest if name not in ("limits", "unpruned")}} | {
        name: rest[name] for name in ("rounds", "verdicts") if name in rest
    }


def _costs(stored: dict[str, Any]) -> dict[str, list[str]]:
    """Predicted latency of the trials of each round, which version 4 kept beside them."""
    latency = stored.get("latency")
    predicted = latency.get("predicted_ms", {}) if isinstance(latency, dict) else {}
    return {name: [json.dumps({"latency_ms": ms}) for ms in values] for name, values in predicted.items()}
