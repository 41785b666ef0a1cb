"""Does the fast score rank structures as well as the papers' protocol, and how much cheaper is it?

    python benchmarks/evaluator.py [--networks resnet20] [--keep 0.5 0.3] [--data cifar10 --data-root D]

For each network and share of MACs: random structures, each scored by the classic protocol (EagleEye's adaptive BN:
100 batches of 128 training images, then the accuracy on 5,000 others) and by ours on few images, one after the other in
one process; then each is finetuned shortly, all alike, and tested. Kendall's tau of every score with the finetuned
accuracy says which ranks better. Beside it: what sharing the beginnings of forwards gains, the share of the time that
is convolution, what two worker processes give, and what memory costs that the C library gives back to the system
(on networks of torchvision at 224 pixels, with random weights). Every measurement is written when it is there; run
again to go on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tasks
import torch
import torchvision
from beside import KEPT
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.classic import adaptive_bn_evaluator
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled

IMAGES = (64, 128, 256, 512, 1024)
TIMED = 6
"""Structures that are scored once more, one after the other, for the seconds: cheap to repeat when code got faster."""

CALIBRATION, VALIDATION = 12_800, 5_000
REPEATS = 5
PARTS = ("sharing", "attained", "profile", "scored", "finetuned", "workers", "timed")
OPERATORS = {
    "convolutions and linear layers": ("aten::mkldnn_convolution", "aten::addmm", "aten::_convolution"),
    "statistics of channels": ("aten::sum", "aten::mse_loss", "aten::var_mean"),
    "normalising": ("aten::addcmul", "aten::rsqrt", "aten::mul"),
    "activations and sums": ("aten::clamp", "aten::clamp_min_", "aten::hardtanh_", "aten::add_", "aten::add"),
    "slices of weights": ("aten::index_select", "aten::copy_", "aten::index"),
}
"""What the time of scoring goes to, by names of torch's profiler."""
LARGE = ("resnet18", "mobilenet_v2")


@dataclass(frozen=True)
class Cell:
    """One network at one share of its MACs.

    Attributes:
        weights: Of its structures.
        structures: What is scored.
        task: The data.
        finetune: Images and epochs of the short finetune.
    """

    weights: InheritedWeights
    structures: tuple[Structure, ...]
    task: tasks.Task
    finetune: tuple[int, int]

    @property
    def network(self) -> Network:
        """The traced network."""
        return self.weights.network

    def scored_on(self, n: int) -> tuple[Tensor, Tensor]:
        """The first `n` of the balanced images that score structures."""
        return self.task.data(calibration=n).calibration_set()


def make_cell(name: str, keep: float, task: tasks.Task, arguments: argparse.Namespace) -> Cell:
    model = tasks.trained(name, task, epochs=arguments.epochs)
    network = ps.trace(model, task.test[0][:2])
    feasible = ps.Budget(macs=f"{keep:.0%}").check(network.space)
    rows = feasible.fit(network.space.sample(np.random.default_rng([0, 7]), arguments.structures))
    structures = tuple(network.space.check(row.tolist()) for row in rows)
    weights = InheritedWeights(network, make_criterion("l1").rank(network))
    return Cell(weights, structures, task, (arguments.finetune_images, arguments.finetune_epochs))


def finetuned(cell: Cell, index: int) -> dict[str, float]:
    """Test accuracy of one structure after the same short finetune as all others."""
    images, labels = cell.task.train
    n, epochs = cell.finetune
    start = time.perf_counter()
    model = cell.weights.build(cell.structures[index])
    ps.recalibrate_bn(model, images[:512])
    tuned = ps.finetune(model, ps.Data(train=(images[:n], labels[:n])), recipe=ps.Recipe(epochs=epochs, lr=0.02))
    return {"accuracy": ps.top1(tuned, *cell.task.test), "seconds": time.perf_counter() - start}


def scored(cell: Cell, index: int) -> dict[str, Any]:
    """Scores and seconds of one structure, the classic protocol first, then ours on more and more images."""
    structure = [cell.structures[index]]
    images, labels = cell.task.train
    held_out = slice(CALIBRATION, CALIBRATION + VALIDATION)
    classic = adaptive_bn_evaluator(
        cell.weights, labelled(images[held_out], labels[held_out]), calibration=images[:CALIBRATION]
    )
    found: dict[str, Any] = {}
    start = time.perf_counter()
    found["classic"] = {"accuracy": classic.score(structure)[0], "seconds": time.perf_counter() - start}
    for n in IMAGES:
        chosen = cell.scored_on(n)
        evaluators = {
            metric: AccuracyEvaluator(cell.weights, labelled(*chosen), metric=metric)
            for metric in ("loss", "accuracy", "agreement")
        }
        seconds, scores = [], {}
        for metric, evaluator in evaluators.items():
            start = time.perf_counter()
            scores[metric] = evaluator.score(structure)[0]
            seconds.append(time.perf_counter() - start)
        found[str(n)] = {**scores, "seconds": statistics.median(seconds)}
    return found


def batches(cell: Cell, n: int = 16) -> dict[str, list[Structure]]:
    """What searchers ask for: strangers, offspring of a few parents, and one group after the other narrowed."""
    space = cell.network.space
    feasible = ps.Budget(macs="50%").check(space)
    rng = np.random.default_rng([0, 8])
    strangers = feasible.fit(space.sample(rng, n))
    parents = strangers[rng.integers(0, 4, n)]
    change = rng.random(parents.shape) < 0.1
    offspring = feasible.fit(np.where(change, space.sample(rng, n), parents))
    sweep = [
        (*space.full[:g], group.widths[len(group.widths) // 2], *space.full[g + 1 :])
        for g, group in enumerate(space.groups)
    ][:n]
    return {
        "random": [space.check(row.tolist()) for row in strangers],
        "evolution": [space.check(row.tolist()) for row in offspring],
        "sensitivity": [space.check(row) for row in sweep],
    }


def sharing(cell: Cell) -> dict[str, Any]:
    """Seconds of a batch in one call and structure by structure, interleaved; medians of several rounds."""
    evaluator = AccuracyEvaluator(cell.weights, labelled(*cell.scored_on(128)))
    found = {}
    for kind, structures in batches(cell).items():
        together, apart = [], []
        for _ in range(REPEATS):
            together.append(timed(lambda: evaluator.score(structures)))  # noqa: B023 - called at once
            apart.append(timed(lambda: [evaluator.score([structure]) for structure in structures]))  # noqa: B023
        found[kind] = {
            "structures": len(structures),
            "together": statistics.median(together),
            "apart": statistics.median(apart),
        }
    return found


def attained(cell: Cell) -> dict[str, float]:
    """Seconds of scoring, and of the convolutions and linear layers of the same networks alone, interleaved."""
    images, labels = cell.scored_on(128)
    evaluator = AccuracyEvaluator(cell.weights, labelled(images, labels))
    structures = cell.structures[:4]
    calls = [call for structure in structures for call in dense_calls(cell.weights.build(structure).eval(), images)]

    calls = [(layer.to(memory_format=torch.channels_last), channels_last(given)) for layer, given in calls]

    def convolve() -> None:
        with torch.inference_mode():
            for layer, given in calls:
                layer(given)

    scoring, dense = [], []
    for _ in range(3 * REPEATS):
        scoring.append(timed(lambda: evaluator.score(structures)))
        dense.append(timed(convolve))
    return {"scoring": statistics.median(scoring), "dense": statistics.median(dense)}


def profile(cell: Cell) -> dict[str, float]:
    """Seconds of scoring by kind of operator; what is in no operator is Python and torch's dispatch."""
    evaluator = AccuracyEvaluator(cell.weights, labelled(*cell.scored_on(128)))
    structures = cell.structures[:4]
    evaluator.score(structures)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        seconds = timed(lambda: evaluator.score(structures))
    by_name = {entry.key: entry.self_cpu_time_total / 1e6 for entry in profiler.key_averages()}
    found = {kind: sum(by_name.get(name, 0.0) for name in names) for kind, names in OPERATORS.items()}
    found["other operators"] = sum(by_name.values()) - sum(found.values())
    found["between operators"] = seconds - sum(by_name.values())
    return found


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def dense_calls(model: nn.Module, images: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Each convolution and linear layer of a network, and what it is given."""
    calls: list[tuple[nn.Module, Tensor]] = []
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_pre_hook(lambda m, given: calls.append((m, given[0].clone()))) for layer in layers]
    with torch.inference_mode():
        model(images)
    for hook in hooks:
        hook.remove()
    return calls


def workers(cell: Cell, name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Structures per second of one process on one core, and of two processes on two, three rounds interleaved."""
    one, two = [], []
    for _ in range(3):
        one.append(rate(name, arguments, 1))
        two.append(rate(name, arguments, 2))
    return {"one": statistics.median(one), "two": statistics.median(two)}


def rate(name: str, arguments: argparse.Namespace, processes: int) -> float:
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(processes), context.SimpleQueue()
    started = [context.Process(target=_rate, args=(name, arguments, ready, rates)) for _ in range(processes)]
    for process in started:
        process.start()
    total = sum(rates.get() for _ in started)
    for process in started:
        process.join()
    return total


def _rate(name: str, arguments: argparse.Namespace, ready: Any, rates: Any) -> None:
    torch.set_num_threads(1)
    cell = make_cell(name, 0.5, tasks.load(arguments.data, arguments.data_root, arguments.train_images), arguments)
    evaluator = AccuracyEvaluator(cell.weights, labelled(*cell.scored_on(128)))
    structures = batches(cell)["random"]
    evaluator.score(structures)
    ready.wait()
    rates.put(len(structures) * REPEATS / timed(lambda: [evaluator.score(structures) for _ in range(REPEATS)]))


def memory(name: str) -> dict[str, dict[str, float]]:
    """Seconds of a large network, with memory given back to the system and kept, interleaved."""
    ways: dict[str, Mapping[str, str]] = {"given back": {}, "kept": KEPT}
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(3):
        for way, environment in ways.items():
            found[way].append(in_fresh_process(name, environment))
    return {
        way: {kind: statistics.median(row[kind] for row in rows) for kind in rows[0]} for way, rows in found.items()
    }


def in_fresh_process(name: str, environment: Mapping[str, str]) -> dict[str, float]:
    """What `_large` measures in a process with these environment variables."""
    context = multiprocessing.get_context("spawn")
    measured = context.SimpleQueue()
    os.environ.update(environment)
    try:
        process = context.Process(target=_large, args=(name, measured))
        process.start()
    finally:
        for variable in environment:
            del os.environ[variable]
    found: dict[str, float] = measured.get()
    process.join()
    return found


def _large(name: str, measured: Any) -> None:
    """Seconds to score a structure, and of a training step of the unpruned network; bytes at the peak."""
    model = getattr(torchvision.models, name)(num_classes=10)
    images, labels = torch.randn(64, 3, 224, 224), torch.arange(64) % 10
    network = ps.trace(model, images[:1])
    rows = ps.Budget(macs="50%").check(network.space).fit(network.space.sample(np.random.default_rng([0, 9]), 2))
    structures = [network.space.check(row.tolist()) for row in rows]
    evaluator = AccuracyEvaluator(
        InheritedWeights(network, make_criterion("l1").rank(network)), labelled(images, labels)
    )

    def train() -> None:
        loss = nn.functional.cross_entropy(model.train()(images[:16]), labels[:16])
        torch.autograd.backward(loss)

    found = {}
    for kind, work, pieces in (("score", lambda: evaluator.score(structures), len(structures)), ("train", train, 1)):
        work()
        found[kind] = statistics.median(timed(work) for _ in range(REPEATS)) / pieces
        found[f"{kind}: peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    measured.put(found)


def timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.add_argument("--networks", nargs="*", default=["resnet20", "mobilenet_v2_025"], choices=tasks.NETWORKS)
    parser.add_argument("--large", nargs="*", default=LARGE, choices=LARGE, help="what to measure memory on")
    parser.add_argument("--keep", nargs="*", type=float, default=[0.5, 0.3])
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="what to measure")
    parser.add_argument("--again", action="store_true", help="measure these parts anew")
    parser.add_argument("--structures", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=4, help="of training the unpruned networks")
    parser.add_argument("--finetune-images", type=int, default=5_000)
    parser.add_argument("--finetune-epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "evaluator.json")
    arguments = parser.parse_args()
    task = tasks.load(arguments.data, arguments.data_root, arguments.train_images)
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": {}}
    rows: dict[str, Any] = found["rows"]
    large: dict[str, Any] = found.setdefault("large", {})
    for name in arguments.large:
        if name not in large or arguments.again:
            large[name] = memory(name)
            save(arguments, found)
    for name in arguments.networks:
        for keep in arguments.keep:
            cell = make_cell(name, keep, task, arguments)
            row = rows.setdefault(f"{name} at {keep:.0%} of the MACs", {})
            for part in arguments.parts if arguments.again else ():
                row.pop(part, None)
            for column, measure in (("sharing", sharing), ("attained", attained), ("profile", profile)):
                if column in arguments.parts and column not in row:
                    row[column] = measure(cell)
                    save(arguments, found)
            for column, measure_one in (("scored", scored), ("finetuned", finetuned)):
                done = row.setdefault(column, [])
                for index in range(len(done), len(cell.structures) if column in arguments.parts else 0):
                    done.append(measure_one(cell, index))
                    save(arguments, found)
                    print(name, keep, column, index, json.dumps(done[-1]), flush=True)
            if "timed" in arguments.parts and "timed" not in row:
                row["timed"] = [scored(cell, index) for index in range(TIMED)]
                save(arguments, found)
            if "workers" in arguments.parts and "workers" not in row:
                row["workers"] = workers(cell, name, arguments)
                save(arguments, found)


def save(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    facts = {
        **tasks.facts(arguments),
        "epochs": arguments.epochs,
        "finetune_images": arguments.finetune_images,
        "finetune_epochs": arguments.finetune_epochs,
        "calibration": CALIBRATION,
        "validation": VALIDATION,
    }
    tasks.save({**found, "facts": facts}, arguments.out)


if __name__ == "__main__":
    main()
