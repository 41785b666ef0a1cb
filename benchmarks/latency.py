"""Do predicted latencies hold, and is latency worth searching for?

    python benchmarks/latency.py predict [--networks resnet18] [--backends eager onnxruntime]
    python benchmarks/latency.py search [--backends eager]

*predict*: a table is measured for each network and backend (kept in cache/, gone on with when run again); then 40
structures that had no part in it are built and timed. Each has a size, uniform between 30 and 100%, and every group a
share of its channels uniform within 20 points of it, clipped to 30 to 100%. All are timed in several rounds, and what
counts is the median; how far two rounds differ is what no prediction can do better than. Beside the table: latency
proportional to MACs, with the factor that fits the same calibration networks best.

*search*: a trained network is searched under limits on latency and, with the same searcher and number of evaluations,
under limits on MACs. A winner under a limit on latency is timed, and the search goes on until one holds, as always. All
winners are then timed against each other, judged on images that the search did not see, and finetuned shortly.

Results are written as they come. Nothing else should run on the cores used.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tasks
import torch
from torchvision import models

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.latency.backends import make_backend
from prunesearch.evaluators.latency.measuring import time_networks
from prunesearch.evaluators.latency.timing import Reference, pinned
from prunesearch.latency_model import LatencyModel
from prunesearch.models.network import Network
from prunesearch.structure import FloatArray, Structure
from prunesearch.tasks.classify import labelled

RESULTS = Path(__file__).parent / "results"
AT_ONCE = 8
L1 = ps.Scoring(criterion="l1")
"""How searches scored when the committed results were measured."""
ROUNDS = 6
NETWORKS: Mapping[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "resnet18": (lambda: models.resnet18(weights=None), (1, 3, 96, 96)),
    "mobilenet_v2": (lambda: models.mobilenet_v2(weights=None), (1, 3, 96, 96)),
    "vgg16": (lambda: ps.make_model("vgg16"), (1, 3, 32, 32)),
}


def network_of(name: str) -> Network:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    return ps.trace(make().eval(), torch.randn(shape), round_to=8, min_channels=0.3)


def unseen_structures(network: Network, n: int) -> list[Structure]:
    rng = np.random.default_rng([1, n])
    full = np.array(network.space.full)
    size = rng.uniform(0.3, 1.0, (n, 1))
    kept = np.clip(size + rng.uniform(-0.2, 0.2, (n, len(full))), 0.3, 1.0)
    return [tuple(row) for row in network.space.from_indices(network.space.indices(kept * full)).tolist()]


def table_of(network: Network, name: str, backend: str) -> ps.LatencyTable:
    tasks.CACHE.mkdir(exist_ok=True)
    file = tasks.CACHE / f"latency-{name}-{backend.replace(':', '-')}.json"
    if file.exists() and not ps.LatencyTable.load(file).missing:
        return ps.LatencyTable.load(file)
    return ps.LatencyTable.measure(network, backend=backend, threads=1, file=file, on_progress=progress())


def progress() -> Any:
    shown = [time.monotonic()]

    def show(done: int, wanted: int) -> None:
        if time.monotonic() - shown[0] > 20:
            print(f"{done} of {wanted} timings", flush=True)
            shown[0] = time.monotonic()

    return show


def timed(network: Network, structures: list[Structure], table: ps.LatencyTable) -> list[float]:
    """Milliseconds of every structure, one round."""
    assert table.reference_ms is not None
    reference = Reference(table.reference_ms)
    with pinned(1):
        runner = make_backend(table.conditions.backend, "cpu", 1)
        parts = [structures[i : i + AT_ONCE] for i in range(0, len(structures), AT_ONCE)]
        times = [time_networks(network, part, table.conditions, runner, reference) for part in parts]
    return [timing.ms for part in times for timing in part]


def predicted(arguments: argparse.Namespace, stored: dict[str, Any]) -> None:
    for name in arguments.networks:
        network = network_of(name)
        for backend in arguments.backends:
            key = f"{name}, {backend}"
            table = table_of(network, name, backend)
            rounds = stored["predict"].get(key, {}).get("rounds", [])
            row = stored["predict"][key] = {**described(network, table, arguments.structures), "rounds": rounds}
            structures = [tuple(structure) for structure in row["structures"]]
            while len(row["rounds"]) < ROUNDS:
                row["rounds"].append(timed(network, structures, table))
                tasks.save(stored, arguments.out, indent=None)
            tasks.save(
                stored, arguments.out, indent=None
            )  # predictions follow from the table, and may be others than before
            truth = np.median(row["rounds"], axis=0)
            for what in ("predicted", "summed", "by macs"):
                off = np.abs(np.array(row[what]) / truth - 1)
                print(key, what, f"{np.median(off):.3f} {np.quantile(off, 0.95):.3f}", flush=True)


def described(network: Network, table: ps.LatencyTable, n: int) -> dict[str, Any]:
    """What the table says of structures that had no part in it."""
    structures = unseen_structures(network, n)
    model = LatencyModel(table, network.space)
    built = [(entry.structure, entry.timing.ms) for entry in table.networks if entry.timing is not None]
    per_mac = _factor(network.space.macs([s for s, _ in built]), np.array([ms for _, ms in built]))
    return {
        "timings": sum(len(layer.timings) for layer in table.layers),
        "layers": len(table.layers),
        "calibration networks": len(built),
        "drift": table.drift,
        "expected error": model.relative_error,
        "coefficients": model.coefficients.tolist(),
        "structures": structures,
        "predicted": model.predict(structures).tolist(),
        "summed": [sum(model.blocks(structure).values()) for structure in structures],
        "by macs": (per_mac * network.space.macs(structures)).tolist(),
        "conditions": {**vars(table.conditions), "versions": dict(table.conditions.versions)},
    }


def _factor(macs: Any, ms: FloatArray) -> float:
    """Least squares of relative errors."""
    shares = macs / ms
    return float(shares.sum() / (shares**2).sum())


def searched(arguments: argparse.Namespace, stored: dict[str, Any]) -> None:
    task = tasks.load(arguments.data, arguments.data_root, arguments.train_images)
    half = len(task.train[0]) // 2
    model = tasks.trained(arguments.search, task, epochs=arguments.epochs)
    network = ps.trace(model, task.test[0][: arguments.batch_size], round_to=4, min_channels=0.25)
    data = ps.Data(train=(task.train[0][:half], task.train[1][:half]))
    limits = [("latency", limit) for limit in arguments.latency_limits]
    limits += [("macs", limit) for limit in arguments.macs_limits]
    for backend in arguments.backends:
        name = f"{arguments.search}-{arguments.batch_size}"
        file = tasks.CACHE / f"latency-{name}-{backend}.json"
        table = ps.LatencyTable.measure(
            network, backend=backend, threads=1, batch_size=arguments.batch_size, file=file, on_progress=progress()
        )
        row = stored["search"].setdefault(
            f"{arguments.search}, batches of {arguments.batch_size}, {backend}", {"cells": {}}
        )
        for seed in range(arguments.seeds):
            for kind, limit in limits:
                key = f"{kind} {limit} {seed}"
                if key in row["cells"]:
                    continue
                same = [row for run, row in stored["search"].items() if run.startswith(f"{arguments.search}, ")]
                macs_only = [other["cells"].get(key) for other in same if kind == "macs"]
                known = next((cell for cell in macs_only if cell), None)
                found = known or winner_of(network, data, task, kind, limit, seed, table, arguments)
                row["cells"][key] = {k: v for k, v in found.items() if k != "ms"}
                tasks.save(stored, arguments.out, indent=None)
                print(backend, key, row["cells"][key], flush=True)
        cells = [cell for cell in row["cells"].values() if "ms" not in cell]
        if cells:
            everything = list(row["cells"].values())
            structures = [network.space.full, *(tuple(cell["structure"]) for cell in everything)]
            times = np.mean([timed(network, structures, table) for _ in range(2)], axis=0)
            row["unpruned ms"] = float(times[0])
            for cell, ms in zip(everything, times[1:], strict=True):
                cell["ms"] = float(ms)
            tasks.save(stored, arguments.out, indent=None)


def winner_of(
    network: Network,
    data: ps.Data,
    task: tasks.Task,
    kind: str,
    limit: str,
    seed: int,
    table: ps.LatencyTable,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    budget = ps.Budget(macs=limit) if kind == "macs" else ps.Budget(latency_ms=limit, table=table)
    result = ps.search(network, data, budget=budget, n_trials=arguments.trials, seed=seed, scoring=L1)
    half = len(task.train[0]) // 2
    unseen = slice(half, half + 4096)
    judge = AccuracyEvaluator(result.best.weights, labelled(task.train[0][unseen], task.train[1][unseen]))
    few = slice(arguments.finetune_images)
    small = result.best.build()
    tuned = ps.finetune(
        small, ps.Data(train=(task.train[0][few], task.train[1][few])), recipe=ps.Recipe(epochs=1, lr=0.02), seed=seed
    )
    return {
        "structure": result.best.structure,
        "macs": result.best.cost.macs,
        "loss": -judge.score([result.best.structure])[0],
        "accuracy": ps.top1(small, *task.test),
        "finetuned": ps.top1(tuned, *task.test),
        "winners timed": 0 if result.latency is None else len(result.latency.attempts),
        "holds": result.latency is None or result.latency.holds,
    }


QUESTIONS: Mapping[str, Any] = {"predict": predicted, "search": searched}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--backends", nargs="*", default=["eager", "onnxruntime"])
    parser.add_argument("--structures", type=int, default=40)
    parser.add_argument("--search", choices=tasks.NETWORKS, default="resnet20", help="network of the searches")
    parser.add_argument("--latency-limits", nargs="*", default=["75%", "55%"], help="of the searches")
    parser.add_argument("--macs-limits", nargs="*", default=["70%", "50%", "35%"], help="of the searches")
    parser.add_argument("--batch-size", type=int, default=8, help="of the searches")
    parser.add_argument("--trials", type=int, default=100, help="evaluations of a search")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4, help="of training the network")
    parser.add_argument(
        "--finetune-images", type=int, default=5_000, help="of the one epoch that winners are finetuned"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "latency.json")
    arguments = parser.parse_args()
    stored: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    stored = {"facts": {}, "predict": {}, "search": {}, **stored}
    stored["facts"] = {
        "torch": str(torch.__version__),
        "prunesearch": ps.__version__,
        "data": arguments.data,
        "train_images": arguments.train_images,
        "trials": arguments.trials,
        "finetune_images": arguments.finetune_images,
    }
    QUESTIONS[arguments.question](arguments, stored)


if __name__ == "__main__":
    main()
