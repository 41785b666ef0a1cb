"""Racing: what may be the best is scored on more images, the same however often a run is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from prunesearch.search import SEARCHERS, make_searcher
from prunesearch.structure import Structure
from prunesearch.study.executors import InlineJobs, Job
from prunesearch.study.pool import Pool, PoolJobs
from prunesearch.study.racing import AT_ONCE, RacingExecutor, Spread, Track
from prunesearch.study.scoring import Outcome
from prunesearch.study.study import Study
from prunesearch.trial import Source, Trial, best, pareto_front
from tests.study.test_pool import Backend
from tests.study.toy import BUDGET, QUESTION, SCORE, SPACE, history
from tests.toys import evidence

PARTS, IMAGES = 16, 64


def true(structure: Structure) -> float:
    """Between about -7 and 0."""
    return 10 * SCORE(structure)


class Part:
    """Scores a structure on one part: its true score, how hard the part is, and a noise of both.

    Args:
        number: Of the part.
        noise: Standard deviation of what is neither the structure's nor the part's.
        score: The true score.
    """

    def __init__(self, number: int, noise: float = 0.5, score: Callable[[Structure], float] = true) -> None:
        self.scored: list[Structure] = []
        self._number = number
        self._noise = noise
        self._score = score

    def score(self, structures: Sequence[Structure]) -> list[float]:
        self.scored += structures
        return [self._one(structure) for structure in structures]

    def _one(self, structure: Structure) -> float:
        rng = np.random.default_rng([self._number, *structure])
        hard = np.random.default_rng([self._number]).normal()
        return self._score(structure) - hard + self._noise * float(rng.normal())


class Field:
    """A race over parts, and what it scored.

    Args:
        known: As of `RacingExecutor`.
        **settings: Of every `Part`.
    """

    def __init__(self, known: dict[Structure, tuple[Trial, str]] | None = None, **settings: float) -> None:
        self.parts = [Part(number, **settings) for number in range(PARTS)]  # type: ignore[arg-type]
        self.executor = RacingExecutor(InlineJobs(self.parts), Track((IMAGES,) * PARTS), known)

    @property
    def jobs(self) -> list[Job]:
        return [(number, structure) for number, part in enumerate(self.parts) for structure in part.scored]


def run(url: str, n_trials: int, field: Field | None = None, searcher: str = "evolution") -> list[Trial]:
    with Study(url, "toy", QUESTION, SPACE) as study:
        return study.run(
            make_searcher(searcher, SPACE, BUDGET, **evidence(SPACE, searcher)),
            (field or Field()).executor,
            n_trials,
            searcher_name=searcher,
            evaluator_name="toy",
        )


def truth(structure: Structure, noise: float = 0.5) -> float:
    """Its score on all parts."""
    return float(np.mean([Part(number, noise).score([structure])[0] for number in range(PARTS)]))


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    return run("sqlite://", 120)


def test_the_winner_and_whoever_led_before_were_scored_on_all_images(trials: list[Trial]) -> None:
    for until in range(1, len(trials) + 1):
        winner = best(trials[:until])
        assert winner is not None
        assert winner.images == PARTS * IMAGES
        assert winner.error == 0
        assert winner.score == pytest.approx(truth(winner.structure), abs=1e-12)


def test_no_score_of_a_few_images_is_above_that_of_the_winner(trials: list[Trial]) -> None:
    winner = best(trials)
    assert winner is not None
    assert winner.score is not None
    assert all(trial.score <= winner.score for trial in trials if trial.score is not None)


def test_what_is_far_behind_costs_one_part_and_the_whole_race_a_fraction(trials: list[Trial]) -> None:
    winner = best(trials)
    assert winner is not None
    assert winner.score is not None
    behind = [trial for trial in trials[AT_ONCE:] if true(trial.structure) < true(winner.structure) - 3.0]
    assert behind
    assert all(trial.images == IMAGES for trial in behind)
    assert sum(trial.images or 0 for trial in trials) < 0.5 * len(trials) * PARTS * IMAGES


def test_an_estimate_is_within_its_standard_error_as_often_as_one_should_be() -> None:
    """Of normal errors 95 % are within two; those that stopped early are the unlucky ones, so a little fewer."""
    partial = [trial for trial in run("sqlite://", 400, searcher="random") if trial.error > 0]
    within = [abs(trial.score - truth(trial.structure)) <= 2 * trial.error for trial in partial]  # type: ignore[operator]
    assert len(within) > 100
    assert 0.85 <= float(np.mean(within)) <= 0.99


def test_a_lucky_part_does_not_make_a_winner() -> None:
    """With one part per structure the best of many is a lucky one; a race finds the better structure by far."""
    noise = 1.5
    raced = best(run("sqlite://", 150, Field(noise=noise), "random"))
    assert raced is not None
    structures = [trial.structure for trial in run("sqlite://", 150, Field(noise=noise), "random")]
    scores = Part(0, noise).score(structures)
    lucky = structures[int(np.argmax(scores))]
    assert true(raced.structure) > true(lucky) + 0.3


def test_groups_begin_with_other_parts(trials: list[Trial]) -> None:
    first = [trial.parts[0][0] for trial in trials]
    assert all(len(set(first[start : start + AT_ONCE])) == 1 for start in range(0, len(first), AT_ONCE))
    assert len(set(first)) > 10


PIECES = [(1, 120), (3, 9, 10, 120), (64, 120), (7, 13, 77, 119, 120)]


@pytest.mark.parametrize("stops", PIECES)
def test_a_race_in_pieces_has_the_history_of_one_in_one_go(
    tmp_path: Path, trials: list[Trial], stops: tuple[int, ...]
) -> None:
    url, field = f"sqlite:///{tmp_path / 'study.db'}", Field()
    for n_trials in stops:
        field.executor = Field().executor  # a fresh process
        field.executor._jobs = InlineJobs(field.parts)
        found = run(url, n_trials, field)
    assert [(t.structure, t.score, t.error, t.images, t.parts) for t in found] == [
        (t.structure, t.score, t.error, t.images, t.parts) for t in trials
    ]
    assert len(field.jobs) == len(set(field.jobs))  # nothing was scored twice


@pytest.mark.slow
@pytest.mark.parametrize("searcher", SEARCHERS)
def test_every_searcher_races_and_resumes(tmp_path: Path, searcher: str) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for n_trials in (1, 12, 40):
        found = run(url, n_trials, searcher=searcher)
    assert history(found) == history(run("sqlite://", 40, searcher=searcher))


class PartsCrew(Backend):
    """Workers that score on parts; the latest piece given is the first that is done."""

    def give(self, piece: int, part: int, structures: Sequence[Structure]) -> None:
        super().give(piece, part, structures)
        self._part = {**getattr(self, "_part", {}), piece: part}

    def wait(self, seconds: float) -> list:  # type: ignore[type-arg]
        from prunesearch.study.pool import Done

        if not self._busy:
            return []
        piece, structures = self._busy.popitem()
        scores = Part(self._part[piece]).score(structures)
        return [Done(piece, tuple(Outcome(score, None, None, 0.0, "w") for score in scores))]


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_the_history_is_the_same_for_any_number_of_workers(trials: list[Trial], size: int) -> None:
    field = Field()
    field.executor = RacingExecutor(PoolJobs(Pool(PartsCrew(size))), Track((IMAGES,) * PARTS))
    assert history(run("sqlite://", 120, field)) == history(trials)


def test_what_another_study_scored_is_not_scored_again(trials: list[Trial]) -> None:
    field = Field(known={trial.structure: (trial, Source("other", trial.number)) for trial in trials})
    again = run("sqlite://", 120, field)
    assert history(again) == history(trials)
    assert [trial.source for trial in again] == [Source("other", number) for number in range(len(again))]
    assert {trial.status for trial in again} == {"taken over"}
    assert field.jobs == []


def test_a_structure_that_fails_on_some_part_fails_and_fails_again_when_resumed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"

    def fragile() -> Field:
        field = Field()
        for part in field.parts[3:]:
            part._score = lambda s: true(s) if sum(s) % 5 else float("nan")
        return field

    whole = run("sqlite://", 120, fragile())
    failed = [trial for trial in whole if trial.failure is not None]
    assert {trial.failure for trial in failed} == {"The score is nan."}
    assert all(sum(trial.structure) % 5 == 0 for trial in failed)
    for n_trials in (33, 120):
        found = run(url, n_trials, fragile())
    assert history(found) == history(whole)


def test_where_costs_are_given_every_cost_has_a_leader() -> None:
    space_cost = {trial.structure: trial.cost.macs for trial in run("sqlite://", 120, searcher="nsga2")}
    field = Field()
    field.executor = RacingExecutor(
        InlineJobs(field.parts), Track((IMAGES,) * PARTS), None, lambda s: SPACE.cost(s).macs
    )
    found = run("sqlite://", 120, field, "nsga2")
    front = pareto_front(found)
    assert len(space_cost) == 120
    assert len(front) > 5
    assert sum(trial.error == 0 for trial in front) >= 0.7 * len(front)


@pytest.mark.parametrize("sizes", [(), (64,), (64, 0)])
def test_a_track_without_two_parts_is_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least two parts with images"):
        Track(sizes)


def test_a_spread_forgets_what_was_long_ago() -> None:
    spread = Spread()
    assert spread.variance(4.0) == 4.0
    for scale in (10.0, 1.0):
        for seed in range(100):
            spread.note(scale * np.random.default_rng(seed).normal(size=16))
    assert spread.variance(4.0) == pytest.approx(1.0, abs=0.3)
