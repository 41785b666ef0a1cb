"""Local search screened by a Gaussian process: many neighbours of the best are predicted, the promising proposed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls
from scipy.stats import norm

from prunesearch.budget import BudgetOrSet, as_structures
from prunesearch.ranges import number, whole_number
from prunesearch.search.proposals import BatchSearcher, put_random
from prunesearch.search.sensitivity import from_losses, losses
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import FloatArray, IntArray, Space

_LENGTHS = (0.5, 1.0, 2.0, 4.0)
_NOISES = (1e-3, 1e-2, 1e-1)
_RELEVANCES = (0.0, 1.0)
_RIDGE = 0.03  # per told trial, of the variance of a shape
_OWN_NOISE = 0.05  # of a normal score that is exact: what the trend leaves, so that no score counts for too much
_MOST = 300  # trials that the process is fitted to: the best ones


@dataclass(frozen=True)
class SurrogateSettings:
    """Sizes of a batch.

    Attributes:
        startup: Structures before the first prediction: the uniform one, those that curves say, and random ones.
        batch_size: Structures per batch.
        parents: Structures around which neighbours are predicted: those scored so far that are predicted best.
        neighbours: Made per round; those of later rounds are around the ones that were predicted best.
        rounds: How many.
        exploration: Standard deviations by which the boldest member of a batch is judged; the first is judged by none.

    Raises:
        TypeError: One of them is no number, or no whole one.
        ValueError: One of them is too small or too large.
    """

    startup: int = 24
    batch_size: int = 8
    parents: int = 30
    neighbours: int = 200
    rounds: int = 3
    exploration: float = 4.0

    def __post_init__(self) -> None:
        for name in ("startup", "batch_size", "parents", "neighbours", "rounds"):
            whole_number(name, getattr(self, name), at_least=1)
        number("exploration", self.exploration, "[0, inf)")


class SurrogateSearcher(BatchSearcher):
    """Predicts the scores of neighbours of the best structures, and proposes those that might be better still.

    A neighbour differs from its parent in a few widths, moved a little or anywhere, or is a mixture of two parents;
    then it is scaled to the budget, which moves the others along. The prediction is of ranks: a sum of rising functions
    of each width, and a Gaussian process over their logarithms for what that leaves. A score with a standard error, as
    in a race, counts for as much less. Each member of a batch is the neighbour with the highest upper confidence bound
    given the members before it.

    With curves the first structures are those of `SensitivitySearcher`, too: where few groups can give all that is to
    go, as under a mild budget, hardly any random structure spares the others.

    Source: ours, from known parts: Rasmussen and Williams, Gaussian processes for machine learning, 2006 (algorithm
    2.1, marginal likelihood); Srinivas et al., ICML 2010, arXiv:0912.3995 (upper confidence bound); Desautels et al.,
    JMLR 2014 (batches by conditioning on what is pending).

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.
        curves: Per group, (its allowed widths,) score of the network with that group alone at each width; optional.
        settings: Sizes of a batch.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        ValueError: Curves that do not belong to the space.
    """

    settings_type = SurrogateSettings
    welcomes = ("curves",)

    def __init__(
        self,
        space: Space,
        budget: BudgetOrSet,
        *,
        seed: int = 0,
        curves: Sequence[FloatArray] | None = None,
        settings: SurrogateSettings | None = None,
    ) -> None:
        super().__init__(space, budget, seed=seed)
        self._settings = settings or SurrogateSettings()
        self._losses = None if curves is None else losses(space, curves)

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put the next structures into the queue, random ones at first and where neighbours run out."""
        sizes = self._settings
        structures, scores = self.told.scored()
        if batch == 0:
            promising = [] if self._losses is None else from_losses(self.feasible, self._losses)
            self.queue.put([uniform_structure(self.feasible), *promising], sizes.startup)
            put_random(self.queue, self.feasible, rng, sizes.startup - len(self.queue))
            return
        if len(structures) > 1:
            best = np.argsort(-scores, kind="stable")[:_MOST]
            prediction = Prediction(self.space, structures[best], scores[best], self.told.errors()[best])
            order = np.argsort(-prediction.mean(structures[best]), kind="stable")  # a score may be a lucky one
            candidates = self._candidates(prediction, structures[best][order[: sizes.parents]], rng)
            if len(candidates):
                chosen = prediction.boldest(candidates, sizes.batch_size, sizes.exploration)
                self.queue.put(as_structures(candidates[chosen]))
        put_random(self.queue, self.feasible, rng, sizes.batch_size - len(self.queue))

    def _candidates(self, prediction: Prediction, parents: IntArray, rng: np.random.Generator) -> IntArray:
        """(p, g) new structures: neighbours of the best, then of those predicted best, and strangers."""
        sizes = self._settings
        strangers = self.feasible.fit(self.space.sample(rng, sizes.neighbours // 2))
        pool = np.concatenate([strangers, self._neighbours(parents, rng)])
        for _ in range(sizes.rounds - 1):
            parents = pool[np.argsort(-prediction.mean(pool), kind="stable")[: 2 * sizes.parents]]
            pool = np.concatenate([pool, self._neighbours(parents, rng)])
        pool = np.unique(pool, axis=0)
        pool = pool[[not self.queue.has_seen(structure) for structure in as_structures(pool)]]
        return pool[np.argsort(-prediction.mean(pool), kind="stable")[: 2 * sizes.neighbours]]

    def _neighbours(self, parents: IntArray, rng: np.random.Generator) -> IntArray:
        """(neighbours, g) structures around parents, the best of which comes first and has the most."""
        genes, n, choices = self.space.indices(parents), self._settings.neighbours, self.space.choices
        ranks = np.minimum(rng.geometric(2.5 / (len(genes) + 2), n) - 1, len(genes) - 1)
        one, other = genes[ranks], genes[rng.integers(0, len(genes), n)]
        mixes = (rng.random((n, 1)) < 0.25) & (rng.random(one.shape) < 0.5)
        moves = rng.random(one.shape) < rng.integers(1, 4, (n, 1)) / max(len(choices), 1)
        near = one + rng.choice([-3, -2, -1, 1, 2, 3], one.shape)
        far = rng.integers(0, choices, one.shape)
        moved = np.where(rng.random((n, 1)) < 0.7, near, far)
        children = np.where(moves, moved, np.where(mixes, other, one))
        return self.feasible.fit(self.space.from_indices(np.clip(children, 0, choices - 1)))


class Prediction:
    """What scored structures say of others: a trend that rises with every width, and a process for what it leaves.

    Args:
        space: Where structures live.
        structures: (p, g) scored ones.
        scores: (p,) of them; only their order counts.
        errors: (p,) standard errors of the scores; None for none.
    """

    def __init__(
        self, space: Space, structures: IntArray, scores: FloatArray, errors: FloatArray | None = None
    ) -> None:
        self._full = np.array(space.full)
        self._lowest = np.minimum(np.array(space.minimum) / self._full, 0.5)
        values = normal_scores(scores)
        noise = np.zeros(len(scores)) if errors is None else normal_errors(scores, errors) ** 2
        basis = self._basis(structures)
        self._trend = fit_trend(basis, values, 1 / (_OWN_NOISE + noise))
        left = values - self._trend.predict(basis)
        self._spread = float(left.std()) or 1.0
        self._process = fit_process(self._features(structures), left / self._spread, noise / self._spread**2)

    def mean(self, structures: IntArray) -> FloatArray:
        """(p,) normal quantiles of the ranks to expect."""
        around = self._process.predict(self._features(structures))
        return self._trend.predict(self._basis(structures)) + self._spread * around

    def boldest(self, structures: IntArray, n: int, exploration: float) -> list[int]:
        """Indices of `n` of the (p, g) structures: highest mean first, then ever higher bounds given those before."""
        mean = self.mean(structures)
        covariance = self._process.covariance(self._features(structures)) * self._spread**2
        noise = self._process.noise * self._spread**2
        chosen: list[int] = []
        for boldness in np.linspace(0.0, exploration, n)[: len(structures)]:
            bound = mean + boldness * np.sqrt(np.maximum(np.diag(covariance), 0.0))
            bound[chosen] = -np.inf
            at = int(np.argmax(bound))
            chosen.append(at)
            column = covariance[:, at]
            covariance = covariance - np.outer(column, column) / (covariance[at, at] + noise)
        return chosen

    def _basis(self, structures: IntArray) -> FloatArray:
        """(p, 3 g) shapes in which a score may rise with the kept fraction k: k, log k and -1/k."""
        kept = structures / self._full
        return np.concatenate([kept, np.log(kept), -1 / kept], axis=1)

    def _features(self, structures: IntArray) -> FloatArray:
        """(p, g) logarithms of the kept fractions, each group's scaled to its range."""
        return np.log(structures / self._full) / -np.log(self._lowest)


@dataclass(frozen=True)
class Trend:
    """A sum of rising shapes, one set per group: `level + (basis - centre) @ slopes`, slopes of at least 0."""

    level: float
    centre: FloatArray
    slopes: FloatArray

    def predict(self, basis: FloatArray) -> FloatArray:
        """(p,) values at (p, d) of the basis."""
        return self.level + (basis - self.centre) @ self.slopes


def fit_trend(basis: FloatArray, values: FloatArray, weights: FloatArray | None = None) -> Trend:
    """Fit non-negative slopes with a ridge: wider is never worse, all else equal.

    Args:
        basis: (p, d) shapes.
        values: (p,) of them.
        weights: (p,) how much each counts; None for all alike.
    """
    counts = np.ones(len(values)) if weights is None else weights / weights.mean()
    centre, scale = np.average(basis, axis=0, weights=counts), basis.std(axis=0) + 1e-9
    level = float(np.average(values, weights=counts))
    ridge = np.sqrt(_RIDGE * len(values)) * np.eye(basis.shape[1])
    by = np.sqrt(counts)
    design = np.concatenate([(basis - centre) / scale * by[:, None], ridge])
    slopes = nnls(design, np.concatenate([(values - level) * by, np.zeros(basis.shape[1])]))[0]
    return Trend(level, centre, slopes / scale)


@dataclass(frozen=True)
class Process:
    """A Gaussian process with zero mean, fitted; Matérn 5/2 over scaled features.

    Attributes:
        inputs: (p, d) features it was fitted to, scaled.
        scales: (d,) what features are multiplied by.
        factor: Cholesky factor of the covariance of the fitted values.
        weights: (p,) that covariance's inverse times the values.
        noise: Variance of the noise that all have; the process itself has variance 1.
        evidence: Logarithm of the marginal likelihood.
    """

    inputs: FloatArray
    scales: FloatArray
    factor: FloatArray
    weights: FloatArray
    noise: float
    evidence: float

    def predict(self, features: FloatArray) -> FloatArray:
        """(m,) means at (m, d) features."""
        return _matern(features * self.scales, self.inputs) @ self.weights

    def covariance(self, features: FloatArray) -> FloatArray:
        """(m, m) covariance at (m, d) features, given what was told."""
        scaled = features * self.scales
        cross = _matern(scaled, self.inputs)
        return _matern(scaled, scaled) - cross @ cho_solve((self.factor, True), cross.T)


def fit_process(features: FloatArray, values: FloatArray, known_noise: FloatArray | None = None) -> Process:
    """Choose length scale, noise and how much relevant features count, by marginal likelihood on a small grid.

    Args:
        features: (p, d) inputs.
        values: (p,) at them.
        known_noise: (p,) variance of the noise of each beside the one that is chosen; None for none.
    """
    own = np.zeros(len(values)) if known_noise is None else known_noise
    relevance = _relevance(features, values)
    processes = []
    for power, length in itertools.product(_RELEVANCES, _LENGTHS):
        scales = relevance**power / length
        kernel = _matern(features * scales, features * scales)
        processes += [_condition(features, values, scales, kernel, noise, own) for noise in _NOISES]
    return max(processes, key=lambda process: process.evidence)


def normal_scores(scores: FloatArray) -> FloatArray:
    """(p,) the normal quantiles of ranks, equals sharing theirs: a few very bad scores do not flatten the rest."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return norm.ppf(middle / len(scores))[inverse]


def normal_errors(scores: FloatArray, errors: FloatArray) -> FloatArray:
    """(p,) standard errors of `normal_scores`: how far a standard error either way moves a score among the others.

    Beyond the highest and the lowest score nothing is known, so only the part between them counts, drawn out.
    """
    ordered = np.sort(scores)
    values = normal_scores(ordered)
    low, high = (np.clip(scores + side * errors, ordered[0], ordered[-1]) for side in (-1, 1))
    moved = np.interp(high, ordered, values) - np.interp(low, ordered, values)
    span = high - low
    return np.where(span > 0, moved * errors / np.where(span > 0, span, 1.0), 0.0)


def _relevance(features: FloatArray, values: FloatArray) -> FloatArray:
    """(d,) size of the coefficients of a ridge regression, mean 1: how much each feature seems to matter."""
    centred = features - features.mean(axis=0)
    ridge = centred.T @ centred + (0.1 * np.trace(centred.T @ centred) / max(centred.shape[1], 1) + 1e-9) * np.eye(
        centred.shape[1]
    )
    size = np.abs(np.linalg.solve(ridge, centred.T @ (values - values.mean())))
    mean = size.mean() if size.size and size.mean() > 0 else 1.0
    return 0.1 + 0.9 * size / mean


def _condition(
    features: FloatArray, values: FloatArray, scales: FloatArray, kernel: FloatArray, noise: float, own: FloatArray
) -> Process:
    factor = cho_factor(kernel + np.diag(noise + own), lower=True)[0]
    weights = cho_solve((factor, True), values)
    evidence = -0.5 * values @ weights - np.log(np.diag(factor)).sum()
    return Process(features * scales, scales, factor, weights, noise, float(evidence))


def _matern(one: FloatArray, other: FloatArray) -> FloatArray:
    """(p, q) Matérn 5/2 covariances of (p, d) and (q, d) points."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    distance = np.sqrt(5.0 * np.maximum(squares, 0.0))
    return (1 + distance + distance**2 / 3) * np.exp(-distance)
