"""Databases of studies that reports are tested with."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from prunesearch.structure import Group, Space, Structure, Term, Width
from prunesearch.study import schema, upgrades
from prunesearch.study.store import Store, _to_row
from prunesearch.trial import Trial

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>"


def toy_space(stem: str = "stem") -> Space:
    """Two groups, three layers."""
    narrow, wide = Group(stem, 16, 1, (4, 8, 12, 16), (stem,)), Group("body", 64, 2, (16, 32, 64), ("body",))
    kept, units, rgb, ten = Width(0, ((0, 1),)), Width(0, ((1, 2),)), Width(3), Width(10)
    return Space(
        (narrow, wide),
        (Term("stem", 9 * 32 * 32, rgb, kept), Term("body", 9 * 16 * 16, kept, units), Term("head", 1, units, ten)),
        (Term("stem.weight", 9, rgb, kept), Term("body.weight", 9, kept, units), Term("head.weight", 1, units, ten)),
    )


def trial(
    number: int,
    structure: Structure,
    score: float | None,
    failure: str | None = None,
    searcher: str = "evolution",
    ms: float | None = None,
) -> Trial:
    """One of the toy space, at its exact cost, and with a predicted latency."""
    cost = toy_space().cost(structure)
    if ms is not None:
        cost = dataclasses.replace(cost, more={"latency_ms": ms})
    return Trial(number, structure, cost, score, failure, 0.25, searcher, "accuracy", "inline")


def question(**changes: Any) -> dict[str, Any]:
    """What a study answers."""
    return {"model": "8f3a", "budget": "macs=50%", "seed": 0, "versions": {"torch": "2.9"}} | changes


def add_study(
    url: str,
    name: str,
    trials: Sequence[Trial] = (),
    *,
    space: Space | None = None,
    summary: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    """Add a study to a database, as a finished search leaves it; thousands of trials in one transaction."""
    store = Store(url)
    store.create(name, upgrades.question_of(question(**changes)), dataclasses.asdict(space or toy_space()))
    rows = [_to_row(each) for each in trials]
    with store._writing(name) as connection:
        study_id = connection.scalar(sa.select(schema.study.c.id).where(schema.study.c.name == name))
        rows = [{**row, "study_id": study_id, "checksum": schema.checksum(row)} for row in rows]
        if rows:
            connection.execute(schema.trial.insert(), rows)
    asked, where = json.dumps(question(**changes)), json.dumps(dataclasses.asdict(space or toy_space()))
    facts, _ = upgrades.facts_of(asked, where, json.dumps(summary or {}))  # limits and the like
    store.add_to_summary(name, json.loads(facts))
    store.close()


def deep_space(groups: int = 20) -> Space:
    """A chain of convolutions, as long as those of small residual networks."""
    made = tuple(Group(f"layer{i}.conv", 64, 1, tuple(range(8, 65, 8)), (f"layer{i}.conv",)) for i in range(groups))
    widths = [Width(3), *(Width(0, ((i, 1),)) for i in range(groups)), Width(10)]
    pairs = list(itertools.pairwise(widths))
    return Space(
        made,
        tuple(Term(f"layer{i}.conv", 576, left, right) for i, (left, right) in enumerate(pairs)),
        tuple(Term(f"layer{i}.weight", 9, left, right) for i, (left, right) in enumerate(pairs)),
    )


def many_trials(space: Space, n: int, searcher: str, seed: int = 0) -> list[Trial]:
    """Random structures that score better the more they cost, more or less; one in a hundred fails."""
    rng = np.random.default_rng(seed)
    structures = rng.choice(space.groups[0].widths, size=(n, len(space.groups)))
    full = space.cost(space.full).macs
    made = []
    for i, row in enumerate(structures.tolist()):
        structure = tuple(row)
        cost = space.cost(structure)
        score = -2 * (1 - cost.macs / full) ** 2 - 0.2 * float(rng.gamma(2.0)) * (1 - i / n / 2)
        failed = i % 100 == 37
        failure = "Out of memory: 1 GiB wanted." if failed else None
        made.append(Trial(i, structure, cost, None if failed else score, failure, 0.01, searcher, "toy", "here"))
    return made
