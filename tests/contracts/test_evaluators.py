"""What every registered evaluator of structures promises."""

from __future__ import annotations

from typing import Any

import pytest

from prunesearch.evaluators import EVALUATORS
from prunesearch.testing import EvaluatorContract

OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "accuracy": ({"metric": "loss"}, {"metric": "accuracy"}, {"metric": "agreement"}, {"batch_size": 100}),
    "adaptive_bn": ({"batch_size": 32},),
}
CASES = [(name, options) for name in EVALUATORS for options in OPTIONS.get(name, ({},))]


class TestEvaluators(EvaluatorContract):
    @pytest.fixture(autouse=True, params=CASES, ids=str)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.evaluator, self.options = request.param

    def test_the_description_says_how_many_images_there_are(self) -> None:
        assert "images=256" in self.make().description
