"""The tables of racing.py say in how many seeds came true what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulated import racing

FACTS = {
    "network": "0123", "limit": "macs=50%", "full macs": 1000, "search images": 64, "unseen images": 32,
    "machine": "m", "versions": {"prunesearch": "0", "torch": "2"},
}  # fmt: skip


def cell(arm: str, seed: int, rows: Sequence[tuple[int, float, float]]) -> dict[str, Any]:
    """Of numbers of structures, their losses and CPU-seconds."""
    told = [
        {
            "evaluations": count, "images scored": count, "loss": loss, "accuracy": 0.5, "macs": 500,
            "unpruned loss": 0.1, "seconds": {"cpu": seconds},
        }
        for count, loss, seconds in rows
    ]  # fmt: skip
    return {"arm": arm, "seed": seed, "rows": told, "facts": FACTS}


def page(*cells: dict[str, Any]) -> str:
    return racing.tables({"vgg_50": {"cells": {f"{each['arm']}.{each['seed']}": each for each in cells}}})


def test_seeds_are_counted_in_which_the_default_is_ahead() -> None:
    text = page(
        cell("surrogate-race", 0, [(100, 0.8, 10.0), (400, 0.7, 30.0)]),
        cell("surrogate-race", 1, [(100, 0.8, 10.0), (400, 0.83, 30.0)]),
        cell("uniform-filled", 0, [(1, 1.5, 1.0)]),
        cell("uniform-filled", 1, [(1, 0.7, 1.0)]),
    )
    assert "below that of `uniform-filled` in 1 of 2 seeds" in text
    assert "at equal or more CPU-seconds in 0 of 0 seeds" in text
    assert "0.02 above that after 100 in 1 of 2 seeds" in text
    assert "Not measured yet: random-race." in text


def test_random_structures_get_at_least_the_seconds_of_the_default() -> None:
    ours = cell("surrogate-race", 0, [(100, 0.8, 10.0), (400, 0.7, 30.0)])
    quick = cell("random-race", 0, [(100, 0.9, 6.0), (200, 0.75, 12.0)])
    slow = cell("random-race", 0, [(100, 0.9, 10.0), (200, 0.75, 20.0)])
    short = cell("random-race", 0, [(100, 0.9, 6.0), (200, 0.75, 9.0)])
    assert "at equal or more CPU-seconds in 0 of 1 seeds" in page(ours, quick)
    assert "at equal or more CPU-seconds in 1 of 1 seeds" in page(ours, slow)
    assert "at equal or more CPU-seconds in 0 of 0 seeds" in page(ours, short)
