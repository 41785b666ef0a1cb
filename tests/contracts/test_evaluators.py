"""What every registered evaluator of structures promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prunesearch.evaluators import EVALUATORS
from prunesearch.evaluators.evaluator import Divisible, divided
from prunesearch.testing import EvaluatorContract

OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "accuracy": ({"metric": "loss"}, {"metric": "accuracy"}, {"metric": "agreement"}, {"batch_size": 100}),
    "adaptive_bn": ({"batch_size": 32, "batches": 30},),
}
CASES = [(name, options) for name in EVALUATORS for options in OPTIONS.get(name, ({},))]


class TestEvaluators(EvaluatorContract):
    @pytest.fixture(autouse=True, params=CASES, ids=str)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.evaluator, self.options = request.param

    def test_the_description_says_how_many_images_there_are(self) -> None:
        assert "images=256" in self.make().description

    def test_a_score_is_about_the_mean_of_those_of_its_parts(self) -> None:
        evaluator = self.make()
        if not isinstance(evaluator, Divisible):
            pytest.skip("it scores on all of its images only")
        structures, n = self.subject().structures(), evaluator.n_images
        parts = divided(evaluator, 4)
        assert [part.n_images for part in parts] == [n // 4] * 4
        means = np.mean([part.score(structures) for part in parts], axis=0)
        assert means == pytest.approx(evaluator.score(structures), rel=0.1, abs=0.05)  # BatchNorm of 64 images
