"""Searchers that learn from scores: what each promises beyond the contract."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest

from prunesearch.budget import Budget
from prunesearch.search import make_searcher
from prunesearch.search.bayes import SAMPLERS, BayesSearcher
from prunesearch.search.genetic import GeneticSearcher, GeneticSettings
from prunesearch.search.nsga2 import NSGA2Searcher, NSGA2Settings
from prunesearch.search.searcher import Searcher
from prunesearch.search.surrogate import (
    Prediction,
    SurrogateSettings,
    fit_process,
    fit_trend,
    normal_errors,
    normal_scores,
)
from prunesearch.search.variation import survivors
from prunesearch.structure import Structure
from prunesearch.trial import Trial, pareto_front
from tests.toys import bowl, chain_space, evidence, trial, trials_of, with_costs

SPACE = chain_space((32, 48, 64, 64, 48, 32), 16)
BUDGET = Budget(macs="40%")
SCORE = bowl(SPACE, (0.9, 0.3, 0.7, 0.4, 0.8, 0.5))


def played(searcher: Searcher, n: int, score: Callable[[Structure], float] = SCORE) -> list[Trial]:
    trials: list[Trial] = []
    while len(trials) < n and (asked := searcher.ask(n - len(trials))):
        trials += trials_of(asked, score, start=len(trials))
        searcher.tell(trials[-len(asked) :])
    return trials


def best_score(name: str, seed: int, n: int, score: Callable[[Structure], float] = SCORE) -> float:
    searcher = make_searcher(name, SPACE, BUDGET, seed=seed, **evidence(SPACE, name))
    return max(trial.score for trial in played(searcher, n, score) if trial.score is not None)


def saturating(structure: Structure) -> float:
    """What networks look like: each group loses the more the narrower it is, some more than others."""
    rates = (2.0, 8.0, 4.0, 6.0, 3.0, 5.0)
    kept = np.array(structure) / np.array(SPACE.full)
    return -float(np.exp(-np.array(rates) * kept).sum())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("surrogate", 60), ("genetic", 100), ("bayes", 60)])
def test_it_beats_random_search_at_equal_evaluations(name: str, n: int) -> None:
    """12 seeds: if the two were equal, 11 or more of 12 pairs ahead would come with probability 0.003."""
    ahead = [best_score(name, seed, n, saturating) > best_score("random", seed, n, saturating) for seed in range(12)]
    assert sum(ahead) >= 11


@pytest.mark.slow
def test_the_surrogate_needs_fewer_evaluations_than_evolution() -> None:
    """12 seeds, probability of 11 or more by luck 0.003; it has 60 evaluations, evolution 120."""
    assert sum(best_score("surrogate", seed, 60) > best_score("evolution", seed, 120) for seed in range(12)) >= 11


def test_a_process_without_noise_goes_through_what_it_was_told() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.random((40, 3))
    values = np.sin(3 * inputs[:, 0]) + inputs[:, 1] ** 2
    process = fit_process(inputs, values)
    assert np.abs(process.predict(inputs) - values).max() < 0.05
    assert np.diag(process.covariance(inputs)).max() < 0.01
    elsewhere = rng.random((200, 3))
    truth = np.sin(3 * elsewhere[:, 0]) + elsewhere[:, 1] ** 2
    assert np.corrcoef(process.predict(elsewhere), truth)[0, 1] > 0.95


def test_a_process_far_from_everything_knows_nothing() -> None:
    process = fit_process(np.random.default_rng(0).random((20, 2)), np.arange(20.0))
    far = np.full((1, 2), 1e3)
    assert process.predict(far)[0] == pytest.approx(0.0)
    assert process.covariance(far)[0, 0] == pytest.approx(1.0)


def test_a_trend_rises_with_every_width_whatever_it_was_told() -> None:
    rng = np.random.default_rng(0)
    basis = rng.random((30, 4))
    trend = fit_trend(basis, basis @ [3.0, 1.0, 0.0, -2.0])
    assert (trend.slopes >= 0).all()
    assert trend.slopes[0] > trend.slopes[1] > trend.slopes[3] == 0


def test_normal_scores_keep_the_order_and_do_not_mind_how_bad_the_worst_is() -> None:
    one, other = (normal_scores(np.array([0.1, worst, 0.3, 0.2, 0.3])) for worst in (0.0, -1e9))
    assert one.tolist() == other.tolist()
    assert one.argmin() == 1
    assert one[2] == one[4] == one.max()


def test_the_closed_form_is_a_weighted_sum_that_learns_which_group_matters() -> None:
    errors = [1 - np.array(group.widths) / group.width for group in SPACE.groups]
    searcher = GeneticSearcher(SPACE, BUDGET, errors=errors)
    half = [width // 2 for width in SPACE.full]
    assert searcher.screen(np.array([half, SPACE.full])) == pytest.approx([6 * 0.5, 0.0])
    played(searcher, 60, lambda structure: structure[2] / SPACE.full[2])
    assert searcher.sensitivity_order[-1] == 2


def test_sensible_groups_are_the_last_to_be_narrowed_before_anything_is_scored() -> None:
    errors = [np.linspace(1, 0, 16) * (10 if g == 3 else 0.1) for g in range(6)]
    asked = GeneticSearcher(SPACE, BUDGET, errors=errors, settings=GeneticSettings(newcomers=0)).ask(5)
    assert all(structure[3] / SPACE.full[3] >= 0.9 for structure in asked)


@pytest.mark.parametrize("screened", [2, 3, 4])
def test_the_smallest_generation_has_a_parent(screened: int) -> None:
    settings = GeneticSettings(population=2, parents=2, screened=screened)
    searcher = GeneticSearcher(SPACE, BUDGET, settings=settings, **evidence(SPACE, "genetic"))
    assert len(played(searcher, 12)) == 12


def test_survivors_are_the_non_dominated() -> None:
    objectives = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.4], [0.4, 0.5], [0.3, 0.3], [0.0, 0.0]])
    assert set(survivors(objectives, 4)) == {0, 1, 2, 3}


@pytest.mark.slow
def test_one_study_gives_a_front_that_random_search_at_the_budget_does_not() -> None:
    """The area under the front of score against used budget, for 8 seeds: all 8 ahead has probability 0.004 by luck."""
    feasible = BUDGET.check(SPACE)

    def area(trials: list[Trial]) -> float:
        points = [(float(feasible.usage([t.structure])[0]), t.score) for t in pareto_front(with_costs(trials, SPACE))]
        marks = np.linspace(0.3, 1.0, 50)
        return float(
            np.mean([max([s for used, s in points if s is not None and used <= m], default=-2.0) for m in marks])
        )

    for seed in range(8):
        found = area(played(NSGA2Searcher(SPACE, BUDGET, seed=seed), 150))
        assert found > area(played(make_searcher("random", SPACE, BUDGET, seed=seed), 150))


def sampled(sampler: str, seed: int = 3, batch_size: int = 8) -> BayesSearcher:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    options = {"population_size": 8} if sampler == "nsga2" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return BayesSearcher(
            SPACE, BUDGET, seed=seed, sampler=sampler, sampler_options=options, batch_size=batch_size, n_startup=8
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_sampler_of_optuna_will_do_and_is_as_reproducible_also_where_a_run_is_cut_in_two(sampler: str) -> None:
    n = 24 if sampler == "gp" else 36  # which is slow
    whole = [trial.structure for trial in played(sampled(sampler), n)]
    searcher = sampled(sampler)
    parts = [trial.structure for part in (13, n - 13) for trial in played(searcher, part)]
    assert parts == whole
    assert len(set(whole)) == n


@pytest.mark.slow
@pytest.mark.parametrize("sampler", sorted({*SAMPLERS} - {"random", "qmc"}))
def test_a_sampler_that_learns_finds_what_scores_high(sampler: str) -> None:
    """Of the same seed, one is told the scores and one their negatives."""
    n, last = (28, 12) if sampler == "gp" else (72, 24)
    ups, downs = (
        [SCORE(trial.structure) for trial in played(sampled(sampler), n, score)[8:]]
        for score in (SCORE, lambda structure: -SCORE(structure))
    )
    assert ups != downs
    assert np.mean(ups[-last:]) > np.mean(downs[-last:]) + 0.5 * np.std(downs)


def test_what_was_told_but_not_drawn_is_not_taken_for_what_cmaes_drew() -> None:
    searcher = sampled("cmaes")
    known = [trial.structure for trial in played(make_searcher("random", SPACE, BUDGET, seed=9), 24)]
    searcher.tell(trials_of(known, SCORE))
    assert len({trial.structure for trial in played(searcher, 40)} | set(known)) == 64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_another_seed_is_another_sequence_of_qmc() -> None:
    one, other, again = ({trial.structure for trial in played(sampled("qmc", seed), 40)} for seed in (0, 1, 0))
    assert len(one & other) < 10
    assert one == again


def test_what_failed_before_anything_was_scored_is_told_to_the_sampler_too() -> None:
    structures = [t.structure for t in played(make_searcher("random", SPACE, BUDGET), 24)]
    failed = [trial(number, structure, None) for number, structure in enumerate(structures[:12])]
    scored = trials_of(structures[12:], SCORE, start=12)
    proposed = []
    for tellings in ([failed, scored], [[*failed, *scored]]):
        searcher = BayesSearcher(SPACE, BUDGET, n_startup=1)
        searcher.ask(1)
        for trials in tellings:
            searcher.tell(trials)
        proposed.append(searcher.ask(8))
    assert proposed[0] == proposed[1]


def test_optuna_is_as_talkative_as_before() -> None:
    before = optuna.logging.get_verbosity()
    played(BayesSearcher(SPACE, BUDGET), 30)
    assert optuna.logging.get_verbosity() == before


def test_an_unknown_sampler_or_option_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown sampler 'tbe'.*Did you mean 'tpe'"):
        BayesSearcher(SPACE, BUDGET, sampler="tbe")
    with pytest.raises(TypeError, match="nonsense"):
        BayesSearcher(SPACE, BUDGET, sampler_options={"nonsense": 1})


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: GeneticSettings(population=1), "population"),
    (lambda: GeneticSettings(mutation_probability=0), "mutation_probability"),
    (lambda: NSGA2Settings(population=2), "population"),
    (lambda: NSGA2Settings(lowest_share=0), "lowest_share"),
    (lambda: NSGA2Settings(mutation_probability=0), "mutation_probability in"),
    (lambda: NSGA2Settings(mutation_probability=1.5), "or None, got 1.5"),
    (lambda: SurrogateSettings(batch_size=0), "batch_size >= 1"),
    (lambda: BayesSearcher(SPACE, BUDGET, batch_size=0), "batch_size"),
    (lambda: BayesSearcher(SPACE, BUDGET, n_startup=0), "n_startup"),
    (lambda: GeneticSearcher(SPACE, BUDGET, errors=[np.zeros(3)] * 6), "errors for each"),
    (lambda: GeneticSearcher(SPACE, BUDGET, errors=[-np.ones(16)] * 6), "at least 0"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_what_makes_no_sense_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_process_believes_what_is_exact_more_than_what_is_an_estimate() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.random((60, 2))
    truth = np.sin(3 * inputs[:, 0])
    noise = np.where(np.arange(60) < 30, 0.0, 1.0)
    values = truth + noise * rng.normal(size=60)
    told, untold = (fit_process(inputs, values, known) for known in (noise**2, None))
    errors = [np.abs(process.predict(inputs) - truth).mean() for process in (told, untold)]
    assert errors[0] < 0.5 * errors[1]


def test_a_standard_error_among_ranks_is_how_far_it_moves_a_score_among_the_others() -> None:
    scores = np.linspace(0.0, 1.0, 101)
    errors = np.full(101, 0.1)
    found = normal_errors(scores, errors)
    moved = normal_scores(scores)[60] - normal_scores(scores)[40]
    assert found[50] == pytest.approx(moved / 2)
    assert (found[[0, 100]] > found[50]).all()  # there the same error is worth more quantiles
    assert (normal_errors(scores, np.zeros(101)) == 0).all()


def test_a_prediction_from_estimates_is_better_when_told_how_good_each_is() -> None:
    """Every eighth score is exact, the others are off by as much as structures differ."""
    feasible = BUDGET.check(SPACE)

    def correlation(seed: int, *, told: bool) -> float:
        rng = np.random.default_rng(seed)
        structures, others = (feasible.fit(SPACE.sample(rng, n)) for n in (120, 200))
        truth, elsewhere = (np.array([SCORE(tuple(row)) for row in rows.tolist()]) for rows in (structures, others))
        errors = np.where(np.arange(120) % 8 == 0, 0.0, 1.5 * truth.std())
        scores = truth + errors * rng.normal(size=120)
        prediction = Prediction(SPACE, structures, scores, errors if told else None)
        return float(np.corrcoef(prediction.mean(others), elsewhere)[0, 1])

    ahead = [correlation(seed, told=True) > correlation(seed, told=False) for seed in range(12)]
    assert sum(ahead) >= 11  # of twelve by luck: probability 0.003
