"""Who scores what a searcher asked for. The searcher and the study never notice."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import groupby
from typing import Protocol, TypeAlias

from prunesearch.structure import Structure
from prunesearch.study.scoring import Outcome, Scorer, score_all
from prunesearch.trial import Source, Trial


class Executor(Protocol):
    """Scores structures somewhere, and gives the outcomes back in the order asked."""

    def run(self, structures: Sequence[Structure], recorded: Sequence[Trial] = ()) -> Generator[Outcome, None, None]:
        """Yield one outcome per structure, in order, each as soon as it is known.

        Args:
            structures: A batch as the searcher asked for it.
            recorded: Trials of the first ones, which need no outcome: they were scored in an earlier run.
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

    def run(self, structures: Sequence[Structure], recorded: Sequence[Trial] = ()) -> Generator[Outcome, None, None]:
        """Score each structure; an exception of the evaluator is an outcome, an interrupt is not."""
        for start in range(len(recorded), len(structures), self._at_once):
            yield from score_all(self._scorer, structures[start : start + self._at_once])


class RememberingExecutor:
    """Takes scores that are known already, and has the others scored.

    Args:
        executor: Scores the others.
        known: Trials of structures, found by the same evaluator on the same network and data, and where they stand.
    """

    def __init__(self, executor: Executor, known: Mapping[Structure, tuple[Trial, Source]]) -> None:
        self._executor = executor
        self._known = known

    def run(self, structures: Sequence[Structure], recorded: Sequence[Trial] = ()) -> Generator[Outcome, None, None]:
        """Yield what is known in its place among what is scored."""
        fresh = structures[len(recorded) :]
        scored = self._executor.run([structure for structure in fresh if structure not in self._known])
        for structure in fresh:
            if structure in self._known:
                trial, source = self._known[structure]
                yield Outcome(trial.score, None, None, 0.0, trial.worker, trial.images, source=source)
            else:
                yield next(scored)


Job: TypeAlias = tuple[int, Structure]
"""A structure, and the part of the images that it is to be scored on, as a position among the scorers."""


class Jobs(Protocol):
    """Scores structures on parts of the images, somewhere."""

    def score(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One outcome per job, in order; whatever happens to one is its outcome."""


class InlineJobs:
    """Scores jobs in this process, those on the same part together, as they share some of their work.

    Args:
        scorers: One per part.
    """

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self._scorers = scorers

    def score(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Score part by part."""
        found: dict[Job, Outcome] = {}
        for part, structures in by_part(jobs):
            outcomes = score_all(self._scorers[part], structures)
            found.update(zip([(part, structure) for structure in structures], outcomes, strict=True))
        return [found[job] for job in jobs]


def by_part(jobs: Sequence[Job]) -> list[tuple[int, list[Structure]]]:
    """Each part with the structures that are to be scored on it, in order."""
    ordered = sorted(jobs, key=lambda job: job[0])
    return [(part, [job[1] for job in group]) for part, group in groupby(ordered, key=lambda job: job[0])]
