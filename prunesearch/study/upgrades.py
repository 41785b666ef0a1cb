"""How what older releases stored as sentences, or in other places, becomes facts; used once for each file."""

from __future__ import annotations

import json
import re
from typing import Any

from prunesearch.budget import Budget
from prunesearch.structure import Space, space_from_dict

_SOURCE = re.compile(r"trial (\d+) of study (['\"])(.*)\2")
_TIMED = ("predicted_ms", "measured_ms", "low_ms", "high_ms", "slowdown")


def source_of(worker: str) -> str | None:
    """The trial of another study whose score was taken over, which version 4 named in place of the worker."""
    found = _SOURCE.fullmatch(worker)
    return None if found is None else json.dumps({"study": found[3], "trial": int(found[1])})


def facts_of(question: str, space: str, summary: str | None) -> tuple[str, dict[str, list[str]]]:
    """A study's summary as version 5 has it, and the costs of trials that it held, by the name of their study.

    What cannot be read stays as it is: readers check every fact, and anybody may have edited the database.
    """
    try:
        asked, stored = json.loads(question), json.loads(summary or "{}")
        facts = {**_limits(str(asked.get("budget", "")), space_from_dict(json.loads(space))), **stored}
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
