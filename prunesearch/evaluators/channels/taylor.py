"""Channels without which the loss would change least, to first order, go first."""

from __future__ import annotations

import numpy as np
import torch

from prunesearch.evaluators.channels.criterion import ScoringCriterion, given
from prunesearch.evaluators.channels.slices import slices
from prunesearch.evaluators.inputs import check_inputs
from prunesearch.models.devices import fetched
from prunesearch.models.isolation import in_eval_mode
from prunesearch.models.nested import arguments
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples

_BATCH = 64


class TaylorCriterion(ScoringCriterion):
    """Importance of a channel: the square of the sum of weight times gradient over the filters that produce it.

    Source: Molchanov et al., Importance estimation for neural network pruning, CVPR 2019, arXiv:1906.10771, equation 9;
    averaged over batches of 64. Departs from it: the network is in eval mode and nothing is trained in between; all
    producers of a channel are one filter.

    Args:
        seed: Not used; every criterion takes one.
    """

    needs = "loss"

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """What the loss would change, squared."""
        examples = given(examples, "taylor")
        check_inputs(network, examples.inputs)
        importance = np.zeros(network.unit_count)
        with in_eval_mode(network.model), torch.enable_grad():
            for batch in examples.batches(_BATCH):
                shares = [len(part) / len(batch) * self._of_one_size(network, part) for part in batch.by_size()]
                importance += np.sum(shares, axis=0) ** 2
        return importance

    def _of_one_size(self, network: Network, examples: Examples) -> FloatArray:
        """(units,) sums of weight times gradient; on copies, so that no gradient of the model's is touched."""
        produced = [part for part in slices(network) if part.role == "produces"]
        values = {name: parameter.detach().clone() for name, parameter in network.model.named_parameters()}
        names = list(dict.fromkeys(part.name for part in produced))
        for name in names:
            values[name].requires_grad_()
        outputs = torch.func.functional_call(network.model, values, *arguments(examples.inputs))
        loss = examples.losses(outputs).mean()
        # zeros for what runs in training mode only
        found = torch.autograd.grad(loss, [values[name] for name in names], materialize_grads=True)
        gradients = dict(zip(names, found, strict=True))
        sums = [(part.of(values[part.name]) * part.of(gradients[part.name])).sum(dim=1) for part in produced]
        total = np.zeros(network.unit_count)
        for part, summed in zip(produced, fetched(sums), strict=True):
            np.add.at(total, part.units, summed.numpy())
        return total
