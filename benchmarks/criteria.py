"""Which channels, and with what weights: accuracy of the same structures under every criterion and weight source.

    python benchmarks/criteria.py [--networks resnet8 vgg11_025] [--seeds 3] [--data cifar10 --data-root D]

Structures are the uniform one and random ones at a share of the MACs; a seed trains a network of its own and decides
what criteria draw. For each criterion and weight source: test accuracy with BatchNorm statistics re-estimated, before
any finetuning, and after an equal short one of some; and the seconds that ranking and weights take. A criterion's cells
are written when they are there; run again to go on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tasks

import prunesearch as ps
from prunesearch.evaluators import make_weights
from prunesearch.evaluators.channels import CRITERIA, make_criterion
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled


def structures(network: ps.Network, keep: float, n: int) -> list[Structure]:
    """The uniform structure and random ones."""
    feasible = ps.Budget(macs=f"{keep:.0%}").check(network.space)
    drawn = feasible.fit(network.space.sample(np.random.default_rng([0, 31]), n - 1))
    return [uniform_structure(feasible), *(network.space.check(row.tolist()) for row in drawn)]


def measured(
    network: ps.Network, task: tasks.Task, criterion: str, seed: int, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One cell for each weight source, share of the MACs and structure."""
    images, labels = task.data(calibration=1024).calibration_set()
    start = time.perf_counter()
    ranking = make_criterion(criterion, seed=seed).rank(network, labelled(images, labels))
    ranked = time.perf_counter() - start
    train = task.train[0][: arguments.finetune_images], task.train[1][: arguments.finetune_images]
    test = task.test[0][: arguments.test_images], task.test[1][: arguments.test_images]
    recipe = ps.Recipe(epochs=arguments.finetune_epochs, lr=arguments.finetune_lr)
    for source in arguments.weights:
        start = time.perf_counter()
        weights = make_weights(source, network, ranking, images)
        gathered = time.perf_counter() - start
        for keep in arguments.keep:
            for number, structure in enumerate(structures(network, keep, arguments.structures)):
                start = time.perf_counter()
                model = weights.build(structure).eval()
                built = time.perf_counter() - start
                ps.recalibrate_bn(model, images)
                cell = {"criterion": criterion, "weights": source, "seed": seed, "keep": f"{keep:.0%}"}
                seconds = {"rank": ranked, "gather": gathered, "build": built}
                before = ps.top1(model, *test)
                after = None
                if number < arguments.finetune_structures:
                    tuned = ps.finetune(model, ps.Data(train=train), recipe=recipe)
                    ps.recalibrate_bn(tuned, images)  # as before: so few steps leave the running statistics behind
                    after = ps.top1(tuned, *test)
                yield {**cell, "structure": structure, "before": before, "after": after, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.add_argument("--networks", nargs="*", default=["resnet8", "vgg11_025"], choices=tasks.NETWORKS)
    parser.add_argument("--criteria", nargs="*", default=list(CRITERIA), choices=CRITERIA)
    parser.add_argument("--weights", nargs="*", default=["inherited", "compensated", "reconstructed"])
    parser.add_argument("--keep", nargs="*", type=float, default=[0.5, 0.3])
    parser.add_argument("--structures", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="of training the unpruned networks")
    parser.add_argument("--test-images", type=int, default=4000)
    parser.add_argument("--finetune-structures", type=int, default=1, help="of each share, the uniform one first")
    parser.add_argument("--finetune-images", type=int, default=4000)
    parser.add_argument("--finetune-epochs", type=int, default=1)
    parser.add_argument("--finetune-lr", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "criteria.json")
    arguments = parser.parse_args()
    task = tasks.load(arguments.data, arguments.data_root, arguments.train_images)
    stored: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": {}}
    stored["facts"] = {
        **tasks.facts(arguments),
        **{
            name: getattr(arguments, name)
            for name in ("epochs", "test_images", "finetune_images", "finetune_epochs", "finetune_lr")
        },
    }
    for seed in range(arguments.seeds):
        for name in arguments.networks:
            model = tasks.trained(name, task, epochs=arguments.epochs, seed=seed)
            network = ps.trace(model, task.test[0][:2])
            row = stored["rows"].setdefault(name, {"unpruned": {}, "cells": []})
            if str(seed) not in row["unpruned"]:
                row["unpruned"][str(seed)] = ps.top1(model, *(part[: arguments.test_images] for part in task.test))
            for criterion in arguments.criteria:
                if not any(cell["criterion"] == criterion and cell["seed"] == seed for cell in row["cells"]):
                    row["cells"] += measured(network, task, criterion, seed, arguments)
                    tasks.save(stored, arguments.out)
                    print(name, seed, criterion, len(row["cells"]), flush=True)


if __name__ == "__main__":
    main()
