"""Searchers propose structures. They know the space, the budget and what trials scored, and nothing of networks.

`prunesearch.search` is this room and, called, the main job (`prunesearch.api.search`): `ps.search(network, ...)`.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from prunesearch.budget import Budget
from prunesearch.registry import check_options, resolve
from prunesearch.search.searcher import Searcher
from prunesearch.structure import Space

SEARCHERS: Mapping[str, str] = {
    "uniform": "prunesearch.search.uniform:UniformSearcher",
    "random": "prunesearch.search.random_search:RandomSearcher",
    "evolution": "prunesearch.search.evolution:EvolutionSearcher",
    "genetic": "prunesearch.search.genetic:GeneticSearcher",
    "surrogate": "prunesearch.search.surrogate:SurrogateSearcher",
    "bayes": "prunesearch.search.bayes:BayesSearcher",
    "conditional": "prunesearch.search.conditional:ConditionalSearcher",
    "nsga2": "prunesearch.search.nsga2:NSGA2Searcher",
    "convex": "prunesearch.search.convex:ConvexSearcher",
    "sensitivity": "prunesearch.search.sensitivity:SensitivitySearcher",
    "binary": "prunesearch.search.binary:BinarySearcher",
    "global": "prunesearch.search.global_order:GlobalSearcher",
}
WITH_POLICY = ("conditional",)
"""Those that learn a policy (`PolicySearcher`), so that sentences can name them and nothing is imported for it."""


def evidence_needed(name: str | Callable[..., Searcher]) -> tuple[str, ...]:
    """What a searcher's constructor wants to know of the network, names of `prunesearch.evaluators.EVIDENCE`.

    Raises:
        ValueError: No searcher has this name; the message has the list.
    """
    return tuple(getattr(_constructor(name), "needs", ()))


def check_searcher(name: str | Callable[..., Searcher], options: Mapping[str, Any]) -> None:
    """Make sure that there is a searcher of a name, or of a constructor, and that it has these options.

    Raises:
        ValueError: No searcher has this name; the message has the list.
        TypeError: The searcher has no such option, or it is text instead of a number.
    """
    kind = _constructor(name)
    known = {**_constructor_options(kind), **_fields(getattr(kind, "settings_type", None))}
    check_options(options, known, f"searcher {searcher_name(name)!r}")


def learns_policy(name: str | Callable[..., Searcher]) -> bool:
    """Whether a searcher of a name, or of a constructor, learns a policy (`PolicySearcher`).

    Raises:
        ValueError: No searcher has this name; the message has the list.
    """
    return callable(getattr(_constructor(name), "policy", None))


def searcher_name(given: str | Searcher | Callable[..., Searcher]) -> str:
    """What a searcher is called in a study."""
    return given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)


def make_searcher(
    name: str | Callable[..., Searcher], space: Space, budget: Budget, *, seed: int = 0, **options: Any
) -> Searcher:
    """Build a searcher by name.

    Args:
        name: One of `SEARCHERS`; or a constructor as `Searcher` describes it.
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every random draw.
        **options: Passed on to the searcher's constructor; those that are fields of its settings, such as `population`
            of `EvolutionSettings`, become its `settings`.

    Raises:
        ValueError: No searcher has this name; the message has the list.
        TypeError: The searcher has no such option, or one of its settings is given twice.
        InfeasibleBudget: No structure meets the budget.
    """
    check_searcher(name, options)
    kind = _constructor(name)
    settings_type = getattr(kind, "settings_type", None)
    if settings_type is not None:
        own = _fields(settings_type).keys() & options.keys()
        if own and "settings" in options:
            raise TypeError(f"Expected either settings or {', '.join(sorted(own))}, got both.")
        if own:
            options["settings"] = settings_type(**{field: options.pop(field) for field in sorted(own)})
    searcher: Searcher = kind(space, budget, seed=seed, **options)
    return searcher


def _constructor(name: str | Callable[..., Searcher]) -> Any:
    return resolve(SEARCHERS, name, "searcher") if isinstance(name, str) else name


def _constructor_options(kind: Any) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters.items()
    return {name: parameter.default for name, parameter in parameters if name not in ("space", "budget", "seed")}


def _fields(settings_type: Any) -> dict[str, Any]:
    return {} if settings_type is None else {field.name: field.default for field in dataclasses.fields(settings_type)}


class _CallableRoom(ModuleType):
    """A package shares its name with the public function; importing the one must not hide the other."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return resolve({"search": "prunesearch.api:search"}, "search", "function")(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableRoom
