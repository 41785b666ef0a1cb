"""Channels without which the loss would change least, to first order, go first."""

from __future__ import annotations

import numpy as np
import torch

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
        learnt = _Learnt(network)
        with torch.enable_grad():
            for batch in examples.batches(_BATCH):
                shares = [len(part) / len(batch) * learnt.of_one_size(part) for part in batch.by_size()]
                importance += len(batch) / len(examples) * np.sum(shares, axis=0) ** 2
        return importance


class _Learnt:
    """What a network learns from examples, on a copy of it, so that no gradient of the model's is touched.

    Of a weight that is computed of others, these count: together they are what it is.
    """

    def __init__(self, network: Network) -> None:
        self._units, self._n = network.units, network.unit_count
        self._instead = stand_ins(network)
        self._roles = ("produces", *self._instead.values())
        self._parts = [part for part in slices(network) if part.role in self._roles]
        self._model = copied(network.model).eval()  # some layers keep the weight that they computed, and the graph
        self._values = {name: parameter.detach() for name, parameter in self._model.named_parameters()}
        self._names = list(dict.fromkeys(part.name for part in self._parts))
        for name in self._names:
            self._values[name].requires_grad_()

    def of_one_size(self, examples: Examples) -> FloatArray:
        """(units,) sums of weight times gradient."""
        outputs = torch.func.functional_call(self._model, self._values, *arguments(examples.inputs))
        loss = examples.losses(outputs).mean()
        # zeros for what runs in training mode only
        found = torch.autograd.grad(loss, [self._values[name] for name in self._names], materialize_grads=True)
        gradients = dict(zip(self._names, found, strict=True))
        sums = [(part.of(self._values[part.name]) * part.of(gradients[part.name])).sum(dim=1) for part in self._parts]
        totals = {role: np.zeros(self._n) for role in self._roles}
        for part, summed in zip(self._parts, fetched(sums), strict=True):
            np.add.at(totals[part.role], part.units, summed.numpy())
        for group, role in self._instead.items():
            totals["produces"][self._units[group]] = totals[role][self._units[group]]
        return totals["produces"]
