"""How similar the features of layers are to one another: normalised HSIC, also called linear CKA."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.evaluators.hooks import watched
from prunesearch.evaluators.inputs import check_inputs
from prunesearch.evaluators.rows import check_image_after_image
from prunesearch.models.devices import in_float64, placed
from prunesearch.models.nested import Batch, called, size_of, taken
from prunesearch.models.network import Network
from prunesearch.models.sizes import of_most_frequent_size
from prunesearch.models.weights import WeightSource
from prunesearch.structure import FloatArray, IntArray

_IMAGES = 256


def similarity(weights: WeightSource, evaluator: Evaluator, images: Batch) -> tuple[FloatArray, ...]:
    """Per group, (layers that read it,) summed similarity of what each is given with what all other layers are given.

    As `search.convex` wants it: a residual stream counts as often as layers read it. Deterministic; no labels.

    Args:
        weights: Of the traced network.
        evaluator: Not used; every kind of evidence takes one.
        images: (n, ...) images, normalised like the training set; the first 256 count, and of these those of the most
            frequent size, as features of other sizes cannot be compared.
    """
    del evaluator
    images = of_most_frequent_size(taken(images, slice(_IMAGES)), "The similarity of layers (convex)")
    between, owners = nhsic(weights.network, images)
    summed = np.maximum(between.sum(axis=1) - np.diag(between), 0)  # rounding may leave less
    return tuple(summed[owners == group] for group in range(len(weights.network.units)))


def nhsic(network: Network, images: Batch) -> tuple[FloatArray, IntArray]:
    """(l, l) normalised HSIC between features, in [0, 1] with ones on the diagonal; and the (l,) group of each.

    A feature is what one layer is given of one group, flattened.

    Source: Kornblith et al., Similarity of neural network representations revisited, ICML 2019, arXiv:1905.00414,
    equation 3 with linear kernels (biased estimator), as ITPruner uses it. Departs from ITPruner's code: eval mode,
    where it leaves BatchNorm and random erasing in training mode; features are inputs of layers, not outputs of
    hand-picked blocks.
    """
    check_inputs(network, images)
    kernels, owners = _kernels(network, images)
    if not kernels:
        return np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
    flat = torch.stack(kernels).flatten(1)
    flat = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return (flat @ flat.T).cpu().numpy(), np.array(owners)


def _kernels(network: Network, images: Batch) -> tuple[list[Tensor], list[int]]:
    """Centred (n, n) kernels of what each reading layer is given of each group, and those groups."""
    kernels: list[Tensor] = []
    owners: list[int] = []
    n = size_of(images)

    def note(dim: int, members: dict[int, Tensor], given: Tensor) -> None:
        for group, channels in members.items():
            features = given.movedim(dim, 1).index_select(1, placed(channels, given.device)).reshape(n, -1)
            features = in_float64(features)  # kernels are compared, and those of neighbouring layers hardly differ
            features = features - features.mean(dim=0)
            kernels.append(features @ features.T)
            owners.append(group)

    looks = []
    for read in network.reads:
        if not read.is_layer:
            continue
        of = network.group_of[read.units]
        members = {int(g): torch.from_numpy(np.flatnonzero(of == g)) for g in np.unique(of[of >= 0])}
        looks.append((read.place, partial(note, read.dim, members)))
    check_image_after_image(network, images, [place for place, _ in looks], "The similarity of layers (convex)")
    with watched(network.model, looks), torch.inference_mode():
        called(network.model, images)
    return kernels, owners
