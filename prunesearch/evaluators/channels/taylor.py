"""Channels without which the loss would change least, to first order, go first."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from prunesearch.evaluators.channels.criterion import FilterCriterion, given
from prunesearch.evaluators.channels.slices import slices, stand_ins
from prunesearch.evaluators.inputs import check_inputs
from prunesearch.models.copying import copied
from prunesearch.models.devices import fetched
from prunesearch.models.nested import arguments
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray
from prunesearch.tasks.examples import Examples

_BATCH = 64


class TaylorCriterion(FilterCriterion):
    """Importance of a channel: the square of the sum of weight times gradient over the filters that produce it.

    Source: Molchanov et al., Importance estimation for neural network pruning, CVPR 2019, arXiv:1906.10771, equation 9;
    averaged over batches of at most 64, each by its size. Departs from it: the network is in eval mode and nothing is
    trained in between; all producers of a channel are one filter.

    Args:
        seed: Not used; every criterion takes one.
    """

    needs = "loss"

    def scores(self, network: Network, examples: Examples | None = None) -> FloatArray:
        """What the loss would change, squared."""
        examples = given(examples, "taylor")
        check_inputs(network, examples.inputs)
        importance = np.zeros(network.unit_count)
        model = copied(network.model).eval()  # some layers keep the weight that they computed, and with it the graph
        with torch.enable_grad():
            for batch in examples.batches(_BATCH):
                shares = [len(part) / len(batch) * self._of_one_size(network, model, part) for part in batch.by_size()]
                importance += len(batch) / len(examples) * np.sum(shares, axis=0) ** 2
        return importance

    def _of_one_size(self, network: Network, model: nn.Module, examples: Examples) -> FloatArray:
        """(units,) sums of weight times gradient; on copies, so that no gradient of the model's is touched.

        Of a weight that is computed of others, these count: together they are what it is.
        """
        instead = stand_ins(network)
        parts = [part for part in slices(network) if part.role in ("produces", *instead.values())]
        values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        names = list(dict.fromkeys(part.name for part in parts))
        for name in names:
            values[name].requires_grad_()
        outputs = torch.func.functional_call(model, values, *arguments(examples.inputs))
        loss = examples.losses(outputs).mean()
        # zeros for what runs in training mode only
        found = torch.autograd.grad(loss, [values[name] for name in names], materialize_grads=True)
        gradients = dict(zip(names, found, strict=True))
        sums = [(part.of(values[part.name]) * part.of(gradients[part.name])).sum(dim=1) for part in parts]
        totals = {role: np.zeros(network.unit_count) for role in ("produces", *instead.values())}
        for part, summed in zip(parts, fetched(sums), strict=True):
            np.add.at(totals[part.role], part.units, summed.numpy())
        for group, role in instead.items():
            totals["produces"][network.units[group]] = totals[role][network.units[group]]
        return totals["produces"]
