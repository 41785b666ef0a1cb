"""A number that a caller gives is taken, or named in a sentence with what was expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from prunesearch.ranges import number, whole_number
from prunesearch.shares import error_of_difference


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_of_any_type_will_do(value: Any) -> None:
    found = whole_number("n", value, at_least=3)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize(
    ("value", "error"),
    [(2, ValueError), (-1, ValueError), (2.5, TypeError), (3.0, TypeError), (None, TypeError), ("3", TypeError)],
)
def test_what_is_no_whole_number_or_too_small_is_named(value: Any, error: type[Exception]) -> None:
    expected = "n >= 3" if error is ValueError else "n as a whole number"
    with pytest.raises(error, match=f"^Expected {expected}, got {value!r}.$"):
        whole_number("n", value, at_least=3)


@pytest.mark.parametrize(
    ("interval", "inside", "outside", "words"),
    [
        ("(0, 1]", [0.1, 1, np.float32(0.5)], [0, 1.1, -1], r"in \(0, 1\]"),
        ("[0, 1)", [0, 0.9], [1, -0.1], r"in \[0, 1\)"),
        ("(0, inf)", [1e-9, 1e9], [0, -1, math.inf], "> 0"),
        ("[0, inf)", [0, 5], [-1, math.inf], ">= 0"),
    ],
)
def test_numbers_are_inside_their_interval_or_named(
    interval: str, inside: list[Any], outside: list[Any], words: str
) -> None:
    for value in inside:
        assert number("x", value, interval) == value
    for value in (*outside, math.nan):
        with pytest.raises(ValueError, match=f"^Expected x {words}, got"):
            number("x", value, interval)
    for value in (None, "1", [0.5]):
        with pytest.raises(TypeError, match=r"^Expected x as a number, got"):
            number("x", value, interval)


def test_shares_of_few_examples_err_even_where_all_are_right() -> None:
    assert error_of_difference([1.0, 1.0], 200) == pytest.approx(math.sqrt(2 * 202 / 204 * 2 / 204 / 204))
    usual = math.sqrt(2 * 0.8 * 0.2 / 10_000)
    assert error_of_difference([0.8, 0.95], 10_000) == pytest.approx(usual, rel=1e-3)
