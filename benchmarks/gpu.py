"""How many structures a second does a card score, in each way, and how near is that to what the card can do?

    python benchmarks/gpu.py [--minutes 8] [--device cuda] [--data-root data] [--networks resnet20 resnet50]

Per network one cell per way: `classic` builds one structure after the other, re-estimates its statistics and scores it;
the others are those of `evaluators.ways` (sliced, or so many stacked at once, with channels last, as a CUDA graph),
some also in 16 bits; `auto` is the one that a search would choose. Each cell has what says structures a second, how
many operators Python launches for a structure, the most memory that it took, and how far its scores are from the CPU's;
one in 16 bits also whether it ranks structures as 32 bits do. Beside them stand the speed of a dense convolution in the
same run, what was timed to choose, and the seconds of other work: moments of layers, a ranking by them, weights that
are fitted to a structure, statistics, steps of trainings; of a network of small images those of the CPU, too. All is
warmed up, then timed until its share of the minutes is spent. What does not fit into what is left is named in
`left_out`. What is there is written after each cell, one file per card in `results/gpu`; on a CPU in `build`. Images
are random, but those of CIFAR-10 for resnet20 where `--data-root` has them.

Needs the checkout, torch, torchvision and nothing from the network. On a CPU it only shows that it runs.
"""

from __future__ import annotations

import argparse
import copy
import itertools
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
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models

import prunesearch as ps
from prunesearch.evaluators import make_weights
from prunesearch.evaluators.accuracy import AccuracyEvaluator, top1
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.layer_inputs import layer_inputs
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

_SMALL = 32
"""Height of images up to which other work is timed on the CPU, too: larger ones would take the minutes."""

_FEW = 4
"""Structures whose scores are compared with the CPU's."""

_RANKED = 24
"""Structures whose order in 16 bits is compared with that in 32."""


@dataclass(frozen=True)
class Cell:
    """What was measured of one network in one way.

    Attributes:
        network: Its name.
        way: `classic`, a path of `evaluators.ways`, or `auto`.
        at_once: Structures in one launch.
        precision: fp32 or bf16.
        images: How many scored each structure, and their height and width.
        structures: How many were timed.
        seconds: What they took.
        macs: Of the unpruned network and one image.
        operators: That Python launches for each structure, views aside; a CUDA graph is none.
        peak_bytes: Most memory that torch had; 0 on a CPU.
        off: Largest difference of a score from the CPU's; None where that was not computed.
        tau: Kendall's, of scores in 16 bits with those in 32 on the same device; None of 32.
        trouble: Why there is no time.
    """

    network: str
    way: str
    at_once: int
    precision: str
    images: tuple[int, int]
    structures: int = 0
    seconds: float = 0.0
    macs: int = 0
    operators: float = 0.0
    peak_bytes: int = 0
    off: float | None = None
    tau: float | None = None
    trouble: str = ""


@dataclass(frozen=True)
class Job:
    """How long some other work took.

    Attributes:
        network: Of which network.
        work: Its name.
        seconds: On the device.
        cpu_seconds: On the CPU; None where that was not timed.
        trouble: Why there is no time.
    """

    network: str
    work: str
    seconds: float = 0.0
    cpu_seconds: float | None = None
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


class _Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators that compute."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += not func.is_view
        return func(*args, **(kwargs or {}))


def fitting(source: str) -> Callable[[Network, Examples], Callable[[], Any]]:
    """Fits weights to a structure that it has not seen."""

    def made(network: Network, examples: Examples) -> Callable[[], Any]:
        weights = make_weights(source, network, ranked(network), examples.inputs)
        drawn = itertools.cycle(structures(network, 64, seed=2))
        return lambda: weights.build(next(drawn))

    return made


def finetuning(network: Network, examples: Examples) -> Callable[[], Any]:
    """An epoch of two steps, with all that surrounds it."""
    data = ps.Data(train=examples.to(torch.device("cpu")).batch)
    recipe = ps.Recipe(epochs=1, batch_size=max(1, len(examples) // 2))
    device = str(network.device)
    return lambda: ps.finetune(network.model, data, recipe=recipe, device=device, progress=False)


def pruningnet(network: Network, examples: Examples) -> Callable[[], Any]:
    """Forward and backward of a PruningNet for four structures."""
    net, drawn = ps.PruningNet(network).to(network.device).train(), structures(network, 4)

    def step() -> None:
        net.zero_grad()
        losses = [examples.losses(found).mean() for found in net(drawn, examples.inputs)]
        torch.autograd.backward(torch.stack(losses).sum())

    return step


JOBS: dict[str, Callable[[Network, Examples], Callable[[], Any]]] = {
    "moments": lambda network, examples: lambda: list(layer_inputs(network, examples.inputs)),
    "cap": lambda network, examples: lambda: make_criterion("cap").rank(network, examples),
    "compensated": fitting("compensated"),
    "reconstructed": fitting("reconstructed"),
    "statistics": lambda network, examples: partial(ps.recalibrate_bn, copy.deepcopy(network.model), examples.inputs),
    "finetuning": finetuning,
    "pruningnet": pruningnet,
}
"""Other work that is timed: each is made of a network and examples on one device, and then done."""


def done(network_name: str, work: str, networks: Sequence[Network], examples: Examples, seconds: float) -> Job:
    """Time some other work on the devices of some copies of a network, the CPU last."""
    took = []
    for network in networks:
        try:
            job = JOBS[work](network, examples.to(network.device))
            took.append(timed(job, network.device, seconds)[1])
        except Exception as error:  # out of memory, or a network that it cannot be done with: no reason to stop here
            return Job(network_name, work, trouble=str(error).splitlines()[0][:200])
    return Job(network_name, work, took[0], took[-1] if len(took) > 1 else None)


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
    way: Any, network: Network, examples: Examples, at_once: int | None = 16, precision: Any = "fp32"
) -> AccuracyEvaluator | Classic:
    """What scores structures in one way; `"auto"` is found out by running some in each."""
    weights = InheritedWeights(network, ranked(network))
    if way == "auto":
        evaluator = AccuracyEvaluator(weights, examples)
        evaluator.choose(structures(network, 32))
        return evaluator
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


def measure(
    cell: Cell,
    network: Network,
    examples: Examples,
    reference: Reference,
    seconds: float,
    evaluator: AccuracyEvaluator | Classic | None = None,
) -> Cell:
    """Time one way, or say why it cannot be; what scores is made here unless it is given."""
    device = network.device
    drawn = structures(network, max(cell.at_once, _FEW), seed=1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        evaluator = evaluator or scorer(cell.way, network, examples, cell.at_once, cell.precision)
        off = tau = None
        if cell.way != "classic" and reference.cpu:
            found = evaluator.score(structures(network, _FEW))
            off = max(abs(a - b) for a, b in zip(found, reference.cpu, strict=True))
        if cell.precision == "bf16":
            tau = kendall(evaluator.score(structures(network, _RANKED)), reference.exact())
        n, each = timed(lambda: evaluator.score(drawn), device, seconds)
        with _Launches() as launched:
            evaluator.score(drawn)
        for _, trouble in () if cell.way == "auto" or evaluator.way is None else evaluator.way.left_out:
            raise RuntimeError(trouble)  # of a graph: what was timed is no graph
    except (RuntimeError, ValueError) as error:  # out of memory, or a network that cannot be run in this way
        return Cell(**{**asdict(cell), "trouble": str(error).splitlines()[0][:200]})
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    took = {"structures": n * len(drawn), "seconds": n * each, "peak_bytes": peak, "off": off, "tau": tau}
    return Cell(**{**asdict(cell), **took, "operators": launched.n / len(drawn)})


def ranked(network: Network) -> NestedRanking:
    """The first channels stay."""
    return NestedRanking(tuple(tuple(range(len(u))) for u in network.units))


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
    share = 60 * arguments.minutes / (len(arguments.networks) * (len(ways) + len(JOBS) + 3) + 1)
    name = devices.named(device).partition("(")[2].rstrip(")") or platform.machine()
    folder = RESULTS / "gpu" if is_card else RESULTS.parent.parent / "build"
    file = arguments.out or folder / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "facts": {"device": devices.named(device), "torch": torch.__version__, "minutes": arguments.minutes},
        "convolution_macs_per_second": convolution_speed(device, min(2.0, share / 4)),
        "cells": [],
        "chosen": {},
        "jobs": [],
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
        macs = here.space.cost(here.space.full).macs
        chooser = scorer("auto", network, examples)
        way = chooser.way
        assert way is not None
        found["chosen"][network_name] = asdict(way)
        chosen = Cell(network_name, "auto", way.at_once, way.precision, (n, size), macs=macs)
        cells = [Cell(network_name, *each, (n, size), macs=macs) for each in ways]
        networks = [network, here] if is_card and size <= _SMALL else [network]
        order: list[Cell | str] = [cells[0], chosen, *JOBS, *cells[1:]]  # what a search does first, then other ways
        for each in order:
            work = each if isinstance(each, str) else f"{each.way}, {each.at_once} at once, {each.precision}"
            if clock.left < share:
                found["left_out"].append(f"{network_name}, {work}")
                continue
            if isinstance(each, str):
                job = done(network_name, each, networks, examples, share / 6)
                found["jobs"].append(asdict(job))
                told, trouble = f"{job.seconds:>9.3f} s", job.trouble
            else:
                cell = measure(each, network, examples, reference, share / 3, chooser if each is chosen else None)
                found["cells"].append(asdict(cell))
                told, trouble = f"{cell.structures / (cell.seconds or 1.0):>9.2f} structures/s", cell.trouble
            tasks.save(found, file)
            print(f"{network_name:<16}{work:<45}{told}  {trouble}", flush=True)
    tasks.save(found, file)
    print(f"Wrote {file}.")


if __name__ == "__main__":
    main()
