"""Small spaces whose every structure can be enumerated, and landscapes with a known optimum."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

from prunesearch.budget import FeasibleSet
from prunesearch.search import evidence_needed
from prunesearch.structure import Cost, Space, Structure
from prunesearch.testing import toys
from prunesearch.testing.toys import bowl as bowl
from prunesearch.testing.toys import chain_space as chain_space
from prunesearch.testing.toys import toy_table as toy_table
from prunesearch.testing.toys import trial as trial
from prunesearch.testing.toys import trials_of as trials_of
from prunesearch.trial import Trial


def every_structure(space: Space) -> list[Structure]:
    return list(itertools.product(*(group.widths for group in space.groups)))


def evidence(space: Space, name: str) -> dict[str, Any]:
    """What the searcher `name` wants to know of the network, made up: every group matters alike."""
    return toys.evidence(space, evidence_needed(name))


def admits(feasible: FeasibleSet, cost: Cost) -> bool:
    """Whether a cost, as `feasible.cost` gives it, is within every limit."""
    return all(cost[resource] <= limit for resource, limit in feasible.limits)


def with_costs(trials: Iterable[Trial], space: Space) -> list[Trial]:
    """The same trials with what their structures really cost."""
    return [dataclasses.replace(trial, cost=space.cost(trial.structure)) for trial in trials]
