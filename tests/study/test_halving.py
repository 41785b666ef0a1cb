"""Screening: cheap scores decide who is scored dearly, the same after a kill."""

from __future__ import annotations

import pytest

from prunesearch.structure import Structure
from prunesearch.study.executors import HalvingExecutor, InlineExecutor
from prunesearch.trial import SCREENED_OUT
from tests.study.test_study import Scorer

BATCH: list[Structure] = [(i,) for i in (3, 9, 1, 7, 5, 8, 2, 6)]


def width(structure: Structure) -> float:
    return float(structure[0])


def test_only_the_survivors_of_each_rung_are_scored_on_the_next() -> None:
    scorers = [Scorer(width), Scorer(width), Scorer(lambda structure: 10 * width(structure))]
    outcomes = list(HalvingExecutor([InlineExecutor(s) for s in scorers], keep=0.5).run(BATCH))
    assert [len(scorer.scored) for scorer in scorers] == [8, 4, 2]
    assert [outcome.score for outcome in outcomes] == [None, 90.0, None, None, None, 80.0, None, None]
    assert outcomes[0].failure == f"{SCREENED_OUT} rung 1, place 6 of 8, 3."
    assert outcomes[3].failure == f"{SCREENED_OUT} rung 2, place 3 of 4, 7."


@pytest.mark.parametrize("recorded", range(9))
def test_a_resumed_batch_is_screened_as_if_it_was_never_interrupted(recorded: int) -> None:
    def executor() -> HalvingExecutor:
        return HalvingExecutor([InlineExecutor(Scorer(width)), InlineExecutor(Scorer(width))], keep=0.3)

    whole = [(outcome.score, outcome.failure) for outcome in executor().run(BATCH)]
    rest = [(outcome.score, outcome.failure) for outcome in executor().run(BATCH, recorded)]
    assert rest == whole[recorded:]


def test_what_cannot_be_scored_cheaply_fails_and_somebody_survives() -> None:
    def some(structure: Structure) -> float:
        if structure[0] != 7:
            raise RuntimeError("no memory")
        return 7.0

    outcomes = list(HalvingExecutor([InlineExecutor(Scorer(some)), InlineExecutor(Scorer(width))], keep=0.1).run(BATCH))
    assert [outcome.score for outcome in outcomes if outcome.score is not None] == [7.0]
    assert outcomes[0].failure == "RuntimeError: no memory"


@pytest.mark.parametrize(("rungs", "keep"), [(0, 0.5), (1, 0.0), (1, 1.5)])
def test_settings_that_make_no_sense_are_refused(rungs: int, keep: float) -> None:
    with pytest.raises(ValueError, match="at least one rung and a share"):
        HalvingExecutor([InlineExecutor(Scorer(width))] * rungs, keep=keep)
