"""What policies.py and actors.py measure is what they say."""

from __future__ import annotations

import actors
import numpy as np
import policies
from searchers import Landscape, every_structure, synthetic_space

import prunesearch as ps
from prunesearch.search.conditional import ConditionalSearcher
from prunesearch.trial import Trial

SPACE = synthetic_space(groups=4, choices=4)
SCORES = actors.linear(every_structure(SPACE) / np.array(SPACE.full), np.random.default_rng(0))
LANDSCAPE = Landscape(SPACE, ps.Budget(macs="40%"), SCORES, {})


def test_the_present_arm_is_the_searcher_of_the_package() -> None:
    arm = actors.ARMS["present"]
    mine, theirs = actors.Variant(SPACE, LANDSCAPE.budget, arm, 3), ConditionalSearcher(SPACE, LANDSCAPE.budget, seed=3)
    told: tuple[list[Trial], list[Trial]] = ([], [])
    for searcher, trials in zip((mine, theirs), told, strict=True):
        policies.play(searcher, LANDSCAPE, trials, 30)
    assert [trial.structure for trial in told[0]] == [trial.structure for trial in told[1]]
    assert mine.policy(1.0) == theirs.policy(1.0)


def test_the_former_arm_says_shares_and_may_keep_as_little_as_there_is() -> None:
    former = actors.Variant(SPACE, LANDSCAPE.budget, actors.ARMS["former"], 3)
    policies.play(former, LANDSCAPE, [], 30)
    wanted, slopes = former.wanted(former.policy(1.0))
    assert wanted.shape == slopes.shape == (4,)
    assert ((wanted >= 0) & (wanted <= 1)).all()
    feasible = LANDSCAPE.budget.check(SPACE)
    present = ConditionalSearcher(SPACE, LANDSCAPE.budget)
    kept = SPACE.minimum[:3]
    assert former.walk.allowed(kept, feasible, [3])[0][0] == SPACE.minimum[3]
    assert present.walk.allowed(kept, feasible, [3])[0][0] > SPACE.minimum[3]  # or some of the budget were left


def test_a_regret_within_a_share_is_against_the_best_within_it() -> None:
    part = policies.within(LANDSCAPE, 0.6)
    inside = part.budget.check(SPACE)
    structures = every_structure(SPACE)
    best = structures[np.where(inside.contains(structures), SCORES, -np.inf).argmax()]
    trials: list[Trial] = []
    policies.play(ConditionalSearcher(SPACE, part.budget), part, trials, 10)
    assert policies.regret_of(part, tuple(best.tolist())) == 0
    assert policies.best_within(part, trials) == min(policies.regret_of(part, trial.structure) for trial in trials)
    tight = policies.within(LANDSCAPE, 0.3)
    assert not tight.budget.check(SPACE).contains([trial.structure for trial in trials]).any()
    assert policies.best_within(tight, trials) == policies.regret_of(tight, SPACE.minimum)
