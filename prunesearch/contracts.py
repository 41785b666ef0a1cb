"""What an object must have to be taken in place of a name, and the sentence that says what it lacks or did wrong."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from prunesearch.errors import ContractBroken
from prunesearch.registry import Registry, check_options, parameters_of


@dataclass(frozen=True)
class Contract:
    """One role: its names, what its objects have, and what they are made from.

    What is given for a role is a name, `"package.module:attribute"`, an object, or a class or function that makes one.
    Other objects that can be called, such as networks, make none.

    Attributes:
        name: Of the protocol, such as `"Searcher"`.
        names: Those of objects and of what makes them.
        methods: With their arguments, such as `"ask(n)"`.
        attributes: What objects have besides.
        made_from: What makes an object is called with this; for sentences.
    """

    name: str
    names: Registry
    methods: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    made_from: str = ""

    def found(self, given: Any) -> Any:
        """What was given: an object, or what makes one.

        Raises:
            TypeError: It is neither.
            ContractBroken: It has some of the methods of an object, but not all.
            ValueError: It is a name that stands for nothing, or for what cannot be imported.
        """
        found = self.names.find(given) if isinstance(given, str) else given
        missing = self.missing(found)
        if isinstance(found, type) or not missing:
            return found
        if any(method not in missing for method in self.methods):
            raise self.broken(given, f"it has no {' and no '.join(missing)}")
        if not (inspect.isroutine(found) or isinstance(found, partial)):
            members = ", ".join((*self.attributes, *self.methods))
            raise TypeError(
                f"Expected {self.names.kind} as one of {', '.join(self.names.names())}, as package.module:attribute, "
                f"as an object with {members}, or as a class or function that makes one from {self.made_from}; got "
                f"{kind_of(given)}."
            )
        return found

    def is_met(self, found: Any) -> bool:
        """Whether it is an object of this role, not what makes one."""
        return not isinstance(found, type) and not self.missing(found)

    def missing(self, found: Any) -> tuple[str, ...]:
        """What an object lacks, as sentences name it."""
        methods = [each for each in self.methods if not callable(getattr(found, each.partition("(")[0], None))]
        return (*methods, *(each for each in self.attributes if not hasattr(found, each)))

    def make(self, given: Any, *arguments: Any, options: Mapping[str, Any] | None = None, **fixed: Any) -> Any:
        """The object that was given, or the one that is made.

        Args:
            given: What the caller gave.
            *arguments: What makes an object is called with these, in order,
            options: with these, as the caller says,
            **fixed: and with these by name.

        Raises:
            TypeError: There is no such option, or it is text instead of a number; or as `found`.
            ContractBroken: It cannot be made from these arguments, or what is made has not all of the methods.
            ValueError: Options were given for an object; or as `found`.
        """
        maker, options = self.found(given), options or {}
        if self.is_met(maker):
            if options:
                raise ValueError(
                    f"The {self.names.kind} is an object, which has settings of its own, so it takes no options; got "
                    f"{', '.join(options)}."
                )
            return maker
        parameters = parameters_of(maker)
        if parameters and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            own = [name for name in list(parameters)[len(arguments) :] if name not in fixed]
            known = {name: parameters[name].default for name in own}
            check_options(options, known, f"{self.names.kind} {name_of(given)!r}")
        self._check_call(given, maker, arguments, {**fixed, **options})
        made = maker(*arguments, **fixed, **options)
        if not self.is_met(made):
            raise self.broken(given, f"it made {kind_of(made)}, which has no {' and no '.join(self.missing(made))}")
        return made

    def broken(self, given: Any, what: str) -> ContractBroken:
        """The error that says what an object did.

        Args:
            given: What the caller gave: it is named.
            what: What came, and what was expected.
        """
        return ContractBroken(f"The {self.names.kind} {name_of(given)} breaks the contract {self.name}: {what}.")

    def _check_call(self, given: Any, maker: Callable[..., Any], arguments: Any, named: Mapping[str, Any]) -> None:
        try:
            signature = inspect.signature(maker)
        except (TypeError, ValueError):  # of something that is not written in Python
            return
        try:
            signature.bind(*arguments, **named)
        except TypeError as error:
            raise self.broken(
                given, f"it cannot be made from {self.made_from}: {error}; it takes {signature}"
            ) from None


def name_of(given: Any) -> str:
    """What an object, or what makes one, is called in sentences and in studies.

    Example:
        >>> name_of("l1"), name_of(dict), name_of({})
        ('l1', 'dict', 'dict')
    """
    return given if isinstance(given, str) else str(getattr(given, "__name__", type(given).__name__))


def kind_of(given: Any) -> str:
    """What was given instead of what was expected, for a sentence.

    Example:
        >>> kind_of(dict), kind_of({}), kind_of(3)
        ('the class dict', 'an object of dict', '3')
    """
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return repr(given) if isinstance(given, (str, int, float, type(None))) else f"an object of {type(given).__name__}"


def expect_kind(name: str, given: object, kind: type, example: str) -> None:
    """Make sure that an argument is of a class.

    Raises:
        TypeError: It is not; the message has an example.
    """
    if not isinstance(given, kind):
        raise TypeError(f"Expected {name} as prunesearch.{example}, got {kind_of(given)}.")


def as_options(name: str, given: object) -> dict[str, Any]:
    """Options by name; None is none.

    Raises:
        TypeError: They are not by name.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"Expected {name} as a dictionary by name, got {kind_of(given)}.")
    return dict(given or {})
