"""Numbers that make no sense are refused when they are given, in a sentence with their name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import pytest

from prunesearch.budget import Budget
from prunesearch.evaluators.channels.cap import CaPCriterion
from prunesearch.evaluators.channels.cpmc import CPMCCriterion
from prunesearch.evaluators.channels.lfe import LFECriterion
from prunesearch.search.bayes import BayesSearcher
from prunesearch.search.binary import BinarySearcher
from prunesearch.search.conditional import ConditionalSettings
from prunesearch.search.evolution import EvolutionSettings
from prunesearch.search.genetic import GeneticSettings
from prunesearch.search.nsga2 import NSGA2Settings
from prunesearch.search.surrogate import SurrogateSettings
from tests.toys import chain_space

SPACE, BUDGET = chain_space((8, 8), 8), Budget(macs="50%")
BINARY, BAYES = partial(BinarySearcher, SPACE, BUDGET), partial(BayesSearcher, SPACE, BUDGET)
NUMBERS: list[tuple[Callable[..., Any], str, type]] = [
    *(
        (kind, field.name, type(field.default))
        for kind in (ConditionalSettings, EvolutionSettings, GeneticSettings, SurrogateSettings)
        for field in fields(kind)
    ),
    (NSGA2Settings, "population", int),
    (NSGA2Settings, "lowest_share", float),
    (BINARY, "tolerance", float),
    (BINARY, "passes", int),
    (BAYES, "batch_size", int),
    (BAYES, "n_startup", int),
    (CPMCCriterion, "macs_power", float),
    (CPMCCriterion, "params_power", float),
    (LFECriterion, "masks", int),
    (LFECriterion, "images", int),
    (LFECriterion, "rounds", int),
    (CaPCriterion, "most_columns", int),
]


@pytest.mark.parametrize(
    ("make", "name", "kind"),
    NUMBERS,
    ids=[f"{getattr(make, 'func', make).__name__}-{name}" for make, name, _ in NUMBERS],
)
def test_every_number_is_checked(make: Callable[..., Any], name: str, kind: type) -> None:
    for value in (-1, float("nan"), float("inf")) if kind is float else (-1,):
        with pytest.raises(ValueError, match=f"Expected {name} "):
            make(**{name: value})
    for value in ("3",) if kind is float else ("3", 1.5):
        with pytest.raises(TypeError, match=f"Expected {name} as a"):
            make(**{name: value})
