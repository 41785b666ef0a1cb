"""How similar the features of each group are to those of the others: normalised HSIC, also called linear CKA."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prunesearch.evaluators.batchnorm import in_eval_mode
from prunesearch.evaluators.evaluator import Evaluator
from prunesearch.models.network import Network
from prunesearch.models.weights import WeightSource
from prunesearch.structure import FloatArray

_IMAGES = 256


def similarity(weights: WeightSource, evaluator: Evaluator, images: Tensor) -> FloatArray:
    """(g,) summed similarity of each group with all others, as `search.convex` wants it. Deterministic; no labels.

    Args:
        weights: Of the traced network.
        evaluator: Not used; every kind of evidence takes one.
        images: (n, ...) images, normalised like the training set; the first 256 count.
    """
    del evaluator
    between = nhsic(weights.network, images[:_IMAGES])
    return between.sum(axis=1) - np.diag(between)


def nhsic(network: Network, images: Tensor) -> FloatArray:
    """(g, g) normalised HSIC between groups, each entry in [0, 1], the diagonal about 1.

    The features of a group are what the layers that read it are given of it, flattened; between two groups, the mean
    over all pairs of such layers.

    Source: Kornblith et al., Similarity of neural network representations revisited, ICML 2019, arXiv:1905.00414,
    equation 3 with linear kernels (biased estimator), as ITPruner uses it. Departs from ITPruner's code: eval mode,
    where it leaves BatchNorm and random erasing in training mode; features are of groups, not of hand-picked blocks.
    """
    kernels, owners = _kernels(network, images)
    flat = torch.stack(kernels).flatten(1)
    flat = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-30)
    pairs = (flat @ flat.T).numpy()
    member = np.equal.outer(np.arange(len(network.units)), owners).astype(np.float64)
    counts = np.maximum(member.sum(axis=1), 1)
    return member @ pairs @ member.T / np.outer(counts, counts)


def _kernels(network: Network, images: Tensor) -> tuple[list[Tensor], list[int]]:
    """Centred (n, n) kernels of what each reading layer is given of each group, and those groups."""
    kernels: list[Tensor] = []
    owners: list[int] = []

    def note(dim: int, members: dict[int, Tensor]) -> object:
        def hook(_: object, inputs: tuple[Tensor, ...]) -> None:
            for group, channels in members.items():
                features = inputs[0].movedim(dim, 1)[:, channels].flatten(1).double()
                features = features - features.mean(dim=0)
                kernels.append((features @ features.T).cpu())
                owners.append(group)

        return hook

    handles = []
    for read in network.reads:
        of = network.group_of[read.units]
        members = {int(g): torch.from_numpy(np.flatnonzero(of == g)) for g in np.unique(of[of >= 0])}
        if members:
            module = network.model.get_submodule(read.module)
            handles.append(module.register_forward_pre_hook(note(read.dim, members)))  # type: ignore[arg-type]
    try:
        with in_eval_mode(network.model), torch.inference_mode():
            network.model(images)
    finally:
        for handle in handles:
            handle.remove()
    return kernels, owners
