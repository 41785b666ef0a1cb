"""Channels that a LASSO regression of the next layers' outputs does without go first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import lars_path_gram

from prunesearch.evaluators.channels.criterion import inputs_of
from prunesearch.evaluators.layer_inputs import LayerInputs, layer_inputs
from prunesearch.evaluators.width_errors import gram_matrices
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray, IntArray
from prunesearch.tasks.examples import Examples


@dataclass(frozen=True)
class PathRanking:
    """Which units are active along a regularisation path; not nested, as a unit may leave again.

    Attributes:
        paths: Per group, (units, steps) coefficients from none active to all.
        correlations: Per group, (units,) how much each explains alone: the order where a path says nothing.
    """

    paths: tuple[FloatArray, ...]
    correlations: tuple[FloatArray, ...]

    def keep(self, group: int, units: int) -> IntArray:
        """The units active at the strongest penalty that leaves so many, the largest coefficients of those."""
        path = np.abs(self.paths[group])
        enough = np.flatnonzero((path > 0).sum(axis=0) >= units)
        coefficients = path[:, enough[0]] if len(enough) else path[:, -1]
        order = np.lexsort((-self.correlations[group], -coefficients))
        return np.sort(order[:units])


class LassoCriterion:
    """Keeps the channels whose contributions a sparse regression needs to reproduce the next layers' outputs.

    With z_c the contribution of channel c: minimise `|| sum_c z_c - sum_c beta_c z_c ||^2 + alpha |beta|_1`, and keep
    the channels with beta_c != 0. Only the Gram matrix of the z_c enters, so the whole path over alpha is exact (LARS).
    Means of contributions and depthwise convolutions are treated as in `genetic`.

    Source: He et al., Channel pruning for accelerating very deep neural networks, ICCV 2017, arXiv:1707.06168, equation
    2 and the released code. `normalised=True` is the published form, in which every channel's weights have norm 1;
    False the released one, which leaves them. Departs from both: all sampled rows enter where the code draws 400; the
    path takes the place of the bisection over alpha, so exactly as many channels stay as asked for (the code keeps up
    to 10% more); inputs are those of the unpruned network; coupled channels are chosen for all their next layers at
    once. The least-squares refit is a matter of weights, not of this criterion.

    Args:
        seed: Decides the positions that are sampled.
        normalised: Whether contributions are those of weights scaled to norm 1.
        cache: Folder where moments of layers are kept (`evaluators.layer_inputs`).
    """

    needs = "inputs"

    def __init__(self, *, seed: int = 0, normalised: bool = False, cache: str | Path | None = None) -> None:
        self._seed = seed
        self._normalised = normalised
        self._cache = cache

    def rank(self, network: Network, examples: Examples | None = None) -> PathRanking:
        """Solve the path of every group."""
        readers = layer_inputs(network, inputs_of(examples, "lasso"), seed=self._seed, cache=self._cache)
        squares = np.zeros(network.unit_count)
        grams = gram_matrices(network, _noting_squares(readers, squares))
        norms = np.sqrt(np.where((squares > 0) & self._normalised, squares, 1.0))
        paths, correlations = [], []
        for units, gram in zip(network.units, grams, strict=True):
            scale = norms[units]
            target = gram.sum(axis=1) / scale
            jitter = 1e-10 * np.trace(gram) * np.eye(len(gram))
            _, _, path = lars_path_gram(
                target, gram / np.outer(scale, scale) + jitter, n_samples=1, method="lasso", max_iter=8 * len(gram)
            )
            paths.append(path)
            correlations.append(target)
        return PathRanking(tuple(paths), tuple(correlations))


def _noting_squares(readers: Iterable[LayerInputs], squares: FloatArray) -> Iterator[LayerInputs]:
    """Pass next layers on, adding up in (units,) `squares` the squares of the weights that read each unit."""
    for reader in readers:
        of_channels = reader.weights.square().sum(0).reshape(len(reader.units), -1).sum(1)
        np.add.at(squares, reader.units, of_channels.cpu().numpy())
        yield reader
