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
from prunesearch.ranges import whole_number
from prunesearch.registry import resolve
from prunesearch.search.proposals import BatchSearcher, put_random
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import Space, Structure
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
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "tpe": {"multivariate": True, "constant_liar": True},
    "qmc": {"scramble": True},  # otherwise its seed decides nothing
}
_ONE_SEED = ("qmc",)  # the seed tells its sequences apart; how far one has come stands in the study
_TRIES = 2  # draws per proposal before a random structure takes the place of repeats


class BayesSearcher(BatchSearcher):
    """Asks an Optuna sampler for the position of each width among the allowed ones, and scales that to the budget.

    Source: Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011 (TPE); Akiba et al., Optuna, KDD
    2019. The sampler is told the scaled structure, not what it drew, so it learns about what was scored. A batch is
    asked for at once; TPE keeps its members apart by counting the unfinished ones as bad (constant liar).

    Every proposal comes from a sampler made for it from the seed and its number, with the same study of earlier trials;
    so the history is a function of the seed, as Optuna's own is not once a study is resumed.

    TPE and the Gaussian process learn from every trial told. CMA-ES and NSGA-II learn only from trials that they drew
    here, a generation at a time: what is told beside them, such as the random structures at the beginning, teaches them
    nothing, and where what is recorded is told to a fresh searcher, as a run whose trials are told as they are finished
    does when it continues, they begin with their first generation. QMC and random search never learn.

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
        ValueError: Unknown sampler, or sizes below 1.
        TypeError: The sampler does not take one of the options, or a size is no whole number.
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
        self._kind = resolve(SAMPLERS, sampler, "sampler")
        self._has_one_seed = sampler in _ONE_SEED
        self._options = {**_DEFAULTS.get(sampler, {}), **(sampler_options or {})}
        self._batch_size = whole_number("batch_size", batch_size, at_least=1)
        self._n_startup = whole_number("n_startup", n_startup, at_least=1)
        self._drawn = 0
        self._learnt = 0  # of the trials told, those that the sampler knows
        self._notes: dict[Structure, Mapping[str, Any]] = {}  # what samplers noted of proposals that are not told yet
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
            running: list[tuple[optuna.Trial, Structure | None]] = []
            while len(self.queue) < self._batch_size and len(running) < _TRIES * self._batch_size:
                running.append(self._draw())  # unfinished, they keep the next ones away
            for trial, structure in running:  # what is told is the scaled structure
                finished = self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                if structure is not None:
                    self._notes[structure] = finished.system_attrs
        put_random(self.queue, self.feasible, rng, self._batch_size - len(self.queue))

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add the trials to the sampler's study, those of other searchers included; failed ones as the worst so far.

        What failed before anything has a score waits until something has.
        """
        super().tell(trials)
        structures, scores = self.told.scored()
        before, self._learnt = self._learnt, len(scores)
        with _quiet():
            new, indices = as_structures(structures[before:]), self.space.indices(structures[before:]).tolist()
            for structure, genes, score in zip(new, indices, scores[before:], strict=True):
                notes = self._notes.pop(structure, {})
                params = dict(zip(self._distributions, genes, strict=True))
                self._study.add_trial(
                    optuna.trial.create_trial(
                        params=params,
                        distributions=self._distributions,
                        value=float(score),
                        system_attrs=dict(notes),
                    )
                )

    def _draw(self) -> tuple[optuna.Trial, Structure | None]:
        """A trial with the structure that it put into the queue; None if that is no new one."""
        self._study.sampler = self._sampler()
        trial = self._study.ask(self._distributions)
        genes = [[trial.params[name] for name in self._distributions]]
        (structure,) = as_structures(self.feasible.fit(self.space.from_indices(genes)))
        return trial, structure if self.queue.put([structure]) else None

    def _sampler(self) -> BaseSampler:
        number = 0 if self._has_one_seed else self._drawn
        seed = int(np.random.default_rng([self._seed, 2, number]).integers(2**31))
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
