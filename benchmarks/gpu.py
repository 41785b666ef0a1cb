"""How many structures a second does a card score, in each way, and how near is that to what the card can do?

    python benchmarks/gpu.py [--minutes 8] [--device cuda] [--data-root data] [--networks resnet20 resnet50]

Per network one cell per way: `classic` builds one structure after the other, re-estimates its statistics and scores it;
`sliced` and `stacked` (so many at once) are the two ways of `evaluators.batching`, `bf16` the latter in 16 bits. Each
cell has what says structures a second, the most memory that it took, and how far its scores are from the CPU's; beside
them stands the speed of a dense convolution in the same run. Ways are warmed up, then timed until their share of the
minutes is spent. A cell that does not fit into what is left is named in `left_out`. What is there is written after
each cell, one file per card in `results`. Images are random, but those of CIFAR-10 for resnet20 where `--data-root` has
them.

Needs the checkout, torch, torchvision and nothing from the network. On a CPU it only shows that it runs.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import realdata
import tasks
import torch
from torch import Tensor, nn
from torchvision import models

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator, top1
from prunesearch.models.devices import devices_here, wait_for
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.weights import InheritedWeights
from prunesearch.models.zoo import make_model
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled
from prunesearch.tasks.examples import Examples

RESULTS = Path(__file__).resolve().parent / "results"
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20": (lambda: make_model("resnet20", in_channels=3, image_size=32, num_classes=10), 32),
    "resnet50": (lambda: models.resnet50(weights=None), 224),
    "mobilenet_v2": (lambda: models.mobilenet_v2(weights=None), 224),
    "efficientnet_b0": (lambda: models.efficientnet_b0(weights=None), 224),
    "vit_b_16": (lambda: models.vit_b_16(weights=None), 224),
}
AT_ONCE = (4, 16, 64)
_FEW = 4
"""Structures whose scores are compared with the CPU's."""


@dataclass(frozen=True)
class Cell:
    """What was measured of one network in one way.

    Attributes:
        network: Its name.
        way: classic, sliced, stacked or bf16.
        at_once: Structures in one launch.
        images: How many scored each structure, and their height and width.
        structures: How many were timed.
        seconds: What they took.
        macs: Of the unpruned network and one image.
        peak_bytes: Most memory that torch had; 0 on a CPU.
        off: Largest difference of a score from the CPU's; None where that was not computed.
        trouble: Why there is no time.
    """

    network: str
    way: str
    at_once: int
    images: tuple[int, int]
    structures: int = 0
    seconds: float = 0.0
    macs: int = 0
    peak_bytes: int = 0
    off: float | None = None
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


def scorer(
    way: str, at_once: int, network: Network, examples: Examples
) -> Callable[[Sequence[Structure]], list[float]]:
    """What scores structures in one way."""
    weights = InheritedWeights(network, NestedRanking(tuple(tuple(range(len(u))) for u in network.units)))
    if way == "classic":

        def one_after_another(structures: Sequence[Structure]) -> list[float]:
            found = []
            for structure in structures:
                model = weights.build(structure).eval()
                ps.recalibrate_bn(model, examples.inputs)
                found.append(top1(model, examples.inputs, examples.task.targets(examples.batch)))
            return found

        return one_after_another
    path: Any = "sliced" if way == "sliced" else "stacked"
    precision: Any = "bf16" if way == "bf16" else "fp32"
    return AccuracyEvaluator(weights, examples, path=path, at_once=at_once, precision=precision).score


def measure(cell: Cell, network: Network, examples: Examples, reference: Sequence[float], seconds: float) -> Cell:
    """Time one way, or say why it cannot be."""
    device = network.device
    rng = np.random.default_rng(1)
    drawn = [network.space.check(row.tolist()) for row in network.space.sample(rng, max(cell.at_once, _FEW))]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        score = scorer(cell.way, cell.at_once, network, examples)
        off = None
        if cell.way != "classic" and reference:
            off = max(abs(a - b) for a, b in zip(score(few(network)), reference, strict=True))
        n, each = timed(lambda: score(drawn), device, seconds)
    except (RuntimeError, ValueError) as error:  # out of memory, or a network that cannot be run in this way
        return Cell(**{**asdict(cell), "trouble": str(error).splitlines()[0][:200]})
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    took = {"structures": n * len(drawn), "seconds": n * each, "peak_bytes": peak, "off": off}
    return Cell(**{**asdict(cell), **took})


def few(network: Network) -> list[Structure]:
    """The structures that are compared with the CPU."""
    return [network.space.check(row.tolist()) for row in network.space.sample(np.random.default_rng(0), _FEW)]


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
    clock = Clock(time.monotonic() + 60 * arguments.minutes * 0.95)
    share = 60 * arguments.minutes / (len(arguments.networks) * (len(AT_ONCE) * 2 + 2) + 1)
    name = devices.named(device).partition("(")[2].rstrip(")") or platform.machine()
    file = arguments.out or RESULTS / f"gpu-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    found: dict[str, Any] = {
        "facts": {"device": devices.named(device), "torch": torch.__version__, "minutes": arguments.minutes},
        "convolution_macs_per_second": convolution_speed(device, min(2.0, share / 4)),
        "cells": [],
        "left_out": [],
    }
    for network_name in arguments.networks:
        build, size = NETWORKS[network_name]
        size, n = (size, 64) if is_card or size == 32 else (64, 4)
        if clock.left < share:
            found["left_out"].append(network_name)
            continue
        torch.manual_seed(0)
        try:
            here = ps.trace(build().eval(), torch.randn(2, 3, size, size))
        except (ps.TraceError, ValueError, RuntimeError) as error:  # one network less is better than no file
            found["left_out"].append(f"{network_name}: {str(error).splitlines()[0][:200]}")
            continue
        images, labels = images_of(network_name, size, n, arguments.data_root)
        reference = scorer("sliced", 1, here, labelled(images, labels))(few(here)) if is_card else []
        network, examples = here.to(device), labelled(images, labels).to(device)
        macs = here.space.cost(here.space.full).macs
        ways = [("classic", 1), ("sliced", 16), *((way, k) for way in ("stacked", "bf16") for k in AT_ONCE)]
        for way, at_once in ways:
            cell = Cell(network_name, way, at_once, (n, size), macs=macs)
            if clock.left < share:
                found["left_out"].append(f"{network_name}, {way}, {at_once} at once")
                continue
            measured = measure(cell, network, examples, reference, share / 3)
            found["cells"].append(asdict(measured))
            tasks.save(found, file)
            speed = measured.structures / measured.seconds if measured.seconds else 0.0
            print(f"{network_name:<16}{way:<9}{at_once:>3} {speed:>9.2f} structures/s  {measured.trouble}", flush=True)
    tasks.save(found, file)
    print(f"Wrote {file}.")


if __name__ == "__main__":
    main()
