"""Local search screened by a Gaussian process: many neighbours of the best are predicted, the promising proposed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm

from prunesearch.budget import Budget, as_structures
from prunesearch.search.proposals import BatchSearcher, put_random
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import FloatArray, IntArray, Space

_LENGTHS = (0.5, 1.0, 2.0, 4.0)
_NOISES = (1e-3, 1e-2, 1e-1)
_RELEVANCES = (0.0, 1.0)
_MOST = 300  # trials that the process is fitted to: the best ones


@dataclass(frozen=True)
class SurrogateSettings:
    """Sizes of a batch.

    Attributes:
        startup: Structures before the first prediction: the uniform one, and random ones.
        batch_size: Structures per batch.
        parents: The best structures so far, around which neighbours are predicted.
        neighbours: Predicted per batch.
        exploration: Standard deviations by which the boldest member of a batch is judged; the first is judged by none.
    """

    startup: int = 12
    batch_size: int = 6
    parents: int = 8
    neighbours: int = 200
    exploration: float = 2.0

    def __post_init__(self) -> None:
        if min(self.startup, self.batch_size, self.parents, self.neighbours) < 1 or self.exploration < 0:
            raise ValueError(f"Expected sizes of at least 1 and exploration >= 0, got {self}.")


class SurrogateSearcher(BatchSearcher):
    """Predicts the scores of neighbours of the best structures, and proposes those that might be better still.

    A neighbour differs from its parent in one, two or three widths, moved a little or anywhere, or is a mixture of two
    parents; then it is scaled to the budget, which moves the others along. A Gaussian process over the logarithms of
    the widths predicts the ranks of scores; each member of a batch is the neighbour with the highest upper confidence
    bound given the members before it.

    Source: ours, from known parts: Rasmussen and Williams, Gaussian processes for machine learning, 2006 (algorithm
    2.1, marginal likelihood); Srinivas et al., ICML 2010, arXiv:0912.3995 (upper confidence bound); Desautels et al.,
    JMLR 2014 (batches by conditioning on what is pending).

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.
        settings: Sizes of a batch.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    def __init__(
        self, space: Space, budget: Budget, *, seed: int = 0, settings: SurrogateSettings | None = None
    ) -> None:
        super().__init__(space, budget, seed=seed)
        self._settings = settings or SurrogateSettings()

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put the next structures into the queue, random ones at first and where neighbours run out."""
        sizes = self._settings
        structures, scores = self.told.scored()
        if batch == 0:
            self.queue.put([uniform_structure(self.feasible)])
            put_random(self.queue, self.feasible, rng, sizes.startup - 1)
            return
        if len(structures) > 1:
            neighbours = self._neighbours(rng)
            if len(neighbours):
                self.queue.put(as_structures(neighbours[self._promising(structures, scores, neighbours)]))
        put_random(self.queue, self.feasible, rng, sizes.batch_size - len(self.queue))

    def _neighbours(self, rng: np.random.Generator) -> IntArray:
        """(p, g) new structures within the budget, around the best."""
        genes = self.space.indices(self.told.best(self._settings.parents))
        n, choices = self._settings.neighbours, self.space.choices
        # the better a parent, the more neighbours: a geometric law over ranks
        ranks = np.minimum(rng.geometric(0.3, n) - 1, len(genes) - 1)
        children = genes[ranks]
        mixed = rng.random(n) < 0.25
        others = genes[rng.integers(0, len(genes), n)]
        take = rng.random(children.shape) < 0.5
        children = np.where(mixed[:, None] & take, others, children)
        moved = rng.random(children.shape) < rng.integers(1, 4, (n, 1)) / max(len(choices), 1)
        near = children + rng.choice([-2, -1, 1, 2], children.shape)
        far = rng.integers(0, choices, children.shape)
        stepped = np.where(rng.random((n, 1)) < 0.7, near, far)
        children = np.clip(np.where(moved, stepped, children), 0, choices - 1)
        fitted = np.unique(self.feasible.fit(self.space.from_indices(children)), axis=0)
        new = [not self.queue.has_seen(structure) for structure in as_structures(fitted)]
        return fitted[np.array(new, dtype=np.bool_)]

    def _promising(self, structures: IntArray, scores: FloatArray, candidates: IntArray) -> list[int]:
        """Indices of the candidates to propose."""
        best = np.argsort(-scores, kind="stable")[:_MOST]
        process = fit_process(self._features(structures[best]), normal_scores(scores[best]))
        mean, covariance = process.predict(self._features(candidates))
        chosen: list[int] = []
        for exploration in np.linspace(0.0, self._settings.exploration, self._settings.batch_size):
            bound = mean + exploration * np.sqrt(np.maximum(np.diag(covariance), 0.0))
            bound[chosen] = -np.inf
            if len(chosen) == len(candidates):
                break
            at = int(np.argmax(bound))
            chosen.append(at)
            column = covariance[:, at]
            covariance = covariance - np.outer(column, column) / (covariance[at, at] + process.noise)
        return chosen

    def _features(self, structures: IntArray) -> FloatArray:
        """(p, g) logarithms of the kept fractions, each group's scaled to its range."""
        lowest = np.minimum(np.array(self.space.minimum) / np.array(self.space.full), 0.5)
        return np.log(structures / np.array(self.space.full)) / -np.log(lowest)


@dataclass(frozen=True)
class Process:
    """A Gaussian process with zero mean, fitted; Matérn 5/2 over scaled features.

    Attributes:
        inputs: (p, d) features it was fitted to, scaled.
        scales: (d,) what features are multiplied by.
        factor: Cholesky factor of the covariance of the fitted values.
        weights: (p,) that covariance's inverse times the values.
        noise: Variance of the noise; the process itself has variance 1.
        evidence: Logarithm of the marginal likelihood.
    """

    inputs: FloatArray
    scales: FloatArray
    factor: FloatArray
    weights: FloatArray
    noise: float
    evidence: float

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the (m,) mean and (m, m) covariance at (m, d) features."""
        scaled = features * self.scales
        cross = _matern(scaled, self.inputs)
        return cross @ self.weights, _matern(scaled, scaled) - cross @ cho_solve((self.factor, True), cross.T)


def fit_process(features: FloatArray, values: FloatArray) -> Process:
    """Choose length scale, noise and how much relevant features count, by marginal likelihood on a small grid."""
    relevance = _relevance(features, values)
    return max(
        (
            _condition(features, values, relevance**power / length, noise)
            for power in _RELEVANCES
            for length in _LENGTHS
            for noise in _NOISES
        ),
        key=lambda process: process.evidence,
    )


def normal_scores(scores: FloatArray) -> FloatArray:
    """(p,) the normal quantiles of ranks, equals sharing theirs: a few very bad scores do not flatten the rest."""
    distinct, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    del distinct
    middle = np.cumsum(counts) - counts / 2
    return norm.ppf(middle / len(scores))[inverse]


def _relevance(features: FloatArray, values: FloatArray) -> FloatArray:
    """(d,) size of the coefficients of a ridge regression, mean 1: how much each feature seems to matter."""
    centred = features - features.mean(axis=0)
    ridge = centred.T @ centred + (0.1 * np.trace(centred.T @ centred) / max(centred.shape[1], 1) + 1e-9) * np.eye(
        centred.shape[1]
    )
    size = np.abs(np.linalg.solve(ridge, centred.T @ (values - values.mean())))
    mean = size.mean() if size.size and size.mean() > 0 else 1.0
    return 0.1 + 0.9 * size / mean


def _condition(features: FloatArray, values: FloatArray, scales: FloatArray, noise: float) -> Process:
    scaled = features * scales
    covariance = _matern(scaled, scaled) + noise * np.eye(len(scaled))
    factor = cho_factor(covariance, lower=True)[0]
    weights = cho_solve((factor, True), values)
    evidence = -0.5 * values @ weights - np.log(np.diag(factor)).sum()
    return Process(scaled, scales, factor, weights, noise, float(evidence))


def _matern(one: FloatArray, other: FloatArray) -> FloatArray:
    """(p, q) Matérn 5/2 covariances of (p, d) and (q, d) points."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    distance = np.sqrt(5.0 * np.maximum(squares, 0.0))
    return (1 + distance + distance**2 / 3) * np.exp(-distance)
