"""What may be given to a search, and what it is understood as: modules, texts, paths, objects beside names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from prunesearch.budget import FeasibleSet
from prunesearch.contracts import kind_of
from prunesearch.models.devices import device_of_module
from prunesearch.models.nested import moved
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.registry import did_you_mean, parameters_of
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
