"""Channels without which the loss would change least, to first order, go first."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prunesearch.evaluators.batchnorm import at_least_float32, in_eval_mode, split
from prunesearch.evaluators.channels.criterion import ScoringCriterion, given
from prunesearch.evaluators.channels.slices import slices
from prunesearch.evaluators.inputs import example_batch
from prunesearch.models.logits import class_logits
from prunesearch.models.nested import Batch, arguments, in_order_of
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray

_BATCH = 64


class TaylorCriterion(ScoringCriterion):
    """Importance of a channel: the square of the sum of weight times gradient over the filters that produce it.

    Source: Molchanov et al., Importance estimation for neural network pruning, CVPR 2019, arXiv:1906.10771, equation 9;
    averaged over batches of 64. Departs from it: the network is in eval mode and nothing is trained in between; all
    producers of a channel are one filter.

    Args:
        seed: Not used; every criterion takes one.
    """

    needs = "labels"

    def scores(self, network: Network, images: Batch | None = None, labels: Tensor | None = None) -> FloatArray:
        """What the loss would change, squared."""
        images, labels = given(images, "images", "taylor"), given(labels, "labels", "taylor")
        in_order_of(example_batch(network), images)
        importance = np.zeros(network.unit_count)
        with in_eval_mode(network.model), torch.enable_grad():
            for some, truth in zip(split(images, _BATCH), split(labels, _BATCH), strict=True):
                importance += self._of_batch(network, some, truth) ** 2
        return importance

    def _of_batch(self, network: Network, images: Batch, labels: Tensor) -> FloatArray:
        """(units,) sums of weight times gradient; on copies, so that no gradient of the model's is touched."""
        produced = [part for part in slices(network) if part.role == "produces"]
        values = {name: parameter.detach().clone() for name, parameter in network.model.named_parameters()}
        names = list(dict.fromkeys(part.name for part in produced))
        for name in names:
            values[name].requires_grad_()
        logits = class_logits(torch.func.functional_call(network.model, values, *arguments(images)))
        loss = F.cross_entropy(at_least_float32(logits), labels)
        # zeros for what runs in training mode only
        found = torch.autograd.grad(loss, [values[name] for name in names], materialize_grads=True)
        gradients = dict(zip(names, found, strict=True))
        total = np.zeros(network.unit_count)
        for part in produced:
            products = part.of(values[part.name]) * part.of(gradients[part.name])
            np.add.at(total, part.units, products.sum(dim=1).numpy())
        return total
