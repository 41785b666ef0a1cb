"""Facts that followed a study, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunesearch.shares import is_share
from prunesearch.study.store import Fact


def told(fact: Fact) -> str:
    """A fact in a line; of a kind that is not known what is in it.

    Example:
        >>> told(Fact("finetuned", "", {"metric": "accuracy", "before": 0.5, "reached": 0.75, "epochs": 3}))
        'finetuned for 3 epochs: validation accuracy 50.00% before, 75.00% now'
    """
    value = fact.value
    if fact.kind == "finetuned":
        epochs = value.get("epochs")
        begun = f"finetuned for {epochs} epoch{'' if epochs == 1 else 's'}"
        found = [part for part in (_reached("validation", value, value), _tested(value)) if part]
        return f"{begun}: {'; '.join(found)}" if found else begun
    if fact.kind == "measured" and isinstance(value.get("costs"), dict):
        costs = [(name, each) for name, each in value["costs"].items() if isinstance(each, dict)]
        return f"measured: {', '.join(f'{name} {_amount(each)}' for name, each in costs)}"
    if fact.kind == "file":
        return f"written to {value.get('file')}"
    return f"{fact.kind}: {', '.join(f'{name} {each}' for name, each in value.items() if name != 'structure')}"


def _amount(cost: Mapping[str, Any]) -> str:
    predicted, measured = (
        f"{each:,.6g}" if isinstance(each, float) else f"{each:,}" if isinstance(each, int) else str(each)
        for each in (cost.get("predicted"), cost.get("measured"))
    )
    return measured if measured == predicted else f"{measured} (predicted {predicted})"


def shown(metric: Any, value: Any) -> str:
    """A value of a metric: a percentage of what is a share."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return str(value)
    return f"{value:.2%}" if is_share(metric) else f"{value:.4g}"


def _tested(value: Mapping[str, Any]) -> str:
    test = value.get("test")
    return _reached("test", value, test) if isinstance(test, dict) else ""


def _reached(on: str, value: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    metric, before, now = value.get("metric"), found.get("before"), found.get("reached")
    if now is None:
        return ""
    return f"{on} {metric} {shown(metric, before)} before, {shown(metric, now)} now"
