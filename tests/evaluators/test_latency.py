from __future__ import annotations

import gc

import torch
from torch import nn

from prunesearch.evaluators.latency.timing import measure_latency


def test_a_measurement_is_per_image_with_its_spread_and_leaves_model_and_collector_alone() -> None:
    calls = []

    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(self.training)
            return x @ x.T

    model = Counting().train()
    measured = measure_latency(model, torch.randn(64, 256), repeats=5, warmup=2)
    low, high = measured.quartiles_ms
    assert 0 < low <= measured.median_ms <= high
    assert (measured.batch_size, measured.repeats, measured.device) == (64, 5, "cpu")
    assert calls == [False] * 7
    assert model.training
    assert gc.isenabled()
