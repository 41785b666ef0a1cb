"""What every registered channel criterion promises. A new one inherits it by being listed in `CRITERIA`."""

from __future__ import annotations

import pytest

from prunesearch.evaluators.channels import CRITERIA
from prunesearch.testing import CriterionContract

_SLOW = {"lfe"}  # hundreds of forwards
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else []) for name in sorted(CRITERIA)]


class TestCriteria(CriterionContract):
    @pytest.fixture(autouse=True, params=NAMES)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.criterion = request.param

    def test_a_refusal_names_the_criterion(self) -> None:
        criterion = self.make()
        if criterion.needs != "nothing":
            with pytest.raises(ValueError, match=f"The criterion '{self.criterion}' looks at images, got none"):
                criterion.rank(self.subject().network)
        if criterion.needs == "labels":
            with pytest.raises(ValueError, match=f"The criterion '{self.criterion}' looks at labels, got none"):
                criterion.rank(self.subject().network, self.subject().images)
