"""How times are measured: pinned threads, no garbage collection, medians of visits spread in time, drift divided out.

A machine is never at rest: clocks change, neighbours compute. So nothing is timed in one go. Everything that is to be
compared is visited in turn, several times, and in between runs a small reference kernel. What counts is the median of
the ratios to it, times what the kernel takes at the speed that the table was begun at.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from prunesearch.latency_times import Timing
from prunesearch.models.isolation import as_found
from prunesearch.models.nested import Batch, called, device_of, size_of, without_arrays
from prunesearch.models.wrappers import check_network

Call = Callable[[], object]

VISITS = 6
_WARMUP_CALLS = 2
_SECONDS_PER_VISIT = 0.02
_FEWEST_CALLS = 3
_BETWEEN_REFERENCES = 2e-3


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


def measure_latency(model: nn.Module, images: Batch, *, repeats: int = 15, warmup: int = 3) -> LatencyMeasurement:
    """Time forwards of one batch in eval mode, garbage collection off; only the CPU has been tried.

    Args:
        model: The network, on the device of `images`.
        images: (n, ...) one batch, or several inputs; times are divided by n.
        repeats: Timed forwards, at least 2.
        warmup: Forwards before, not counted.

    Raises:
        ValueError: Fewer than 2 repeats, or no images.
    """
    check_network(model)
    images = without_arrays(images)
    n = size_of(images)
    if repeats < 2 or n == 0:
        raise ValueError(f"Expected repeats >= 2 and at least one image, got {repeats} and {n}.")
    synchronize = torch.cuda.synchronize if device_of(images).type == "cuda" else _nothing
    seconds = []
    with no_garbage_collection(), as_found(model), torch.inference_mode():
        for repeat in range(warmup + repeats):
            synchronize()
            start = time.perf_counter()
            called(model, images)
            synchronize()
            if repeat >= warmup:
                seconds.append(time.perf_counter() - start)
    per_image = [1000 * value / n for value in seconds]
    low, median, high = statistics.quantiles(per_image, n=4, method="inclusive")
    return LatencyMeasurement(median, (low, high), n, torch.get_num_threads(), str(device_of(images)), repeats)


@dataclass
class Reference:
    """A small kernel whose time tells how fast the machine is at the moment: three convolutions with BatchNorm.

    A full one, a depthwise one and a pointwise one, as what computes and what moves data are slowed down differently by
    a busy neighbour. Where the machine's speed varies, medians of one network vary with it, their ratios to this kernel
    several times less.

    Attributes:
        baseline_ms: What it takes at the speed that all times are given at.
        seen_ms: What it took since, every time.
    """

    baseline_ms: float
    seen_ms: list[float] = field(default_factory=list)
    _kernel: Call = field(default_factory=lambda: _reference_kernel(), repr=False)

    @classmethod
    def at_present(cls, seconds: float = 1.0) -> Reference:
        """A reference whose baseline is the machine's median speed within the next `seconds`."""
        reference = cls(float("nan"))
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or len(reference.seen_ms) < 20:
            reference()
        return cls(statistics.median(reference.seen_ms[5:]))

    def __call__(self) -> float:
        """Run it until it is warm, then once more; return milliseconds of the last."""
        for _ in range(_WARMUP_CALLS):  # what ran before has filled the caches with its own
            self._kernel()
        start = time.perf_counter()
        self._kernel()
        self.seen_ms.append(1000 * (time.perf_counter() - start))
        return self.seen_ms[-1]

    @property
    def drift(self) -> tuple[float, float, float]:
        """The 5th, 50th and 95th percentile of what it took since, relative to the baseline."""
        cuts = statistics.quantiles(self.seen_ms, n=20, method="inclusive")
        return cuts[0] / self.baseline_ms, cuts[9] / self.baseline_ms, cuts[18] / self.baseline_ms


def time_calls(calls: Sequence[Call], reference: Reference, *, visits: int = VISITS) -> list[Timing]:
    """Time several calls against each other, in milliseconds at the reference's baseline speed.

    Args:
        calls: What to time; each returns when it is done.
        reference: Runs in between.
        visits: How often each is visited, for about 20 ms; the quartiles are over visits.
    """
    ratios: list[list[float]] = [[] for _ in calls]
    with no_garbage_collection():
        for _ in range(visits):
            for call, seen in zip(calls, ratios, strict=True):
                seen.append(_visit(call, reference))
    timings = []
    for seen in ratios:
        low, middle, high = statistics.quantiles(seen, n=4, method="inclusive") if visits > 1 else seen * 3
        timings.append(Timing(*(value * reference.baseline_ms for value in (middle, low, high))))
    return timings


def _visit(call: Call, reference: Reference) -> float:
    """Median ratio of a call's time to the reference's just before and after."""
    for _ in range(_WARMUP_CALLS):
        call()
    ratios: list[float] = []
    before = reference()
    until = time.perf_counter() + _SECONDS_PER_VISIT
    while len(ratios) < _FEWEST_CALLS or time.perf_counter() < until:
        burst: list[float] = []
        burst_until = time.perf_counter() + _BETWEEN_REFERENCES
        while not burst or time.perf_counter() < burst_until:
            start = time.perf_counter()
            call()
            burst.append(1000 * (time.perf_counter() - start))
        after = reference()
        ratios += [2 * ms / (before + after) for ms in burst]
        before = after
    return statistics.median(ratios)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Let torch use `threads` threads, on as many cores of their own where the system can pin.

    Raises:
        ValueError: Fewer cores are allowed to this process.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if not 1 <= threads <= len(cores):
        raise ValueError(f"Expected 1 to {len(cores)} threads, as many as this process may use cores, got {threads}.")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, set(cores[-threads:]))
        yield
    finally:
        torch.set_num_threads(before)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, set(cores))


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the collector from running in the middle of a measurement."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def processor_name(device: str) -> str:
    """What the machine calls the processor, or the GPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        found = dict(line.split(":", 1) for line in facts.read_text().split("\n\n")[0].splitlines() if ":" in line)
        about = {key.strip(): value.strip() for key, value in found.items()}
        if "model name" in about:
            model = f", family {about['cpu family']} model {about['model']}" if "cpu family" in about else ""
            return f"{about['model name']}{model}"
    return platform.processor() or platform.machine()


def _reference_kernel() -> Call:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kernel = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        ).eval()
        images = torch.randn(1, 16, 20, 20)

    def call() -> None:
        with torch.inference_mode():
            kernel(images)

    return call


def _nothing() -> None:
    return None
