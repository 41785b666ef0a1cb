"""Numbers that remember where they came from behave as numbers do, and none loses its origin unnoticed."""

from __future__ import annotations

import copy
import math
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import prunesearch as ps
from prunesearch.models.forms import Form
from prunesearch.models.numbers import Attribute, is_traced, plain, traced
from tests.models.networks import SMALL, Middle, proven


class Noted:
    """A ledger that remembers what it was told, and lets results of arithmetic be numbers with an origin."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def computed(self, function: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> Any:
        self.told.append(function.__name__)
        return traced(result, Form.of(Attribute("computed", ("n",))), self)

    def compared(self, one: Any, other: Any, relation: str) -> None:
        self.told.append(f"compared: {relation}")

    def coerced(self, number: Any) -> None:
        self.told.append("coerced")

    def hashed(self, number: Any) -> None:
        self.coerced(number)


def number(value: Any) -> tuple[Any, Noted]:
    ledger = Noted()
    return traced(value, Form.of(Attribute("", ("width",))), ledger), ledger


@pytest.mark.parametrize("name", ["add", "sub", "mul", "floordiv", "truediv", "mod", "pow"])
def test_arithmetic_gives_what_it_gives_for_plain_numbers_and_keeps_an_origin(name: str) -> None:
    function = getattr(operator, name)
    for value, other in ((12, 5), (12.5, 4)):
        ours, ledger = number(value)
        for result, expected in (
            (function(ours, other), function(value, other)),
            (function(other, ours), function(other, value)),
        ):
            assert plain(result) == expected
            assert type(plain(result)) is type(expected)
            assert is_traced(result)
        assert ledger.told == [name, name]


def test_a_sign_and_an_absolute_value_keep_an_origin() -> None:
    ours, ledger = number(-8)
    assert [plain(value) for value in (-ours, abs(ours), +ours)] == [8, 8, -8]
    assert all(map(is_traced, (-ours, abs(ours), +ours)))
    assert set(ledger.told) == {"neg", "abs"}


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons_are_told_with_a_relation_that_holds(name: str) -> None:
    function = getattr(operator, name)
    for other in (7, 8, 9):
        ours, ledger = number(8)
        assert function(ours, other) == function(8, other)
        (told,) = ledger.told
        relation = told.removeprefix("compared: ")
        assert getattr(operator, relation)(8, other)
        assert relation in (name, {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}[name])


PLAIN: dict[str, Callable[[Any], Any]] = {
    "int": int, "float": float, "complex": complex, "str": str, "repr": repr, "hash": hash, "round": round,
    "floor": math.floor, "ceil": math.ceil, "trunc": math.trunc, "square root": math.sqrt, "copy": copy.deepcopy,
    "pickle": lambda n: pickle.loads(pickle.dumps(n)), "f-string": lambda n: f"{n}", "padded": lambda n: f"{n:>4}",
    "divmod": lambda n: divmod(n, 3), "divmod of": lambda n: divmod(30, n),
    "key of a dictionary": lambda n: {8: "a"}.get(n), "in a set": lambda n: n in {8, 16},
    "list repeated": lambda n: [0] * n, "ratio": lambda n: n.as_integer_ratio(),
}  # fmt: skip
OF_INTEGERS: dict[str, Callable[[Any], Any]] = {
    "shifted right": lambda n: n >> 1, "shifted left": lambda n: 1 << n, "and": lambda n: n & 12, "or": lambda n: 3 | n,
    "xor": lambda n: n ^ 1, "invert": lambda n: ~n, "bits": lambda n: n.bit_length(),
}  # fmt: skip


@pytest.mark.parametrize("name", [*PLAIN, *OF_INTEGERS])
def test_what_makes_an_integer_a_plain_value_is_told(name: str) -> None:
    function = (PLAIN | OF_INTEGERS)[name]
    ours, ledger = number(8)
    result = function(ours)
    assert result == function(8)
    assert not is_traced(result)
    assert "coerced" in ledger.told


@pytest.mark.parametrize(
    "name", [name for name in PLAIN if name not in ("list repeated", "pickle", "copy", "square root")]
)
def test_what_makes_a_fraction_a_plain_value_is_told(name: str) -> None:
    ours, ledger = number(8.0)
    assert PLAIN[name](ours) == PLAIN[name](8.0)
    assert "coerced" in ledger.told


LOST: dict[str, Callable[[Any], Any]] = {
    "range": lambda n: sum(1 for _ in range(n)),
    "a divisor": lambda n: math.gcd(n, 8),
    "an integer root": lambda n: math.isqrt(n),
}
"""What takes a number without a word, and makes another whole one of it."""
FOUND: dict[str, Callable[[Any], Any]] = {
    "a logarithm": lambda n: math.log2(n),
    "an index of a list": lambda n: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0][n],
}
"""The same for a fraction, which is found as a narrower network has another one."""


SOURCES: dict[str, Callable[[Any, Any], Any]] = {
    "a size": lambda net, h: h.size(1),
    "a shape": lambda net, h: h.shape[1],
    "an attribute": lambda net, h: net.width,
    "an attribute of a layer": lambda net, h: net.conv1.out_channels,
}


@pytest.mark.parametrize("function", LOST)
@pytest.mark.parametrize("source", SOURCES)
def test_a_network_is_refused_that_would_be_wrong_because_a_number_of_channels_got_lost(
    function: str, source: str
) -> None:
    with pytest.raises(ps.TraceError, match="with fewer channels is something else"):
        ps.trace(_scaled_by(LOST[function], SOURCES[source]), SMALL, min_channels=1)


@pytest.mark.parametrize("function", FOUND)
@pytest.mark.parametrize("source", SOURCES)
def test_channels_stay_whose_number_got_lost_and_is_another_fraction_in_a_narrower_network(
    function: str, source: str
) -> None:
    network = proven(_scaled_by(FOUND[function], SOURCES[source]), SMALL, min_channels=1)
    assert "how many there are" in network.frozen["conv1"]


def _scaled_by(function: Callable[[Any], Any], source: Callable[[Any, Any], Any]) -> Middle:
    model = Middle(lambda net, h, x: h.view(-1, net.width, 6, 6) * function(source(net, h)))
    model.width = 8
    return model


def test_numbers_of_channels_that_are_only_handed_on_cost_nothing() -> None:
    network = proven(Middle(lambda net, h, x: h.flatten(2).view(h.shape[0], h.shape[1], *h.shape[2:])), SMALL)
    assert list(network.frozen) == ["fc"]
