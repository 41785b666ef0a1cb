"""What every registered channel criterion promises. A new one inherits it by being listed in `CRITERIA`."""

from __future__ import annotations

import pytest

from prunesearch.evaluators.channels import CRITERIA
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.follow import fidelity
from prunesearch.testing import CriterionContract

_SLOW = {"lfe"}  # hundreds of forwards
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else []) for name in sorted(CRITERIA)]


class TestCriteria(CriterionContract):
    @pytest.fixture(autouse=True, params=NAMES)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.criterion = request.param

    def test_a_refusal_names_the_criterion(self) -> None:
        criterion = self.make()
        network, inputs = self.subject().network, self.subject().examples.inputs
        if criterion.needs == "nothing":
            assert len(criterion.rank(network).keep(0, 1)) == 1
        else:
            seen = "inputs" if criterion.needs == "inputs" else "the loss of examples"
            with pytest.raises(ValueError, match=f"The criterion '{self.criterion}' looks at {seen}, got none"):
                criterion.rank(network)
        if criterion.needs == "loss":
            expected = f"The criterion {self.criterion} learns from a loss, and the task fidelity has none"
            with pytest.raises(ValueError, match=expected):
                criterion.rank(network, Examples(inputs, fidelity()))
