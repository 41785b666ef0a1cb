"""Whatever an evaluator gives or does becomes an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from prunesearch.structure import Structure
from prunesearch.study.scoring import score_all, score_one, sentence


class Gives:
    """Gives something for every structure."""

    def __init__(self, what: Any) -> None:
        self._what = what

    def score(self, structures: Sequence[Structure]) -> list[float]:
        if isinstance(self._what, BaseException):
            raise self._what
        return [self._what] * len(structures)


@pytest.mark.parametrize(
    "number", [1, 0.5, np.float32(0.5), np.int64(3), torch.tensor(0.25), torch.tensor([2.0]), True]
)
def test_numbers_and_what_holds_one_are_scores(number: Any) -> None:
    outcomes = score_all(Gives(number), [(1,), (2,)])
    assert [outcome.score for outcome in outcomes] == [float(number)] * 2
    assert all(type(outcome.score) is float for outcome in outcomes)


WRONG = {
    "None": (None, "The score is not a number but a NoneType."),
    "a text": ("0.5", "The score is not a number but a str."),
    "bytes": (b"1", "The score is not a number but a bytes."),
    "a list": ([0.5], "The score is not a number but a list."),
    "a complex number": (1j, "The score is not a number but a complex."),
    "NaN": (float("nan"), "The score is nan."),
    "infinity": (-np.inf, "The score is -inf."),
    "a tensor of several": (torch.zeros(3), "The score is not a number: "),
    "a number too large": (Fraction(10**400), "The score is not a number: OverflowError:"),
}


@pytest.mark.parametrize(("given", "expected"), WRONG.values(), ids=WRONG)
def test_what_is_no_number_is_a_failure_that_says_what_came(given: Any, expected: str) -> None:
    outcomes = [*score_all(Gives(given), [(1,), (2,)]), score_one(Gives(given), (1,))]
    assert len(outcomes) == 3
    for outcome in outcomes:
        assert outcome.score is None
        assert (outcome.failure or "").startswith(expected)


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, 2.0, 3.0]])
def test_scores_of_another_number_than_the_structures_are_nobodys(scores: list[float]) -> None:
    class Miscounts:
        def score(self, structures: Sequence[Structure]) -> list[float]:
            return scores

    outcomes = list(score_all(Miscounts(), [(1,), (2,)]))
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert outcome.score is None
        assert outcome.failure == (
            "The evaluator breaks the contract Evaluator: score(structures) gave "
            f"{len(scores)} scores for 2 structures; expected one for each, in order."
        )


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "MemoryError: no message"),
        (SystemExit(3), "SystemExit: 3"),
        (RuntimeError("first\nsecond"), "RuntimeError: first"),
        (RuntimeError("a \0 and \ud800"), "RuntimeError: a  and ?"),
        (Unprintable(), "Unprintable: no message"),
        (RuntimeError("x" * 10_000), "RuntimeError: " + "x" * 486),
    ],
)
def test_an_exception_is_a_line_that_every_database_can_store(error: BaseException, expected: str) -> None:
    assert sentence(error) == expected
    assert score_all(Gives(error), [(1,)])[0].failure == expected


def test_an_interrupt_is_not_a_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        score_all(Gives(KeyboardInterrupt()), [(1,)])
