"""A search that needs no network: what other processes run, too, so it imports neither pytest nor torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunesearch.budget import Budget
from prunesearch.search import make_searcher
from prunesearch.structure import Structure
from prunesearch.study.executors import InlineExecutor
from prunesearch.study.study import Study
from prunesearch.trial import Trial
from tests.toys import bowl, chain_space, evidence

SPACE = chain_space((16, 24, 32), 8)
BUDGET = Budget(macs="50%")
SCORE = bowl(SPACE, (0.4, 0.6, 0.5))
QUESTION = {"budget": "50%", "searcher": "random()", "seed": 0}


class Scorer:
    """Scores with a function and counts what it scored."""

    def __init__(self, score: Callable[[Structure], float] = SCORE) -> None:
        self.scored: list[Structure] = []
        self._score = score

    def score(self, structures: Sequence[Structure]) -> list[float]:
        self.scored += structures
        return [self._score(structure) for structure in structures]


def run(
    url: str, n_trials: int, *, scorer: Scorer | None = None, searcher: str = "evolution", seed: int = 0
) -> list[Trial]:
    with Study(url, "toy", QUESTION, SPACE) as study:
        return study.run(
            make_searcher(searcher, SPACE, BUDGET, seed=seed, **evidence(SPACE, searcher)),
            InlineExecutor(scorer or Scorer()),
            n_trials,
            searcher_name=searcher,
            evaluator_name="toy",
        )


def history(trials: Sequence[Trial]) -> list[tuple[int, Structure, float | None]]:
    return [(trial.number, trial.structure, trial.score) for trial in trials]
