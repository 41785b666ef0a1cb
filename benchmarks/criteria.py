"""Which channels, and with what weights: accuracy of the same structures under every criterion and weight source.

    python benchmarks/criteria.py [--networks resnet20] [--keep 0.5 0.3] [--data cifar10 --data-root D]

Structures are the uniform one and random ones at a share of the MACs. For each criterion and weight source: test
accuracy with BatchNorm statistics re-estimated, before any finetuning and after an equal short one, and the seconds
that ranking and weights take. Every cell is written when it is there; run again to go on.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import tasks
import torch

import prunesearch as ps
from prunesearch.evaluators import WEIGHT_SOURCES, make_weights
from prunesearch.evaluators.channels import CRITERIA, make_criterion
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import Structure


def structures(network: ps.Network, keep: float, n: int) -> list[Structure]:
    """The uniform structure and random ones."""
    feasible = ps.Budget(macs=f"{keep:.0%}").check(network.space)
    drawn = feasible.fit(network.space.sample(np.random.default_rng([0, 31]), n - 1))
    return [uniform_structure(feasible), *(network.space.check(row.tolist()) for row in drawn)]


def measure(
    network: ps.Network, task: tasks.Task, criterion: str, source: str, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    images, labels = task.data(calibration=1024).calibration_set()
    start = time.perf_counter()
    ranking = make_criterion(criterion, seed=seed).rank(network, images, labels)
    weights = make_weights(source, network, ranking, images)
    seconds = time.perf_counter() - start
    cells: dict[str, Any] = {}
    for keep in arguments.keep:
        before, after = [], []
        for structure in structures(network, keep, arguments.structures):
            model = weights.build(structure).eval()
            ps.recalibrate_bn(model, images)
            before.append(ps.top1(model, *task.test))
            if arguments.finetune_images:
                n = arguments.finetune_images
                train = (task.train[0][:n], task.train[1][:n])
                recipe = ps.Recipe(epochs=arguments.finetune_epochs, lr=0.02)
                after.append(ps.top1(ps.finetune(model, ps.Data(train=train), recipe=recipe), *task.test))
        cells[f"{keep:.0%}"] = {"before": before, "after": after}
    return {"seconds": seconds, "keep": cells}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.add_argument("--networks", nargs="*", default=["resnet20"], choices=tasks.NETWORKS)
    parser.add_argument("--keep", nargs="*", type=float, default=[0.5, 0.3])
    parser.add_argument("--structures", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1, help="of the criteria; networks are trained once")
    parser.add_argument("--epochs", type=int, default=4, help="of training the unpruned networks")
    parser.add_argument("--finetune-images", type=int, default=0, help="0: do not finetune")
    parser.add_argument("--finetune-epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "criteria.json")
    arguments = parser.parse_args()
    task = tasks.load(arguments.data, arguments.data_root, arguments.train_images)
    stored: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": {}}
    stored["facts"] = {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "prunesearch": ps.__version__,
        "torch": torch.__version__,
        "data": arguments.data,
        "train_images": arguments.train_images,
        "epochs": arguments.epochs,
        "finetune_images": arguments.finetune_images,
        "finetune_epochs": arguments.finetune_epochs,
    }
    for name in arguments.networks:
        model = tasks.trained(name, task, epochs=arguments.epochs)
        network = ps.trace(model, task.test[0][:2])
        rows = stored["rows"].setdefault(name, {"unpruned": ps.top1(model, *task.test), "cells": {}})["cells"]
        for criterion in CRITERIA:
            for source in WEIGHT_SOURCES:
                done = rows.setdefault(f"{criterion}, {source}", [])
                for seed in range(len(done), arguments.seeds):
                    done.append(measure(network, task, criterion, source, seed, arguments))
                    partial = arguments.out.with_suffix(".partial")
                    partial.write_text(json.dumps(stored, indent=1) + "\n")
                    partial.replace(arguments.out)
                    print(name, criterion, source, json.dumps(done[-1]), flush=True)


if __name__ == "__main__":
    main()
