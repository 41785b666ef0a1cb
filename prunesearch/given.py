"""What may be given to a search, and what it is understood as: modules, texts, paths, objects beside names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from prunesearch.budget import Budget
from prunesearch.contracts import Contract, kind_of, name_of
from prunesearch.evaluators import EVALUATOR
from prunesearch.evaluators.channels import CRITERIA, CRITERION, make_criterion
from prunesearch.latency_table import LatencyTable
from prunesearch.models.nested import moved
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking, Ranking
from prunesearch.models.trace import trace
from prunesearch.search import check_searcher, is_searcher
from prunesearch.search.searcher import Searcher
from prunesearch.structure import Group, IntArray
from prunesearch.study.events import Callback
from prunesearch.tasks.examples import Examples
from prunesearch.training.data import Data

if TYPE_CHECKING:
    from prunesearch.evaluators import AnyEvaluator

RANKING = Contract("Ranking", CRITERION.names, methods=("keep(group, units)",))
"""What a criterion gives, and what may be given in its place."""


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
            f"Expected network as trace(model, example_inputs) gives it, or as a torch.nn.Module; got {kind_of(given)}."
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
    """Make sure that it is a name, an object that searches, or what makes one, and that it has these options.

    Raises:
        TypeError: It is not, or has not.
        ValueError: It is no name of a searcher; or options were given that an object cannot take.
    """
    if is_searcher(given):
        _refuse_settings("searcher", {"options": bool(options)})
    else:
        check_searcher(given, options or {})


def check_evaluator_object(given: AnyEvaluator, *, images: int | None, options: Mapping[str, Any] | None) -> None:
    """Make sure that it is a name, what makes an evaluator, or an object that scores, which takes no settings any more.

    Raises:
        TypeError: It is none of these.
        ValueError: It is no name of an evaluator; or settings were given that an object cannot take.
    """
    if EVALUATOR.is_met(EVALUATOR.found(given)):
        _refuse_settings(
            "evaluator",
            {"images": images is not None, "evaluator_options": bool(options)},
        )


class Chooser:
    """What says which channels stay: a criterion that is still to look at the network, or a ranking that is known.

    Args:
        given: A name, a criterion, what makes one, or a ranking, with `keep(group, units)`.
        options: Of the criterion's constructor.
        seed: Decides every random draw.
        cache: Folder where statistics of layers are kept.

    Raises:
        TypeError: It is none of these.
        ValueError: It is no name of a criterion; or options were given that an object cannot take.
    """

    def __init__(
        self,
        given: Any,
        options: Mapping[str, Any] | None,
        *,
        seed: int,
        cache: str | Path | None,
    ) -> None:
        self._given = given
        self._options = dict(options or {})
        if RANKING.is_met(given) or CRITERION.is_met(given):
            _refuse_settings("criterion", {"criterion_options": bool(options)})
        self._criterion: Any = None
        if not RANKING.is_met(given):
            self._criterion = make_criterion(given, seed=seed, cache=cache, **self._options)

    def choose(self, network: Network, examples: Examples) -> tuple[Ranking, str]:
        """The ranking of a network's channels, and what a study calls it.

        The package's own criteria are called by their names, as the study knows the version of the package; what a
        criterion of somebody else's keeps is part of its name.

        Args:
            network: The traced network.
            examples: What it may look at.

        Raises:
            ContractBroken: The ranking does not keep as many units as asked for.
        """
        ranking = self._given if self._criterion is None else self._criterion.rank(network, examples)
        name = name_of(self._given) + (listed(self._options) if self._options else "")
        if isinstance(self._given, str) and self._given in CRITERIA:
            return ranking, name
        kept = _fingerprint(ranking, network, self._given)
        return ranking, str(ranking) if isinstance(self._given, NestedRanking) else f"{name} {kept}"


def listed(options: Mapping[str, Any]) -> str:
    """Options as a study has them beside a name.

    Example:
        >>> listed({"b": 1, "a": 2})
        '(a=2, b=1)'
    """
    return f"({', '.join(f'{name}={value}' for name, value in sorted(options.items()))})"


def _refuse_settings(whose: str, given: Mapping[str, bool]) -> None:
    for name in [name for name, is_given in given.items() if is_given]:
        raise ValueError(f"{name} is only for a named {whose}; an object has settings of its own. Leave {name} out.")


def _fingerprint(ranking: Any, network: Network, given: Any) -> str:
    """Hash of which units stay at every width, as a printed object may hold an address."""
    if not RANKING.is_met(ranking):
        what = f"rank(network, images, labels) gave {kind_of(ranking)}; expected a ranking, with keep(group, units)"
        raise CRITERION.broken(given, what)
    digest = hashlib.sha256()
    for index, group in enumerate(network.space.groups):
        for width in group.widths:
            digest.update(_kept(ranking, index, group, width // group.unit, given).tobytes())
    return digest.hexdigest()[:16]


def _kept(ranking: Ranking, index: int, group: Group, units: int, given: Any) -> IntArray:
    """Which units of a group a ranking of anybody's keeps."""
    call = f"keep({index}, {units})"
    try:
        answer: Any = ranking.keep(index, units)
        kept = np.asarray(answer)
    except Exception as error:  # the caller's own code may raise anything
        raise RANKING.broken(given, f"{call} failed with {type(error).__name__}: {error}".rstrip(".")) from error
    right = kept.shape == (units,) and np.issubdtype(kept.dtype, np.integer) and bool(np.all(np.diff(kept) > 0))
    if not right or kept[0] < 0 or kept[-1] >= group.units:
        raise RANKING.broken(
            given,
            f"{call} gave {answer!r}; expected {units} different whole numbers from 0 to {group.units - 1}, ascending, "
            f"the units of group {group.name!r} that stay",
        )
    return kept.astype(np.int64)
