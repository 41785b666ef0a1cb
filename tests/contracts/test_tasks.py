"""What every registered task promises, and one of a user's own."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from prunesearch.tasks import TASKS
from prunesearch.testing import TaskContract, digits
from tests.tasks.networks import CASES

OWN = ("autoencoder",)


class TestTasks(TaskContract):
    @pytest.fixture(autouse=True, params=[*TASKS, *OWN])
    def _named(self, request: pytest.FixtureRequest) -> None:
        self._case = CASES[request.param]() if request.param in CASES else None
        self.task = request.param if self._case is None else self._case.data.goal

    def network(self) -> nn.Module:
        return digits().network.model if self._case is None else self._case.model

    def batch(self) -> Any:
        if self._case is not None:
            return self._case.data.examples_of(self._case.data.calibration_set()).take(slice(32)).batch
        images, labels = digits().examples.take(slice(32)).batch
        return images if self.task == "fidelity" else (images, labels)
