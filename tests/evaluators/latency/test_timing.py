from __future__ import annotations

import gc
import os

import pytest
import torch
from torch import nn

from prunesearch.evaluators.latency import timing
from prunesearch.evaluators.latency.timing import Reference, measure_latency, pinned, time_calls


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


class MadeUpMachine:
    """A clock of its own, on which everything takes three times as long in every other half second."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, ms: float) -> None:
        self.now += ms / 1000 * (3.0 if int(self.now / 0.5) % 2 else 1.0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> MadeUpMachine:
    made_up = MadeUpMachine()
    monkeypatch.setattr(timing, "time", made_up)
    return made_up


def test_a_machine_that_is_now_fast_now_slow_does_not_change_what_is_found(machine: MadeUpMachine) -> None:
    reference = Reference(0.25, _kernel=lambda: machine.work(0.25))
    calls = [lambda: machine.work(2.0), lambda: machine.work(0.1)]
    slow, quick = time_calls(calls, reference, visits=40)
    assert slow.ms == pytest.approx(2.0, rel=1e-6)
    assert quick.ms == pytest.approx(0.1, rel=1e-6)
    assert reference.drift[2] == pytest.approx(3.0)


def test_times_are_given_at_the_speed_of_the_references_baseline(machine: MadeUpMachine) -> None:
    twice_as_fast = Reference(0.125, _kernel=lambda: machine.work(0.25))
    (found,) = time_calls([lambda: machine.work(2.0)], twice_as_fast)
    assert found.ms == pytest.approx(1.0, rel=1e-6)


def test_threads_and_cores_are_as_before_also_after_an_error() -> None:
    before = torch.get_num_threads(), os.sched_getaffinity(0)
    with pytest.raises(RuntimeError, match=r"\(1, 1\)"), pinned(1):
        raise RuntimeError(len(os.sched_getaffinity(0)), torch.get_num_threads())
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == before
