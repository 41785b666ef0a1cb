"""Channels whose presence adds least to the score, on average over random masks, go first: linear filter ensembles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.evaluators.batchnorm import in_eval_mode
from prunesearch.evaluators.channels.criterion import given
from prunesearch.models.coupling import Read
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.structure import FloatArray, IntArray

_BLOCK = 10  # masks in which each unit is dropped exactly once
_AT_ONCE = 4  # masks per forward


@dataclass(frozen=True)
class Ensemble:
    """What random masks of one group say.

    Attributes:
        importance: (u,) coefficient of each unit: how much its presence adds to the score.
        r2: Share of the variance of held-out responses that the linear model explains; below 0.5 believe it little.
    """

    importance: FloatArray
    r2: float


class LFECriterion:
    """Regresses minus the loss on random masks of a group's units; the coefficients are their importance.

    In every block of ten masks each unit is dropped once, in a mask of its own choice (Bernoulli masks with 90% kept,
    balanced). All coefficients of a group are fitted together by ridge regression, its strength by leave-one-out.

    Source: Sándor, Pável and Csató, Pruning CNN's with linear filter ensembles, ECAI 2020, arXiv:2001.08142, of which
    only the abstract could be had: the ensemble of masks and scores and the linear additive model are theirs;
    probabilities, balance, ridge and everything of number are ours. Masks apply where layers read the channels, after
    BatchNorm and activation, in eval mode.

    Args:
        seed: Decides the masks.
        masks: Per group; None is 6 per unit and at least 200.
        images: At most so many of the images score.
    """

    needs = "labels"

    def __init__(self, *, seed: int = 0, masks: int | None = None, images: int = 128) -> None:
        self._seed = seed
        self._masks = masks
        self._images = images

    def rank(self, network: Network, images: Tensor | None = None, labels: Tensor | None = None) -> NestedRanking:
        """Order the units of every group by coefficient."""
        found = self.ensembles(network, given(images, "images", "lfe"), given(labels, "labels", "lfe"))
        return NestedRanking.by_importance([ensemble.importance for ensemble in found])

    def ensembles(self, network: Network, images: Tensor, labels: Tensor) -> list[Ensemble]:
        """Per group, what its masks say."""
        images, labels = images[: self._images], labels[: self._images]
        found = []
        for index, units in enumerate(network.units):
            rng = np.random.default_rng([self._seed, 5, index])
            masks = balanced_masks(len(units), self._masks or max(200, 6 * len(units)), rng)
            found.append(fit_ensemble(masks, responses(network, units, masks, images, labels), rng))
        return found


def balanced_masks(units: int, n: int, rng: np.random.Generator) -> FloatArray:
    """(at least n, units) masks of ones and zeros; in every block of ten each unit is dropped exactly once."""
    blocks = []
    for _ in range(-(-n // _BLOCK)):
        drops = rng.integers(0, _BLOCK, units)
        blocks.append(drops[None] != np.arange(_BLOCK)[:, None])
    return np.concatenate(blocks).astype(np.float64)


def responses(network: Network, units: IntArray, masks: FloatArray, images: Tensor, labels: Tensor) -> FloatArray:
    """(m,) minus the loss of the network under each of (m, u) masks of some units, at the layers that read them."""
    found: list[float] = []
    state = _Masks(network, units, len(images))
    handles = [
        network.model.get_submodule(read.module).register_forward_pre_hook(state.hook(read))
        for read in network.reads
        if np.isin(read.units, units).any()
    ]
    try:
        with in_eval_mode(network.model), torch.inference_mode():
            for start in range(0, len(masks), _AT_ONCE):
                some = masks[start : start + _AT_ONCE]
                state.masks = torch.from_numpy(some).to(images.dtype).to(images.device)
                logits = network.model(images.repeat(len(some), *[1] * (images.dim() - 1)))
                losses = F.cross_entropy(logits, labels.repeat(len(some)), reduction="none")
                found += (-losses.reshape(len(some), -1).mean(1)).tolist()
    finally:
        for handle in handles:
            handle.remove()
    return np.array(found)


class _Masks:
    """The masks of the present forward: each of them for a batch of images of its own."""

    def __init__(self, network: Network, units: IntArray, images: int) -> None:
        self.masks = torch.ones(0)
        self._images = images
        self._place = np.full(network.unit_count, -1)
        self._place[units] = np.arange(len(units))

    def hook(self, read: Read) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        place = torch.from_numpy(self._place[read.units])
        own = torch.nonzero(place >= 0)[:, 0]

        def mask(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = inputs[0]
            factors = torch.ones(len(self.masks), len(place), dtype=x.dtype, device=x.device)
            factors[:, own] = self.masks[:, place[own]]
            shape = [1] * x.dim()
            shape[0], shape[read.dim] = len(x), len(place)
            return (x * factors.repeat_interleave(self._images, 0).reshape(shape), *inputs[1:])

        return mask


def fit_ensemble(masks: FloatArray, scores: FloatArray, rng: np.random.Generator) -> Ensemble:
    """Fit the linear model to all; and once to four fifths, for what it explains of the rest."""
    chosen = rng.permutation(len(masks))
    fitted, held_out = chosen[len(masks) // 5 :], chosen[: len(masks) // 5]
    slopes, level = _ridge(masks[fitted], scores[fitted])
    left = scores[held_out] - (level + masks[held_out] @ slopes)
    variance = float(((scores[held_out] - scores[held_out].mean()) ** 2).sum())
    return Ensemble(_ridge(masks, scores)[0], 1 - float((left**2).sum()) / variance if variance > 0 else 0.0)


def _ridge(masks: FloatArray, scores: FloatArray) -> tuple[FloatArray, float]:
    """Slopes and level, with the penalty that predicts best when each response in turn is left out."""
    centre, level = masks.mean(axis=0), scores.mean()
    left, values, right = np.linalg.svd(masks - centre, full_matrices=False)
    target = left.T @ (scores - level)
    best = (np.inf, np.zeros(masks.shape[1]))
    for penalty in np.geomspace(1e-4, 1e2, 13) * float((values**2).mean()):
        shrink = values**2 / (values**2 + penalty)
        hat = (left**2 * shrink).sum(axis=1) + 1 / len(scores)
        residual = (scores - level - left @ (shrink * target)) / np.maximum(1 - hat, 1e-9)
        error = float((residual**2).mean())
        if error < best[0]:
            best = (error, right.T @ (values / (values**2 + penalty) * target))
    return best[1], float(level - centre @ best[1])
