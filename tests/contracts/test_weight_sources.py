"""What every registered weight source promises. A new one inherits it by being listed in `WEIGHT_SOURCES`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prunesearch.budget import Budget
from prunesearch.evaluators import WEIGHT_SOURCES
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.models.hypernet import PruningNet
from prunesearch.models.hypernet_file import save_pruningnet
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights
from prunesearch.search.uniform import uniform_structure
from prunesearch.testing import WeightSourceContract, digits


class TestWeightSources(WeightSourceContract):
    @pytest.fixture(autouse=True, params=sorted(WEIGHT_SOURCES))
    def _named(self, request: pytest.FixtureRequest, network: Network, tmp_path: Path) -> None:
        """What `search` calls it: with the file of a PruningNet, if it is one."""
        self.weight_source = request.param
        if request.param == "generated":
            file = tmp_path / "net.safetensors"
            save_pruningnet(PruningNet(network, ranking=digits().ranking), file)
            self.weight_source = f"generated:{file}"

    def test_the_full_structure_keeps_the_trained_weights(self, network: Network) -> None:
        built, trained = self.make().build(network.space.full).state_dict(), network.model.state_dict()
        assert all(torch.equal(built[name], trained[name]) for name in trained)

    def test_it_loses_no_more_than_slicing(self) -> None:
        """At half of the MACs, widths uniform, BatchNorm statistics re-estimated in both."""
        on, own = self.subject(), self.make()
        half = uniform_structure(Budget(macs="50%").check(on.network.space))
        sliced, scored = (
            AccuracyEvaluator(source, on.examples).score([half])[0]
            for source in (InheritedWeights(on.network, own.ranking), own)
        )
        assert scored >= sliced

    @pytest.mark.slow
    def test_values_of_a_tensor_change_only_with_the_groups_that_influence_it(self) -> None:
        super().test_values_of_a_tensor_change_only_with_the_groups_that_influence_it()
