"""What may be given to a search, and what it is understood as: modules, texts, paths, objects beside names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from prunesearch.budget import Budget, FeasibleSet
from prunesearch.contracts import kind_of
from prunesearch.latency_table import LatencyTable
from prunesearch.models.devices import device_of_module
from prunesearch.models.nested import moved
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.registry import did_you_mean, parameters_of
from prunesearch.resources import RESOURCES
from prunesearch.scoring import refuse_settings
from prunesearch.search import check_searcher, is_searcher
from prunesearch.search.searcher import Searcher
from prunesearch.training.data import Data
from prunesearch.verifiers import make_verifier

if TYPE_CHECKING:
    from prunesearch.verifiers import AnyVerifier
    from prunesearch.verifiers.verifier import Verifier


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
    return trace(given, moved(data.examples(), device_of_module(given)))


def as_table(given: LatencyTable | str | Path | None) -> LatencyTable | None:
    """A latency table as it is; a path is that of its file."""
    return LatencyTable.load(given) if isinstance(given, (str, Path)) else given


def as_budget(given: Budget | str, table: object = None) -> Budget:
    """A budget as it is; a text is in the command line's form.

    Args:
        given: The budget.
        table: What latency is predicted from, or the path of its file, if the budget has none yet.

    Raises:
        TypeError: It is neither.
        ValueError: The text cannot be read, or there are two tables.
    """
    if isinstance(given, str):
        return Budget.parse(given, table)
    if not isinstance(given, Budget):
        raise TypeError(f'Expected budget as Budget(macs="50%"), or as a text such as "macs=50%"; got {given!r}.')
    if table is None:
        return given
    if given.table is not None:
        raise ValueError("Expected one latency table, got two: the budget has its own. Leave table= out.")
    own = [each for each in given.resources if each.name not in RESOURCES]
    limits: dict[str, Any] = dict(given.limits)
    return Budget(table=table, resources=own, **limits)


def check_searcher_object(given: str | Searcher | Callable[..., Searcher], options: Mapping[str, Any] | None) -> None:
    """Make sure that it is a name, an object that searches, or what makes one, and that it has these options.

    Raises:
        TypeError: It is not, or has not.
        ValueError: It is no name of a searcher; or options were given that an object cannot take.
    """
    if is_searcher(given):
        refuse_settings("searcher", {"options": bool(options)})
    else:
        check_searcher(given, options or {})


def as_verifiers(
    given: AnyVerifier | Sequence[AnyVerifier] | None, wanted: FeasibleSet, searcher: object
) -> tuple[Verifier, ...]:
    """Verifiers in a tuple; a single one will do. None: those of what is limited, as of latency that can be timed.

    Raises:
        ValueError: No verifier has this name, or it cannot verify this budget; or the searcher is an object, which can
            run only once.
        TypeError: It is no verifier, and makes none.
        ContractBroken: It does not do what a verifier does.
    """
    if given is None:
        given = tuple(dict.fromkeys(each.verifier for each in wanted.meters.values() if each.verifier))
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if several and is_searcher(searcher):
        raise ValueError(
            "A search whose winners are verified may take several rounds, each with a fresh searcher. Give the class "
            "of the searcher instead of an object, or verifiers=() to take the winner as it is."
        )
    return tuple(make_verifier(each, wanted) for each in several)


def expect_kind(name: str, given: object, kind: type, example: str) -> None:
    """Make sure that an argument is of a class.

    Raises:
        TypeError: It is not; the message has an example.
    """
    if not isinstance(given, kind):
        raise TypeError(f"Expected {name} as prunesearch.{example}, got {kind_of(given)}.")


def refuse_unknown(given: Mapping[str, Any], moved: Mapping[str, str], function: Callable[..., Any]) -> None:
    """Say of an argument that a function does not have where it went, or which one was meant.

    Args:
        given: Arguments that it does not have.
        moved: Where those of earlier releases went.
        function: The function.

    Raises:
        TypeError: There is one.
    """
    for name in given:
        if name in moved:
            raise TypeError(f"{function.__name__}() has no argument {name!r} any more. Write {moved[name]} instead.")
        known = [each.name for each in parameters_of(function).values() if each.kind is not each.VAR_KEYWORD]
        hint = did_you_mean(name, known)
        raise TypeError(f"{function.__name__}() has no argument {name!r}.{hint}")
