from __future__ import annotations

from prunesearch.trial import best, ranked
from tests.toys import trial


def test_the_best_trial_is_the_earliest_of_the_highest_and_never_a_failed_one() -> None:
    trials = [trial(0, (1,), None), trial(1, (2,), 0.5), trial(2, (3,), 0.7), trial(3, (4,), 0.7)]
    assert best(trials) == trials[2]
    assert [each.number for each in ranked(trials)] == [2, 3, 1]


def test_without_a_scored_trial_there_is_no_best() -> None:
    assert best([trial(0, (1,), None)]) is None
    assert best([]) is None
