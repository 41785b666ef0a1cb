"""In what order and how thoroughly structures are scored. The searcher and the study never notice."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from prunesearch.structure import Structure
from prunesearch.study.scoring import Outcome, Scorer, score_all
from prunesearch.trial import SCREENED_OUT


class Executor(Protocol):
    """Scores structures somewhere, and gives the outcomes back in the order asked."""

    def run(self, structures: Sequence[Structure], recorded: int = 0) -> Generator[Outcome, None, None]:
        """Yield one outcome per structure, in order, each as soon as it is known.

        Args:
            structures: A batch as the searcher asked for it.
            recorded: How many of the first need no outcome: they were scored in an earlier run.
        """


class InlineExecutor:
    """Scores in this process.

    Args:
        scorer: The evaluator.
        at_once: Structures it is given in one call. More share more of their work; fewer are recorded sooner.
    """

    def __init__(self, scorer: Scorer, *, at_once: int = 16) -> None:
        self._scorer = scorer
        self._at_once = at_once

    def run(self, structures: Sequence[Structure], recorded: int = 0) -> Generator[Outcome, None, None]:
        """Score each structure; an exception of the evaluator is an outcome, an interrupt is not."""
        for start in range(recorded, len(structures), self._at_once):
            yield from score_all(self._scorer, structures[start : start + self._at_once])


class RememberingExecutor:
    """Takes scores that are known already, and has the others scored.

    Args:
        executor: Scores the others.
        known: Scores of structures, found by the same evaluator on the same network and data, and where they stand.
    """

    def __init__(self, executor: Executor, known: Mapping[Structure, tuple[float, str]]) -> None:
        self._executor = executor
        self._known = known

    def run(self, structures: Sequence[Structure], recorded: int = 0) -> Generator[Outcome, None, None]:
        """Yield what is known in its place among what is scored."""
        fresh = structures[recorded:]
        scored = self._executor.run([structure for structure in fresh if structure not in self._known])
        for structure in fresh:
            if structure in self._known:
                score, place = self._known[structure]
                yield Outcome(score, None, None, 0.0, place)
            else:
                yield next(scored)


class HalvingExecutor:
    """Scores every batch cheaply first, and only the survivors dearly, rung by rung (successive halving).

    What is screened out has no score: scores of different rungs cannot be compared.

    Source: Jamieson and Talwalkar, AISTATS 2016, arXiv:1502.07943. Departs from it: a batch is what a searcher asked
    for at once, and so many survive each rung as asked for, not always half.

    Args:
        rungs: Executors, the cheapest first; the last one's scores count.
        keep: Share of a batch that survives each rung but the last, at least one structure.

    Raises:
        ValueError: No rung, or a share outside (0, 1].
    """

    def __init__(self, rungs: Sequence[Executor], *, keep: float) -> None:
        if not rungs or not 0 < keep <= 1:
            raise ValueError(f"Expected at least one rung and a share in (0, 1], got {len(rungs)} and {keep}.")
        self._rungs = tuple(rungs)
        self._keep = keep

    def run(self, structures: Sequence[Structure], recorded: int = 0) -> Generator[Outcome, None, None]:
        """Screen the whole batch, what is recorded of it included, so that a resumed run decides alike."""
        outcomes: dict[int, Outcome] = {}
        alive = list(range(len(structures)))
        for number, rung in enumerate(self._rungs[:-1], 1):
            found = list(rung.run([structures[i] for i in alive]))
            outcomes.update(zip(alive, found, strict=True))
            scored = [i for i in alive if outcomes[i].score is not None]
            best = sorted(scored, key=lambda i: (-(outcomes[i].score or 0.0), i))
            survivors = best[: max(1, math.ceil(self._keep * len(scored)))]
            for place, i in enumerate(best[len(survivors) :], len(survivors) + 1):
                sentence = f"{SCREENED_OUT} rung {number}, place {place} of {len(best)}, {outcomes[i].score:.6g}."
                outcomes[i] = replace(outcomes[i], score=None, failure=sentence)
            alive = sorted(survivors)
        waiting = [i for i in alive if i >= recorded]
        dear = self._rungs[-1].run([structures[i] for i in waiting])
        for i in range(recorded, len(structures)):
            yield next(dear) if i in waiting else outcomes[i]
