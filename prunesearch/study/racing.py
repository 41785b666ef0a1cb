"""Racing: every structure is scored on few images, and on more for as long as it may be the best one yet."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np

from prunesearch.structure import FloatArray, Structure
from prunesearch.study.executors import Jobs
from prunesearch.study.scoring import Outcome
from prunesearch.trial import Source, Trial

AT_ONCE = 8
"""Structures that run at the same time. Those of one group do not know of each other, so this decides the history."""

_STEP = 5  # parts between the first ones of two groups; with many parts, soon no two groups have seen the same
_PRIOR = 4.0  # differences that the common spread counts for, beside the own ones of a structure
_MEMORY = 200.0  # differences after which the common spread begins to forget: they shrink as a search closes in
_TINY = 1e-12
_NEAR = 1.05  # a leader that costs so much more still stands for what is to be beaten


@dataclass(frozen=True)
class Track:
    """What a race is run on.

    Attributes:
        sizes: Images in each part; at least two parts.
        caution: Standard errors by which a structure may be behind the leader and still go on; or, below 0, must be
            ahead of it. With less than -1 one that was given up could rank above the leader (`Trial.assured`).
    """

    sizes: tuple[int, ...]
    caution: float = 0.5

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1 or self.caution < -1:
            raise ValueError(f"Expected at least two parts with images, and caution >= -1, got {self}.")


@dataclass(frozen=True)
class Leader:
    """The best structure of its cost that was scored on all parts.

    Attributes:
        cost: What it costs, in the unit of the race.
        scores: (parts,) its score on each.
    """

    cost: float
    scores: FloatArray

    @property
    def score(self) -> float:
        """Of all images."""
        return float(self.scores.mean())


@dataclass
class Runner:
    """A structure under way.

    Attributes:
        structure: The structure.
        first: The part that it begins with; then they follow in order, round and round.
        leader: What it runs against; None if there is nothing of its cost.
        scores: Score on each part that it has run on.
        seconds: Time spent.
        last: Of the latest outcome: who scored it, and what failed, if anything did.
    """

    structure: Structure
    first: int
    leader: Leader | None
    scores: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    last: Outcome = field(default_factory=lambda: Outcome(None, None, None, 0.0, ""))

    @property
    def failed(self) -> bool:
        """Whether a part could not be scored."""
        return self.last.failure is not None

    @property
    def mean(self) -> float:
        """Of the scores so far; of the same ones always the same to the last bit."""
        return float(np.mean([self.scores[part] for part in sorted(self.scores)]))

    def differences(self) -> FloatArray:
        """(k,) how much better than the leader it was on each part so far; none without a leader."""
        leader = self.leader
        return np.array([] if leader is None else [score - leader.scores[part] for part, score in self.scores.items()])


class RacingExecutor:
    """Scores a structure on one part of the images, and on twice as many as long as it may be better than the leader.

    The leader is the best structure that was scored on all parts. Another is compared with it part by part, on the same
    images, so that what makes a part easy or hard cancels. It stops when its mean difference plus `caution` standard
    errors is below zero; else it ends on all parts, and leads if its score is higher. A score on some parts is that
    of the leader on all, plus the mean difference: an estimate of the score on all parts, on one scale with every
    other. Its standard error is recorded beside it. So a structure whose score is the highest was always scored on all
    images, and a few lucky ones gain nothing.

    Where costs are given, there is a leader at every cost: that of a structure is the best that costs at most a
    twentieth more. One that is cheaper than all leaders runs on all parts.

    Each group of structures begins with other parts, so that a searcher that learns from all scores together is not
    misled by any images. Structures run in groups of `AT_ONCE` by their number, and each group against the leader of
    those before it. So the history depends neither on how many workers there are nor on where a run was interrupted.

    Source: ours, from known parts: Maron and Moore, Hoeffding races, NeurIPS 1993 (a structure that is unlikely to be
    the best is given up); Hutter et al., LION 2011 (SMAC: challengers are compared with an incumbent on the same
    instances, twice as many each time); Jamieson and Talwalkar, AISTATS 2016, arXiv:1502.07943 (doubling). Departs from
    them: a standard error with a finite-population correction takes the place of a bound, as the leader's score on all
    images is all that counts, and the spread of differences is shared among structures.

    Args:
        jobs: Scores a structure on a part.
        track: The parts.
        known: Trials of structures that raced on the same parts, whose scores need not be found again, and where they
            stand.
        cost: What a structure costs, for searchers that look for the best at every cost.
    """

    def __init__(
        self,
        jobs: Jobs,
        track: Track,
        known: Mapping[Structure, tuple[Trial, Source]] | None = None,
        cost: Callable[[Structure], float] | None = None,
    ) -> None:
        self._jobs = jobs
        self._track = track
        self._known = dict(known or {})
        self._cost = cost or (lambda structure: 0.0)
        self._number = 0
        self._leaders: list[Leader] = []  # none costs more than another and scores less
        self._spread = Spread()
        self._group: list[Runner] = []  # of the present group, those that have finished

    def run(self, structures: Sequence[Structure], recorded: Sequence[Trial] = ()) -> Generator[Outcome, None, None]:
        """Race group by group. What was recorded is taken note of at once, also if nothing else is asked for."""
        for trial in recorded:
            runner = self._runner(trial.structure)
            runner.scores = dict(trial.parts)
            runner.last = Outcome(None, trial.failure, None, 0.0, "")
            self._finish(runner)
        return self._race(structures[len(recorded) :])

    def _race(self, structures: Sequence[Structure]) -> Generator[Outcome, None, None]:
        waiting = list(structures)
        while waiting:
            room = 1 if self._number == 0 else AT_ONCE - self._number % AT_ONCE  # the first one is the first leader
            runners = [self._runner(structure, place) for place, structure in enumerate(waiting[:room])]
            del waiting[:room]
            racing = runners
            while racing := [runner for runner in racing if self._goes_on(runner)]:
                self._advance(racing)
            outcomes = [self._outcome(runner) for runner in runners]  # by the leader that they ran against
            for runner, outcome in zip(runners, outcomes, strict=True):
                self._finish(runner)
                yield outcome

    def _runner(self, structure: Structure, after: int = 0) -> Runner:
        """One that is `after` others behind the next number."""
        group = (self._number + after) // AT_ONCE
        cost = self._cost(structure)
        rivals = [leader for leader in self._leaders if leader.cost <= _NEAR * cost]
        leader = max(rivals, key=lambda rival: rival.score, default=None)
        return Runner(structure, group * _STEP % len(self._track.sizes), leader)

    def _goes_on(self, runner: Runner) -> bool:
        if runner.failed or len(runner.scores) == len(self._track.sizes):
            return False
        if runner.leader is None or not runner.scores:
            return True
        mean, error = self._estimate(runner, runner.leader)
        return mean + self._track.caution * error > 0

    def _advance(self, runners: Sequence[Runner]) -> None:
        """Score each on as many parts as it has run on; on one if it has not begun, on all without a leader."""
        wanted = {(part, runner.structure): runner for runner in runners for part in self._next_parts(runner)}
        found = {job: self._remembered(*job) for job in wanted}
        fresh = [job for job, outcome in found.items() if outcome is None]
        found.update(zip(fresh, self._jobs.score(fresh) if fresh else (), strict=True))
        for (part, structure), outcome in found.items():
            assert outcome is not None
            runner = wanted[part, structure]
            runner.seconds += outcome.seconds
            if not runner.failed:
                runner.last = outcome
                if outcome.score is not None:
                    runner.scores[part] = outcome.score

    def _next_parts(self, runner: Runner) -> Iterator[int]:
        done, n = len(runner.scores), len(self._track.sizes)
        until = n if runner.leader is None else min(n, max(1, 2 * done))
        return ((runner.first + step) % n for step in range(done, until))

    def _remembered(self, part: int, structure: Structure) -> Outcome | None:
        if structure not in self._known:
            return None
        trial, source = self._known[structure]
        score = dict(trial.parts).get(part)
        return None if score is None else Outcome(score, None, None, 0.0, trial.worker, source=source)

    def _estimate(self, runner: Runner, leader: Leader) -> tuple[float, float]:
        """Mean difference from the leader, and its standard error as an estimate of that on all parts."""
        differences = runner.differences()
        k, n = len(differences), len(self._track.sizes)
        common = self._spread.variance(float(leader.scores.var(ddof=1)))
        own = float(((differences - differences.mean()) ** 2).sum())
        variance = (own + _PRIOR * common) / (k - 1 + _PRIOR)
        return float(differences.mean()), 0.0 if k == n else max(sqrt(variance * (1 / k - 1 / n)), _TINY)

    def _outcome(self, runner: Runner) -> Outcome:
        last = runner.last
        images = sum(self._track.sizes[part] for part in runner.scores)
        parts = tuple(runner.scores.items())
        if runner.failed:
            return Outcome(None, last.failure, last.traceback, runner.seconds, last.worker, images, 0.0, parts)
        if runner.leader is None or len(parts) == len(self._track.sizes):
            score, error = runner.mean, 0.0
        else:
            mean, error = self._estimate(runner, runner.leader)
            score = runner.leader.score + mean
        return Outcome(score, None, None, runner.seconds, last.worker, images, error, parts, last.source)

    def _finish(self, runner: Runner) -> None:
        """Take note of one that has finished; of what a group found, when all of it has."""
        self._group.append(runner)
        self._number += 1
        if self._number == 1 or self._number % AT_ONCE == 0:
            for other in self._group:
                if not other.failed:
                    self._spread.note(other.differences())
            for other in self._group:
                if not other.failed and len(other.scores) == len(self._track.sizes):
                    self._may_lead(other)
            self._group.clear()

    def _may_lead(self, runner: Runner) -> None:
        cost, score = self._cost(runner.structure), runner.mean
        if not any(other.cost <= cost and other.score >= score for other in self._leaders):
            scores = np.array([runner.scores[part] for part in range(len(self._track.sizes))])
            keep = [other for other in self._leaders if other.cost < cost or other.score > score]
            self._leaders = [*keep, Leader(cost, scores)]


class Spread:
    """What is known of how much the difference from a leader varies from part to part, of all structures together."""

    def __init__(self) -> None:
        self._squares = 0.0
        self._freedom = 0.0

    def note(self, differences: FloatArray) -> None:
        """Take note of those of one structure; of one alone nothing can be learnt."""
        if len(differences) > 1:
            self._squares += float(((differences - differences.mean()) ** 2).sum())
            self._freedom += len(differences) - 1
        if self._freedom > _MEMORY:
            self._squares, self._freedom = self._squares / 2, self._freedom / 2

    def variance(self, prior: float) -> float:
        """Of a difference; as long as nothing is known, what is given."""
        return (self._squares + prior) / (self._freedom + 1)
