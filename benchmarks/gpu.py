"""How many structures a second does a card score, in each way, and how near is that to what the card can do?

    python benchmarks/gpu.py [--minutes 8] [--device cuda] [--data-root data] [--networks resnet20 resnet50]

Per network one cell per way: `classic` builds one structure after the other, re-estimates its statistics and scores it;
the others are those of `evaluators.batching` (sliced, or so many stacked at once, with channels last, as a CUDA
graph), some also in 16 bits. Each cell has what says structures a second, the most memory that it took, and how far its
scores are from the CPU's; one in 16 bits also whether it ranks structures as 32 bits do. Beside them stand the speed of
a dense convolution in the same run, and the way that `path="auto"` takes. Ways are warmed up, then timed until their
share of the minutes is spent. A cell that does not fit into what is left is named in `left_out`. What is there is
written after each cell, one file per card in `results/gpu`; on a CPU in `build`. Images are random, but those of
CIFAR-10 for resnet20 where `--data-root` has them.

Needs the checkout, torch, torchvision and nothing from the network. On a CPU it only shows that it runs.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import realdata
import tasks
import torch
from tabulated.summaries import tau as kendall
from torch import Tensor, nn
from torchvision import models

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator, top1
from prunesearch.evaluators.ways import Precision, paths_on
from prunesearch.models.devices import devices_here, wait_for
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.models.zoo import make_model
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples

RESULTS = Path(__file__).resolve().parent / "results"
NETWORKS: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "resnet20": (lambda size: make_model("resnet20", in_channels=3, image_size=size, num_classes=10), 32),
    "resnet50": (lambda _: models.resnet50(weights=None), 224),
    "mobilenet_v2": (lambda _: models.mobilenet_v2(weights=None), 224),
    "efficientnet_b0": (lambda _: models.efficientnet_b0(weights=None), 224),
    "vit_b_16": (lambda size: models.vit_b_16(weights=None, image_size=size), 224),
}
"""How each is built for images of a size, and that size."""
_LAST, _GRAPH = "stacked+channels_last", "stacked+channels_last+graph"
WAYS: tuple[tuple[str, int, Precision], ...] = (
    ("classic", 1, "fp32"),
    ("sliced", 16, "fp32"),
    *(("stacked", k, "fp32") for k in (4, 16, 64)),
    *((_LAST, k, "fp32") for k in (16, 64)),
    *(("stacked+graph", k, "fp32") for k in (4, 16)),
    *((_GRAPH, k, "fp32") for k in (16, 64)),
    ("sliced", 16, "bf16"),
    *((path, k, "bf16") for path in ("stacked", _LAST, _GRAPH) for k in (16, 64)),
)
"""Path, structures at once, precision."""

_FEW = 4
"""Structures whose scores are compared with the CPU's."""

_RANKED = 24
"""Structures whose order in 16 bits is compared with that in 32."""


@dataclass(frozen=True)
class Cell:
    """What was measured of one network in one way.

    Attributes:
        network: Its name.
        way: `classic`, or a path of `evaluators.batching`.
        at_once: Structures in one launch.
        precision: fp32 or bf16.
        images: How many scored each structure, and their height and width.
        structures: How many were timed.
        seconds: What they took.
        macs: Of the unpruned network and one image.
        peak_bytes: Most memory that torch had; 0 on a CPU.
        off: Largest difference of a score from the CPU's; None where that was not computed.
        tau: Kendall's, of scores in 16 bits with those in 32 on the same device; None of 32.
        trouble: Why there is no time.
    """

    network: str
    way: str
    at_once: int
    precision: Precision
    images: tuple[int, int]
    structures: int = 0
    seconds: float = 0.0
    macs: int = 0
    peak_bytes: int = 0
    off: float | None = None
    tau: float | None = None
    trouble: str = ""


@dataclass
class Clock:
    """The minutes that may be spent."""

    end: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()


def convolution_speed(device: torch.device, seconds: float) -> float:
    """Multiply-accumulates a second of one dense convolution, 256 channels of 56 x 56."""
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(device).to(memory_format=torch.channels_last)
    images = torch.randn(32 if device.type == "cuda" else 1, 256, 56, 56, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    macs = len(images) * 56 * 56 * 256 * 256 * 9
    with torch.inference_mode():
        _, each = timed(lambda: layer(images), device, seconds)
    return macs / each


def timed(work: Callable[[], Any], device: torch.device, seconds: float) -> tuple[int, float]:
    """How often something was done within about so many seconds after a first time, and what it took each time."""
    work()
    wait_for(device)
    start, n = time.perf_counter(), 0
    while n == 0 or time.perf_counter() - start < seconds:
        work()
        wait_for(device)
        n += 1
    return n, (time.perf_counter() - start) / n


class Classic:
    """Builds one structure after the other, re-estimates its statistics, and scores it."""

    way = None

    def __init__(self, weights: WeightSource, examples: Examples) -> None:
        self._weights, self._examples = weights, examples

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Top-1 accuracy of each."""
        found, inputs = [], self._examples.inputs
        for structure in structures:
            model = self._weights.build(structure).eval()
            ps.recalibrate_bn(model, inputs)
            found.append(top1(model, inputs, self._examples.task.targets(self._examples.batch)))
        return found


def scorer(
    way: Any, network: Network, examples: Examples, at_once: int = 16, precision: Precision = "fp32"
) -> AccuracyEvaluator | Classic:
    """What scores structures in one way."""
    weights = InheritedWeights(network, NestedRanking(tuple(tuple(range(len(u))) for u in network.units)))
    if way == "classic":
        return Classic(weights, examples)
    return AccuracyEvaluator(weights, examples, path=way, at_once=at_once, precision=precision)


@dataclass(frozen=True)
class Reference:
    """Scores to compare with.

    Attributes:
        cpu: Of a few structures, on the CPU; empty where that is the device.
        exact: Gives those of more of them, in 32 bits on the device.
    """

    cpu: Sequence[float]
    exact: Callable[[], Sequence[float]]


def measure(cell: Cell, network: Network, examples: Examples, reference: Reference, seconds: float) -> Cell:
    """Time one way, or say why it cannot be."""
    device = network.device
    drawn = structures(network, max(cell.at_once, _FEW), seed=1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        evaluator = scorer(cell.way, network, examples, cell.at_once, cell.precision)
        off = tau = None
        if cell.way != "classic" and reference.cpu:
            found = evaluator.score(structures(network, _FEW))
            off = max(abs(a - b) for a, b in zip(found, reference.cpu, strict=True))
        if cell.precision == "bf16":
            tau = kendall(evaluator.score(structures(network, _RANKED)), reference.exact())
        n, each = timed(lambda: evaluator.score(drawn), device, seconds)
        for _, trouble in () if evaluator.way is None else evaluator.way.left_out:
            raise RuntimeError(trouble)  # of a graph: what was timed is no graph
    except (RuntimeError, ValueError) as error:  # out of memory, or a network that cannot be run in this way
        return Cell(**{**asdict(cell), "trouble": str(error).splitlines()[0][:200]})
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    took = {"structures": n * len(drawn), "seconds": n * each, "peak_bytes": peak, "off": off, "tau": tau}
    return Cell(**{**asdict(cell), **took})


def structures(network: Network, n: int, seed: int = 0) -> list[Structure]:
    """Random ones."""
    return [network.space.check(row.tolist()) for row in network.space.sample(np.random.default_rng(seed), n)]


def images_of(name: str, size: int, n: int, root: Path | None) -> tuple[Tensor, Tensor]:
    """Images and labels: CIFAR-10's where they are at hand and fit, else random ones."""
    if name == "resnet20" and root is not None:
        images, labels = realdata.cifar10(root, root / "cache").search
        return realdata.normalised(images[:n]), labels[:n]
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, size, size, generator=generator), torch.arange(n) % 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default=None)
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    devices = devices_here()
    device = devices.chosen(arguments.device)
    is_card = device.type == "cuda"
    start, seconds = time.monotonic(), 60 * arguments.minutes * 0.95
    ways = [way for way in WAYS if way[0] == "classic" or way[0] in paths_on(device)]
    share = 60 * arguments.minutes / (len(arguments.networks) * (len(ways) + 2) + 1)
    name = devices.named(device).partition("(")[2].rstrip(")") or platform.machine()
    folder = RESULTS / "gpu" if is_card else RESULTS.parent.parent / "build"
    file = arguments.out or folder / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "facts": {"device": devices.named(device), "torch": torch.__version__, "minutes": arguments.minutes},
        "convolution_macs_per_second": convolution_speed(device, min(2.0, share / 4)),
        "cells": [],
        "chosen": {},
        "left_out": [],
    }
    for place, network_name in enumerate(arguments.networks, 1):
        clock = Clock(start + seconds * place / len(arguments.networks))  # what others leave over is for those after
        build, size = NETWORKS[network_name]
        size, n = (size, 64) if is_card or size == 32 else (64, 4)
        if clock.left < share:
            found["left_out"].append(network_name)
            continue
        torch.manual_seed(0)
        try:
            here = ps.trace(build(size).eval(), torch.randn(2, 3, size, size))
        except (ps.TraceError, ValueError, RuntimeError) as error:  # one network less is better than no file
            found["left_out"].append(f"{network_name}: {str(error).splitlines()[0][:200]}")
            continue
        images, labels = images_of(network_name, size, n, arguments.data_root)
        on_cpu = scorer("sliced", here, labelled(images, labels)).score(structures(here, _FEW)) if is_card else []
        network, examples = here.to(device), labelled(images, labels).to(device)
        exact = partial(scorer("sliced", network, examples).score, structures(here, _RANKED))
        reference = Reference(on_cpu, cache(exact))
        chooser = scorer("auto", network, examples)
        chooser.score(structures(here, _FEW))
        found["chosen"][network_name] = None if chooser.way is None else asdict(chooser.way)
        macs = here.space.cost(here.space.full).macs
        for way, at_once, precision in ways:
            cell = Cell(network_name, way, at_once, precision, (n, size), macs=macs)
            if clock.left < share:
                found["left_out"].append(f"{network_name}, {way}, {at_once} at once, {precision}")
                continue
            measured = measure(cell, network, examples, reference, share / 3)
            found["cells"].append(asdict(measured))
            tasks.save(found, file)
            speed = measured.structures / measured.seconds if measured.seconds else 0.0
            told = f"{network_name:<16}{way:<29}{at_once:>3} {precision} {speed:>9.2f} structures/s"
            print(f"{told}  {measured.trouble}", flush=True)
    tasks.save(found, file)
    print(f"Wrote {file}.")


if __name__ == "__main__":
    main()
