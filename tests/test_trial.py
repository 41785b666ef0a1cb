from __future__ import annotations

import dataclasses

from prunesearch.structure import Cost
from prunesearch.trial import Trial, best, cheapest, extended, pareto_front, ranked
from tests.toys import trial


def test_the_best_trial_is_the_earliest_of_the_highest_and_never_a_failed_one() -> None:
    trials = [trial(0, (1,), None), trial(1, (2,), 0.5), trial(2, (3,), 0.7), trial(3, (4,), 0.7)]
    assert best(trials) == trials[2]
    assert [each.number for each in ranked(trials)] == [2, 3, 1]


def test_the_front_is_what_nothing_else_beats_in_both() -> None:
    costs_and_scores = [(10, 0.5), (20, 0.4), (20, 0.7), (30, 0.7), (40, 0.9), (5, None), (10, 0.5)]
    trials = [
        dataclasses.replace(trial(i, (i,), score), cost=Cost(macs, 1))
        for i, (macs, score) in enumerate(costs_and_scores)
    ]
    assert [each.number for each in pareto_front(trials)] == [0, 2, 4]
    assert pareto_front([]) == []
    front: list[Trial] = []
    for count, each in enumerate(trials):
        front = extended(front, each)
        assert front == pareto_front(trials[: count + 1])


def test_the_cheapest_of_those_that_are_good_enough() -> None:
    trials = [dataclasses.replace(trial(i, (i,), 0.1 * i), cost=Cost(10 * i, 1)) for i in range(1, 6)]
    found = cheapest(trials, at_least=0.25)
    assert found is not None
    assert found.number == 3
    assert cheapest(trials, at_least=0.9) is None


def test_without_a_scored_trial_there_is_no_best() -> None:
    assert best([trial(0, (1,), None)]) is None
    assert best([]) is None
