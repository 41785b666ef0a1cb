"""Optuna's samplers over widths: TPE and every other one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler

from prunesearch.budget import BudgetOrSet, as_structures
from prunesearch.registry import resolve
from prunesearch.search.proposals import BatchSearcher, put_random
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import Space
from prunesearch.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SAMPLERS: Mapping[str, str] = {
    "tpe": "optuna.samplers:TPESampler",
    "gp": "optuna.samplers:GPSampler",
    "cmaes": "optuna.samplers:CmaEsSampler",
    "nsga2": "optuna.samplers:NSGAIISampler",
    "qmc": "optuna.samplers:QMCSampler",
    "random": "optuna.samplers:RandomSampler",
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"tpe": {"multivariate": True, "constant_liar": True}}
_TRIES = 2  # draws per proposal before a random structure takes the place of repeats


class BayesSearcher(BatchSearcher):
    """Asks an Optuna sampler for the position of each width among the allowed ones, and scales that to the budget.

    Source: Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011 (TPE); Akiba et al., Optuna, KDD
    2019. The sampler is told the scaled structure, not what it drew, so it learns about what was scored. A batch is
    asked for at once; TPE keeps its members apart by counting the unfinished ones as bad (constant liar).

    Every proposal comes from a sampler made for it from the seed and its number, with the same study of earlier trials;
    so the history is a function of the seed, as Optuna's own is not once a study is resumed.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.
        sampler: One of `SAMPLERS`; some need a package more, as `"cmaes"` needs cmaes.
        sampler_options: Further arguments of the sampler's constructor.
        batch_size: Structures per batch. More is faster and learns less often.
        n_startup: Random structures before the sampler is asked.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        ValueError: Unknown sampler.
        TypeError: The sampler does not take one of the options.
    """

    def __init__(
        self,
        space: Space,
        budget: BudgetOrSet,
        *,
        seed: int = 0,
        sampler: str = "tpe",
        sampler_options: Mapping[str, Any] | None = None,
        batch_size: int = 8,
        n_startup: int = 16,
    ) -> None:
        super().__init__(space, budget, seed=seed)
        if batch_size < 1 or n_startup < 1:
            raise ValueError(f"Expected batch_size and n_startup of at least 1, got {batch_size} and {n_startup}.")
        self._kind = resolve(SAMPLERS, sampler, "sampler")
        self._options = {**_DEFAULTS.get(sampler, {}), **(sampler_options or {})}
        self._batch_size = batch_size
        self._n_startup = n_startup
        self._drawn = 0
        self._learnt = 0  # of the trials told, those that the sampler knows
        self._distributions: dict[str, BaseDistribution] = {
            f"group{i}": IntDistribution(0, int(choices) - 1) for i, choices in enumerate(space.choices)
        }
        with _quiet():
            self._study = optuna.create_study(direction="maximize", sampler=self._sampler())

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put random structures first, then what the sampler proposes."""
        if batch == 0:
            self.queue.put([uniform_structure(self.feasible)])
            put_random(self.queue, self.feasible, rng, self._n_startup - 1)
            return
        with _quiet():
            running: list[optuna.Trial] = []
            while len(self.queue) < self._batch_size and len(running) < _TRIES * self._batch_size:
                running.append(self._draw())  # unfinished, they keep the next ones away
            for trial in running:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)  # what is told is the scaled structure
        put_random(self.queue, self.feasible, rng, self._batch_size - len(self.queue))

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add the trials to the sampler's study, those of other searchers included; failed ones as the worst so far.

        What failed before anything has a score waits until something has.
        """
        super().tell(trials)
        structures, scores = self.told.scored()
        before, self._learnt = self._learnt, len(scores)
        with _quiet():
            for genes, score in zip(self.space.indices(structures[before:]).tolist(), scores[before:], strict=True):
                params = dict(zip(self._distributions, genes, strict=True))
                self._study.add_trial(
                    optuna.trial.create_trial(params=params, distributions=self._distributions, value=float(score))
                )

    def _draw(self) -> optuna.Trial:
        self._study.sampler = self._sampler()
        trial = self._study.ask(self._distributions)
        genes = [[trial.params[name] for name in self._distributions]]
        self.queue.put(as_structures(self.feasible.fit(self.space.from_indices(genes))))
        return trial

    def _sampler(self) -> BaseSampler:
        seed = int(np.random.default_rng([self._seed, 2, self._drawn]).integers(2**31))
        self._drawn += 1
        sampler: BaseSampler = self._kind(seed=seed, **self._options)
        return sampler


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna logs every trial, and warns of features that may change; neither is the user's concern here."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
