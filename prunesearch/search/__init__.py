"""Searchers propose structures. They know the space, the budget and what trials scored, and nothing of networks.

The public function `ps.search` (`prunesearch.api`) has the name of this room; `from prunesearch.search import ...` is
the way in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from prunesearch.contracts import Contract, name_of
from prunesearch.registry import Registry, check_options, parameters_of

if TYPE_CHECKING:  # the names alone are wanted by every command's help
    from prunesearch.budget import BudgetOrSet
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
SEARCHER = Contract(
    "Searcher",
    Registry("searcher", "prunesearch.searchers", SEARCHERS),
    methods=("ask(n)", "tell(trials)"),
    made_from="(space, budget, seed=)",
)
WITH_POLICY = ("conditional",)
"""Those that learn a policy (`PolicySearcher`), so that sentences can name them and nothing is imported for it."""


def is_searcher(given: object) -> TypeGuard[Searcher]:
    """Whether it is an object that searches, not a name or a class of such."""
    return SEARCHER.is_met(given)


def evidence_needed(given: str | Callable[..., Searcher]) -> tuple[str, ...]:
    """What a searcher's constructor wants to know of the network, names of `prunesearch.evaluators.EVIDENCE`.

    Raises:
        ValueError: No searcher has this name; the message has the list.
        TypeError: It makes no searchers.
    """
    return tuple(getattr(_maker(given), "needs", ()))


def evidence_welcome(given: str | Callable[..., Searcher]) -> tuple[str, ...]:
    """What it can do without, but searches better with; the same names.

    Raises:
        ValueError: No searcher has this name; the message has the list.
        TypeError: It makes no searchers.
    """
    return tuple(getattr(_maker(given), "welcomes", ()))


def check_searcher(given: Any, options: Mapping[str, Any]) -> None:
    """Make sure that there is a searcher of a name, or of a constructor, and that it has these options.

    Raises:
        ValueError: No searcher has this name, and the message has the list; or it names an object, which is not fresh.
        TypeError: The searcher has no such option, or it is text instead of a number; or it makes no searchers.
    """
    if not options and isinstance(given, str) and given in SEARCHERS:
        return  # what is the package's own needs not be imported to be known
    maker = _maker(given)
    settings_type = getattr(maker, "settings_type", None)
    parameters = parameters_of(maker)
    if settings_type is None and any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return  # it looks at them itself
    own = {name: each.default for name, each in parameters.items() if name not in ("space", "budget", "seed")}
    check_options(options, {**own, **_fields(settings_type)}, f"searcher {name_of(given)!r}")


def learns_policy(given: str | Callable[..., Searcher]) -> bool:
    """Whether a searcher of a name, or of a constructor, learns a policy (`PolicySearcher`).

    Raises:
        ValueError: No searcher has this name; the message has the list.
    """
    return callable(getattr(_maker(given), "policy", None))


def make_searcher(
    given: str | Searcher | Callable[..., Searcher],
    space: Space,
    budget: BudgetOrSet,
    *,
    seed: int = 0,
    **options: Any,
) -> Searcher:
    """Build a searcher by name.

    Args:
        given: One of `SEARCHERS`, or a name that an installed package adds (entry points, `prunesearch.searchers`);
            `"package.module:attribute"`; a constructor as `Searcher` describes it; or an object, which is returned.
        space: Where structures live.
        budget: What every proposal must meet; it has `check(space)`.
        seed: Decides every random draw.
        **options: Passed on to the searcher's constructor; those that are fields of its settings, such as `population`
            of `EvolutionSettings`, become its `settings`.

    Raises:
        ValueError: No searcher has this name, and the message has the list; or options are given with an object.
        TypeError: The searcher has no such option, or one of its settings is given twice.
        ContractBroken: What is made has no `ask` or no `tell`, or cannot be made from these arguments.
        InfeasibleBudget: No structure meets the budget.
    """
    if not is_searcher(given):
        check_searcher(given, options)
        settings_type = getattr(_maker(given), "settings_type", None)
        own = _fields(settings_type).keys() & options.keys()
        if own and "settings" in options:
            raise TypeError(f"Expected either settings or {', '.join(sorted(own))}, got both.")
        if own:
            assert settings_type is not None  # or it had no fields
            options["settings"] = settings_type(**{field: options.pop(field) for field in sorted(own)})
    searcher: Searcher = SEARCHER.make(given, space, budget, options=options, seed=seed)
    return searcher


def _maker(given: Any) -> Any:
    """What makes searchers. A name must not stand for an object: the next search would go on where this one ended."""
    maker = SEARCHER.found(given)
    if is_searcher(maker):
        raise ValueError(
            f"Expected the searcher {name_of(given)!r} to name a class or a function that makes a fresh searcher; it "
            "names an object. Name its class."
        )
    return maker


def _fields(settings_type: Any) -> dict[str, Any]:
    return {} if settings_type is None else {field.name: field.default for field in dataclasses.fields(settings_type)}
