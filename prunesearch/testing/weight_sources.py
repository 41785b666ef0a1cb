"""What a weight source promises; see `prunesearch.models.weights.WeightSource`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from prunesearch.evaluators import make_weights
from prunesearch.models.count import count
from prunesearch.models.nested import Batch, called, tensors_in
from prunesearch.models.shared_forward import SharedForward
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.structure import Structure
from prunesearch.study.packing import pack, unpack
from prunesearch.testing.expecting import expect_that
from prunesearch.testing.state import generators, state_of
from prunesearch.testing.subjects import Subject, digits

_IMAGES, _CLOSE = 100, 1e-4


class WeightSourceContract:
    """Tests of a weight source on a small trained network; a subclass says which weight source.

    Attributes:
        weight_source: The name, the class, or `"package.module:attribute"`; of a function say it in `make`.
    """

    weight_source: ClassVar[Any]

    def make(self) -> WeightSource:
        """A fresh weight source."""
        on = self.subject()
        return make_weights(self.weight_source, on.network, on.ranking, on.examples.inputs)

    def subject(self) -> Subject:
        """What it is tested on; another network and other data will do."""
        return digits()

    def half(self) -> Structure:
        """A structure of middling widths."""
        return self.subject().structures()[1]

    def test_tensor_by_tensor_and_whole_are_the_same_network(self) -> None:
        """`values` and `build` agree, and a shared forward computes what the built network does."""
        weights, images = self.make(), self.subject().examples.take(slice(_IMAGES)).inputs
        space = self.subject().network.space
        for row in space.sample(np.random.default_rng(0), 3):
            structure = space.check(row.tolist())
            model = weights.build(structure)
            for name, tensor in model.named_parameters():
                alike = torch.equal(weights.values(name, structure), tensor)
                expect_that(alike, f"Expected values({name!r}, {structure}) to be what build({structure}) has")
            (shared,) = SharedForward(weights).run([structure], images)
            own = _with_own_statistics(model, images)
            pairs = list(zip(tensors_in(shared), tensors_in(own), strict=True))
            close = all(torch.allclose(one, other, atol=_CLOSE) for one, other in pairs)
            expect_that(close, f"Expected one output of {structure}, however it is computed")

    def test_a_structure_keeps_as_many_units_as_its_widths_say(self) -> None:
        """`kept` is a mask of the network's units."""
        weights, network = self.make(), self.subject().network
        for structure in self.subject().structures():
            kept = weights.kept(structure)
            for width, units, group in zip(structure, network.units, network.space.groups, strict=True):
                n = int(kept[units].sum())
                expected = width // group.unit
                expect_that(n == expected, f"Expected {expected} units of {group.name} in {structure}, got {n}")

    def test_values_of_a_tensor_change_only_with_the_groups_that_influence_it(self) -> None:
        """Scores take over what other structures have computed, wherever `influences` allows it."""
        weights, network = self.make(), self.subject().network
        space = network.space
        for name, _ in network.model.named_parameters():
            full, influences = weights.values(name, space.full), weights.influences(name)
            for g, group in enumerate(space.groups):
                if g not in influences:
                    other = weights.values(name, (*space.full[:g], group.widths[0], *space.full[g + 1 :]))
                    said = f"Expected group {g} among influences({name!r}), as its width changes the values"
                    expect_that(torch.equal(full, other), said)

    def test_what_is_built_costs_what_the_space_says_and_can_be_trained(self) -> None:
        """A new network with gradients for all of it."""
        network, images = self.subject().network, self.subject().examples.take(slice(8)).inputs
        model = self.make().build(self.half())
        costs = count(model, network.example_inputs), network.space.cost(self.half())
        expect_that(costs[0] == costs[1], f"Expected a network that costs {costs[1]}, got {costs[0]}")
        fixed = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        expect_that(not fixed, f"Expected parameters that can be trained, got fixed ones: {fixed}")
        torch.stack([tensor.sum() for tensor in tensors_in(called(model.train(), images))]).sum().backward()  # type: ignore[no-untyped-call]
        without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        expect_that(not without, f"Expected gradients of all parameters, got none of {without}")

    def test_building_leaves_the_network_and_every_random_generator_as_they_were(self) -> None:
        """And gives the same network twice, with nothing shared."""
        model = self.subject().network.model
        before = state_of(model), generators()
        one, two = (self.make().build(self.half()) for _ in range(2))
        expect_that(state_of(model) == before[0], "Expected build to leave the traced network as it was")
        expect_that(generators() == before[1], "Expected build to leave global random generators as they were")
        expect_that(state_of(one) == state_of(two), "Expected the same network of the same structure, got another")
        ours = {parameter.data_ptr() for parameter in model.parameters()}
        shared = [name for name, parameter in one.named_parameters() if parameter.data_ptr() in ours]
        expect_that(not shared, f"Expected a network of its own, but it shares {shared} with the traced one")

    def test_sliced_weights_are_those_of_the_traced_network(self) -> None:
        """If `sliced` says so, structures may be scored as masks of the unpruned network."""
        weights = self.make()
        if not weights.sliced:
            return
        inherited = InheritedWeights(self.subject().network, weights.ranking)
        for name, tensor in weights.build(self.half()).named_parameters():
            alike = torch.equal(tensor, inherited.values(name, self.half()))
            expect_that(alike, f"Expected slices of the trained {name}, as sliced says, got other values")

    def test_the_description_is_one_line_that_is_the_same_for_the_same_weights(self) -> None:
        """A stored study refuses to go on with another."""
        one, two = self.make().description, self.make().description
        expect_that(isinstance(one, str) and bool(one), f"Expected a description in words, got {one!r}")
        expect_that(one == two, f"Expected the same description of the same weights, got {one!r} and {two!r}")
        expect_that(len(one.splitlines()) == 1, f"Expected a description in one line, got {one!r}")

    def test_what_a_worker_is_handed_builds_alike(self) -> None:
        """`workers=` copies it to other processes, also after it has built here."""
        weights: Any = self.make()
        here = weights.build(self.half())
        (copied,) = unpack(pack(lambda: (weights,)))()
        there: Any = copied
        expect_that(state_of(there.build(self.half())) == state_of(here), "Expected a copy to build the same network")


def _with_own_statistics(model: nn.Module, images: Batch) -> Any:
    """What a network returns if each BatchNorm normalises with the statistics of the very images."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    with torch.no_grad():
        return called(model, images)
