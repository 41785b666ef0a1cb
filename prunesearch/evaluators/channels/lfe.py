"""Channels whose presence adds least to the score, on average over random masks, go first: linear filter ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunesearch.evaluators.channels.criterion import ScoringCriterion, given
from prunesearch.evaluators.channels.slices import saved
from prunesearch.evaluators.hooks import answered, watched
from prunesearch.evaluators.inputs import check_inputs
from prunesearch.evaluators.rows import check_image_after_image
from prunesearch.models.coupling import Read
from prunesearch.models.devices import placed
from prunesearch.models.masked import in_place, of_those
from prunesearch.models.nested import called, device_of, repeated, taken
from prunesearch.models.network import Network
from prunesearch.models.operators.norm import norm_of_layer
from prunesearch.models.ranking import NestedRanking
from prunesearch.ranges import whole_number
from prunesearch.structure import FloatArray, IntArray
from prunesearch.tasks.examples import Examples

_BLOCK = 10  # masks in which each unit is dropped exactly once
_AT_ONCE = 4  # masks per forward
_OF_ALL, _MOST_OF_GROUP = 0.1, 0.3  # units that a round removes
_RELIABLE = 0.5  # share of held-out variance below which a linear model says little
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_MIXING = (*_NORMS, nn.Softmax, nn.LogSoftmax, nn.Softmin)  # to which zeros are values like others

Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ensemble:
    """What random masks of one group say.

    Attributes:
        importance: (u,) coefficient of each unit: how much its presence adds to the score.
        r2: Share of the variance of held-out responses that the linear model explains; below 0.5 believe it little.
    """

    importance: FloatArray
    r2: float


class LFECriterion(ScoringCriterion):
    """Regresses minus the loss on random masks of a group's units; the coefficients are their importance.

    In every block of ten masks each unit is dropped once, in a mask of its own choice (Bernoulli masks with 90% kept,
    balanced). All coefficients of a group are fitted together by ridge regression, its strength by leave-one-out.
    Scores are coefficients per MAC that a unit saves, so that they can be compared between groups.

    With more than one round, the lowest scores of all groups are removed, 10% of the units present but at most 30% of a
    group and not all of one, and what is left is measured again: duplicates look dispensable until one of them is gone.
    Scores are then the order of removal.

    Source: Sándor, Pável and Csató, Pruning CNN's with linear filter ensembles, ECAI 2020, arXiv:2001.08142, of which
    only the abstract could be had: the ensemble of masks and scores and the linear additive model are theirs;
    probabilities, balance, ridge, rounds and everything of number are ours. Masks apply where layers read the channels,
    after BatchNorm and activation, in eval mode; LayerNorm, GroupNorm, RMSNorm and softmax work on the channels that a
    mask leaves. Nothing is trained between rounds.

    Args:
        seed: Decides the masks.
        masks: Per group; None is 6 per unit and at least 200.
        images: At most so many of the images score.
        rounds: How often all groups are measured.

    Raises:
        TypeError: `masks`, `images` or `rounds` is no whole number.
        ValueError: One of them is below 1.
    """

    needs = "loss"

    def __init__(self, *, seed: int = 0, masks: int | None = None, images: int = 128, rounds: int = 1) -> None:
        super().__init__(seed=seed)
        self._masks = None if masks is None else whole_number("masks", masks, at_least=1)
        self._images = whole_number("images", images, at_least=1)
        self._rounds = whole_number("rounds", rounds, at_least=1)

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """Coefficients per MAC, or the order of removal."""
        return self._scores(network, given(examples, "lfe"))[0]

    def rank(self, network: Network, examples: Examples | None = None) -> NestedRanking:
        """Order the units of every group by score; note how much of held-out responses the linear model explains."""
        scores, found = self._scores(network, given(examples, "lfe"))
        return NestedRanking.by_importance([scores[units] for units in network.units], notes=_reliability(found))

    def ensembles(
        self, network: Network, examples: Examples, present: Mask | None = None, attempt: int = 0
    ) -> list[Ensemble]:
        """Per group, what its masks say.

        Args:
            network: A traced network.
            examples: What the loss is of.
            present: (units,) which units there are; the others are dropped in every mask. None means all.
            attempt: Of the draws of masks; another one draws others.
        """
        present = np.ones(network.unit_count, dtype=np.bool_) if present is None else present
        examples = examples.take(slice(self._images))
        found = []
        for index, units in enumerate(network.units):
            rng = np.random.default_rng([self._seed, 5, index, attempt] if attempt else [self._seed, 5, index])
            varied = units[present[units]]
            masks = balanced_masks(len(varied), self._masks or max(200, 6 * len(varied)), rng)
            found.append(fit_ensemble(masks, responses(network, varied, masks, examples, present), rng))
        return found

    def _scores(self, network: Network, examples: Examples) -> tuple[FloatArray, list[Ensemble]]:
        """(units,) scores, and the ensembles of the first round."""
        present = np.ones(network.unit_count, dtype=np.bool_)
        first = found = self.ensembles(network, examples)
        values = _per_mac(network, found, present)
        if self._rounds == 1:
            return values, first
        order: list[int] = []
        for number in range(1, self._rounds):
            order += _least(network, values, present)
            present[order] = False
            found = self.ensembles(network, examples, present, number)
            values = _per_mac(network, found, present)
        left = np.concatenate([units[present[units]] for units in network.units])
        order += left[np.argsort(values[left], kind="stable")].tolist()
        scores = np.zeros(network.unit_count)
        scores[order] = np.arange(len(order))
        return scores, first


def _per_mac(network: Network, found: Sequence[Ensemble], present: Mask) -> FloatArray:
    """(units,) coefficients over the MACs that one unit of the group saves at full width."""
    values = np.zeros(network.unit_count)
    for units, ensemble, macs in zip(network.units, found, saved(network, "macs"), strict=True):
        values[units[present[units]]] = ensemble.importance / macs
    return values


def _least(network: Network, values: FloatArray, present: Mask) -> list[int]:
    """The units to remove in one round, least first: a tenth of all, but not too many of one group."""
    candidates = []
    for units in network.units:
        here = units[present[units]]
        most = min(int(_MOST_OF_GROUP * len(here)), len(here) - 1)
        candidates.append(here[np.argsort(values[here], kind="stable")[:most]])
    pool = np.concatenate(candidates)
    grouped = np.concatenate(network.units)
    wanted = max(1, int(_OF_ALL * present[grouped].sum()))
    return pool[np.argsort(values[pool], kind="stable")[:wanted]].tolist()


def _reliability(found: Sequence[Ensemble]) -> tuple[str, ...]:
    explained = [ensemble.r2 for ensemble in found]
    note = (
        f"The linear models of the criterion lfe explain {np.median(explained):.0%} of the variance of held-out "
        f"responses (median of {len(explained)} groups; {min(explained):.0%} to {max(explained):.0%})."
    )
    return (note if np.median(explained) >= _RELIABLE else f"{note} Below {_RELIABLE:.0%}, do not rely on its order.",)


def balanced_masks(units: int, n: int, rng: np.random.Generator) -> FloatArray:
    """(at least n, units) masks of ones and zeros; in every block of ten each unit is dropped exactly once."""
    blocks = []
    for _ in range(-(-n // _BLOCK)):
        drops = rng.integers(0, _BLOCK, units)
        blocks.append(drops[None] != np.arange(_BLOCK)[:, None])
    return np.concatenate(blocks).astype(np.float64)


def responses(network: Network, units: IntArray, masks: FloatArray, examples: Examples, present: Mask) -> FloatArray:
    """(m,) minus the loss of the network under each of (m, u) masks of some units, at the layers that read them.

    Units that are not `present`, a (units,) mask, are dropped always.
    """
    check_inputs(network, examples.inputs)
    found = np.zeros(len(masks))
    for part in examples.by_size():
        found += len(part) / len(examples) * _of_one_size(network, units, masks, part, present)
    return found


def _of_one_size(network: Network, units: IntArray, masks: FloatArray, examples: Examples, present: Mask) -> FloatArray:
    inputs, n = examples.inputs, len(examples)
    asker = "The criterion lfe"
    layer_reads = network.layer_reads(asker)
    check_image_after_image(network, inputs, [read.place for read in layer_reads], asker)
    found: list[Tensor] = []
    state = _Masks(units, present, n, masks, device_of(inputs))
    reads = [read for read in layer_reads if np.isin(read.units, units).any() or not present[read.units].all()]
    looks = [(read.place, partial(state.apply, read)) for read in reads]
    mixing = [read for read in reads if isinstance(network.model.get_submodule(read.place), _MIXING)]
    answers = [(read.place, partial(state.without, read)) for read in mixing]
    with watched(network.model, looks), answered(network.model, answers), torch.inference_mode():
        for start in range(0, len(masks), _AT_ONCE):
            k = state.choose(slice(start, start + _AT_ONCE))
            outputs = called(network.model, repeated(inputs, k))
            found += [examples.losses(taken(outputs, slice(i * n, (i + 1) * n))).mean() for i in range(k)]
    return -torch.stack(found).cpu().numpy().astype(np.float64)


class _Masks:
    """The masks of the present forward: each of them for a batch of images of its own.

    Args:
        units: The units that masks are of.
        present: (units,) which units of the network there are at all.
        images: In a batch.
        masks: (m, u) all masks.
        device: Where the network is.
    """

    def __init__(self, units: IntArray, present: Mask, images: int, masks: FloatArray, device: torch.device) -> None:
        self._images = images
        self._device = device
        # of every unit of the network its column; those after the masks' are always 1, and always 0
        constant = np.repeat([[1.0, 0.0]], len(masks), axis=0)
        columns = torch.from_numpy(np.concatenate([masks, constant], axis=1))
        self._columns = placed(columns.to(torch.float32), device)
        self._place = np.where(present, len(units), len(units) + 1)
        self._place[units] = np.arange(len(units))
        self._of_read: dict[bytes, Tensor] = {}
        self._chosen = self._columns

    def choose(self, some: slice) -> int:
        """Take some of the masks for the next forward; returns how many they are."""
        self._chosen = self._columns[some]
        return len(self._chosen)

    def apply(self, read: Read, x: Tensor) -> Tensor:
        """What a layer is given, under each of the masks."""
        factors = self._factors(read).to(x.dtype)
        shape = [1] * x.dim()
        shape[0], shape[read.dim] = len(x), len(read.units)
        factors = factors.repeat_interleave(len(x) // (len(factors) * self._images), 0)  # of an image, such as frames
        return x * factors.repeat_interleave(self._images, 0).reshape(shape)

    def without(self, read: Read, layer: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """What a layer to which zeros are values like others gives, under each of the masks, of the channels left."""
        stays = self._factors(read) > 0
        parts = zip(x.chunk(len(stays)), output.chunk(len(stays)), stays, strict=True)
        return torch.cat([_of_some(layer, part, read.dim, some) if some.any() else zero for part, zero, some in parts])

    def _factors(self, read: Read) -> Tensor:
        """(k, channels) ones and zeros for what a layer reads, under each of the masks."""
        key = read.units.tobytes()
        if key not in self._of_read:
            self._of_read[key] = placed(torch.from_numpy(self._place[read.units]), self._device)
        return self._chosen[:, self._of_read[key]]


def _of_some(layer: nn.Module, x: Tensor, dim: int, stays: Tensor) -> Tensor:
    """What a layer computes of some channels, at the full width."""
    if isinstance(layer, _NORMS):
        return norm_of_layer(layer, x.dtype).over(x, dim, stays)
    reads = [(dim, stays)]
    return in_place(layer.forward(of_those(x, reads)), reads)


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
