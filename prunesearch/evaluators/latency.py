"""Timing a built network."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunesearch.evaluators.batchnorm import in_eval_mode


@dataclass(frozen=True)
class LatencyMeasurement:
    """Milliseconds per image of one network on one machine.

    Attributes:
        median_ms: Median over the repeats.
        quartiles_ms: Lower and upper quartile.
        batch_size: Images per forward.
        threads: Threads torch used.
        device: Where it ran.
        repeats: Timed forwards.
    """

    median_ms: float
    quartiles_ms: tuple[float, float]
    batch_size: int
    threads: int
    device: str
    repeats: int


def measure_latency(model: nn.Module, images: Tensor, *, repeats: int = 15, warmup: int = 3) -> LatencyMeasurement:
    """Time forwards of one batch in eval mode, garbage collection off; only the CPU has been tried.

    Args:
        model: The network, on the device of `images`.
        images: (n, ...) one batch; times are divided by n.
        repeats: Timed forwards, at least 2.
        warmup: Forwards before, not counted.

    Raises:
        ValueError: Fewer than 2 repeats, or no images.
    """
    if repeats < 2 or len(images) == 0:
        raise ValueError(f"Expected repeats >= 2 and at least one image, got {repeats} and {len(images)}.")
    synchronize = torch.cuda.synchronize if images.is_cuda else _nothing
    seconds = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        with in_eval_mode(model), torch.inference_mode():
            for repeat in range(warmup + repeats):
                synchronize()
                start = time.perf_counter()
                model(images)
                synchronize()
                if repeat >= warmup:
                    seconds.append(time.perf_counter() - start)
    finally:
        if collecting:
            gc.enable()
    per_image = [1000 * value / len(images) for value in seconds]
    low, median, high = statistics.quantiles(per_image, n=4, method="inclusive")
    return LatencyMeasurement(median, (low, high), len(images), torch.get_num_threads(), str(images.device), repeats)


def _nothing() -> None:
    return None
