"""What may be given to a search, and what it is understood as: modules, texts, paths, objects beside names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from torch import Tensor, nn

from prunesearch.budget import Budget
from prunesearch.evaluators import EVALUATORS
from prunesearch.evaluators.channels import CRITERIA
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.latency_table import LatencyTable
from prunesearch.models.nested import Batch, moved
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking, Ranking
from prunesearch.models.trace import trace
from prunesearch.search import SEARCHERS
from prunesearch.search.searcher import Searcher
from prunesearch.study.events import Callback
from prunesearch.training.data import Data


def as_network(given: Network | nn.Module, data: Data) -> Network:
    """A traced network as it is; a module is traced with the first images of the data.

    Raises:
        TypeError: It is neither.
        TraceError: The module cannot be traced.
    """
    if isinstance(given, Network):
        return given
    if not isinstance(given, nn.Module):
        raise TypeError(
            f"Expected network as trace(model, example_inputs) gives it, or as a torch.nn.Module; got {_kind(given)}."
        )
    device = next((parameter.device for parameter in given.parameters()), None)
    return trace(given, moved(data.examples(), device))


def as_table(given: LatencyTable | str | Path | None) -> LatencyTable | None:
    """A latency table as it is; a path is that of its file."""
    return LatencyTable.load(given) if isinstance(given, (str, Path)) else given


def as_budget(given: Budget | str, table: LatencyTable | str | Path | None = None) -> Budget:
    """A budget as it is; a text is in the command line's form.

    Args:
        given: The budget.
        table: What latency is predicted from, if the budget has none yet.

    Raises:
        TypeError: It is neither.
        ValueError: The text cannot be read, or there are two tables.
    """
    found = as_table(table)
    if isinstance(given, str):
        return Budget.parse(given, found)
    if not isinstance(given, Budget):
        raise TypeError(f'Expected budget as Budget(macs="50%"), or as a text such as "macs=50%"; got {given!r}.')
    if found is None:
        return given
    if given.table is not None:
        raise ValueError("Expected one latency table, got two: the budget has its own. Leave table= out.")
    return replace(given, table=found)


def as_callbacks(given: Callback | Sequence[Callback]) -> tuple[Callback, ...]:
    """Callbacks in a tuple; a single one will do.

    Raises:
        TypeError: One cannot be called.
    """
    found = tuple(given) if isinstance(given, Iterable) else (given,)
    wrong = [callback for callback in found if not callable(callback)]
    if wrong:
        raise TypeError(f"Expected callbacks as functions that take an Event, got {wrong[0]!r}.")
    return found


def check_searcher_object(given: str | Searcher | Callable[..., Searcher], options: Mapping[str, Any] | None) -> None:
    """Make sure that it is a name, an object that searches, or what makes one; the names are looked up elsewhere.

    Raises:
        TypeError: It is not.
        ValueError: Options were given that an object cannot take.
    """
    if is_searcher(given):
        _refuse_settings("searcher", {"options": bool(options)})
    if not (isinstance(given, str) or is_searcher(given) or callable(given)):
        raise TypeError(
            f"Expected searcher as one of {', '.join(SEARCHERS)}, as an object with ask(n) and tell(trials), or as a "
            f"class of such that takes (space, budget, seed=); got {_kind(given)}."
        )


def is_searcher(given: object) -> TypeGuard[Searcher]:
    """Whether it is an object that searches, not a name or a class of such."""
    return not isinstance(given, type) and all(callable(getattr(given, name, None)) for name in ("ask", "tell"))


def check_evaluator_object(given: str | Evaluator, *, images: int | None, options: Mapping[str, Any] | None) -> None:
    """Make sure that it is a name, or an object that scores, which takes no settings any more.

    Raises:
        TypeError: It is neither.
        ValueError: Settings were given that an object cannot take.
    """
    if isinstance(given, str):
        return
    if isinstance(given, type) or not callable(getattr(given, "score", None)) or not hasattr(given, "description"):
        raise TypeError(
            f"Expected evaluator as one of {', '.join(EVALUATORS)}, or as an object with a description and "
            f"score(structures); got {_kind(given)}."
        )
    _refuse_settings(
        "evaluator",
        {"images": images is not None, "evaluator_options": bool(options)},
    )


def ranking_of(
    criterion: Any, options: Mapping[str, Any] | None, network: Network, images: Batch, labels: Tensor
) -> tuple[Ranking, str]:
    """What a criterion, or a ranking that is known already, says, and what a study calls it.

    Args:
        criterion: A ranking, with `keep(group, units)`, or a criterion, with `rank(network, images, labels)`.
        options: Must be none.
        network: The traced network.
        images: (n, ...) images to look at.
        labels: (n,) their classes.

    Raises:
        TypeError: It is neither.
        ValueError: Options were given, which an object cannot take.
    """
    _refuse_settings("criterion", {"criterion_options": bool(options)})
    if isinstance(criterion, NestedRanking):
        return criterion, str(criterion)
    is_criterion = callable(getattr(criterion, "rank", None))
    if isinstance(criterion, type) or not (is_criterion or callable(getattr(criterion, "keep", None))):
        raise TypeError(
            f"Expected criterion as one of {', '.join(CRITERIA)}, as a ranking with keep(group, units), or as an "
            f"object with rank(network, images, labels); got {_kind(criterion)}."
        )
    ranking: Ranking = criterion.rank(network, images, labels) if is_criterion else criterion
    return ranking, f"{type(criterion).__qualname__} {_fingerprint(ranking, network)}"


def _refuse_settings(whose: str, given: Mapping[str, bool]) -> None:
    for name in [name for name, is_given in given.items() if is_given]:
        raise ValueError(f"{name} is only for a named {whose}; an object has settings of its own. Leave {name} out.")


def _fingerprint(ranking: Ranking, network: Network) -> str:
    """Hash of which units stay at every width, as a printed object may hold an address."""
    digest = hashlib.sha256()
    for index, group in enumerate(network.space.groups):
        for width in group.widths:
            digest.update(np.asarray(ranking.keep(index, width // group.unit), dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]


def _kind(given: Any) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return repr(given) if isinstance(given, (str, int, float, type(None))) else f"an object of {type(given).__name__}"
