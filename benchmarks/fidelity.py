"""Do scores without labels rank structures as labels do? Random structures of trained networks, at half the MACs.

    python benchmarks/fidelity.py --data-root DATA --on cifar10 --weights resnet20.safetensors   # by adapt.py
    python benchmarks/fidelity.py --data-root DATA --on camvid --weights unet.safetensors        # trained if missing

Each structure is scored before any training by the loss on labels, by fidelity to the unpruned network, by agreement
with it and by the metric of the task, all on the same images; then finetuned for an epoch, and judged by the metric on
test images. Kendall's tau says how alike scores and the metric after finetuning order the structures. Cells go to
`results/fidelity.json` and `results/fidelity_camvid.json`. Run again, the program measures those that are missing.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import realdata
import tasks
import torch
import unet
from torch import nn

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.weights import InheritedWeights
from prunesearch.training.evaluation import metric_on_test

RESULTS = Path(__file__).parent / "results"
METRICS = ("loss", "fidelity", "agreement", "metric")


@dataclass(frozen=True)
class Bench:
    """A trained network, and what scores, trains and judges its structures.

    Attributes:
        of: The network in words.
        model: In eval mode.
        search: Images and labels that score.
        data: Others to train on, and test images.
        recipe: How structures are finetuned.
        measured: The metric in words.
        out: File of the cells.
    """

    of: str
    model: nn.Module
    search: realdata.Pair
    data: ps.Data
    recipe: ps.Recipe
    measured: str
    out: Path


def cifar10(root: Path, cache: Path, weights: Path) -> Bench:
    """The public ResNet-20, adapted; 5,000 images train and 4,000 judge."""
    data = realdata.cifar10(root, cache)
    search, train, test = (
        (realdata.normalised(images[:n]), labels[:n])
        for (images, labels), n in ((data.search, 512), (data.train, 5_000), (data.test, 4_000))
    )
    model = ps.make_model("resnet20")
    ps.load_weights(model, weights)
    recipe = ps.Recipe(epochs=1, lr=0.02, augmentation=ps.Augmentation(flip=True, crop=4))
    name = "a public ResNet-20 adapted to CIFAR-10 as JPEG images"
    return Bench(name, model.eval(), search, ps.Data(train, test), recipe, "accuracy", RESULTS / "fidelity.json")


def camvid(root: Path, cache: Path, weights: Path) -> Bench:
    """A U-Net, trained on the training images; 64 of the validation images score, all test images judge."""
    train, search, test = (unet.street_scenes(root, cache, part) for part in ("train", "val", "test"))
    recipe = ps.Recipe(epochs=1, batch_size=8, lr=0.02)
    data = ps.Data(train, test, task=ps.tasks.segmentation(ignore_index=unet.VOID))
    some = search[0][:64], search[1][:64]
    name = "a small U-Net on CamVid at 144 x 192 pixels"
    return Bench(name, unet.trained(train, weights), some, data, recipe, "mIoU", RESULTS / "fidelity_camvid.json")


BENCHES: Mapping[str, Callable[[Path, Path, Path], Bench]] = {"cifar10": cifar10, "camvid": camvid}


def run(bench: Bench, structures: int) -> None:
    """Measure the structures that are missing."""
    network = ps.trace(bench.model, bench.search[0][:2])
    weights = InheritedWeights(network, make_criterion("l1").rank(network))
    examples = bench.data.examples_of(bench.search)
    evaluators = {metric: AccuracyEvaluator(weights, examples, metric=metric) for metric in METRICS}
    feasible = ps.Budget(macs="50%").check(network.space)
    drawn = feasible.fit(network.space.sample(np.random.default_rng(0), structures)).tolist()
    result = json.loads(bench.out.read_text()) if bench.out.exists() else {"facts": {}, "cells": {}}
    unpruned, tested = metric_on_test(bench.model, bench.data)
    result["facts"] = {
        "network": bench.of,
        "metric": bench.measured,
        "unpruned": unpruned,
        "macs": "50%",
        "images": len(examples),
        "trained": len(bench.data.train[0]),  # type: ignore[index]  # a pair of tensors
        "tested": tested,
        "epochs": bench.recipe.epochs,
        "machine": platform.machine(),
        "prunesearch": ps.__version__,
        "torch": torch.__version__,
    }
    for number, widths in enumerate(drawn):
        structure = network.space.check(widths)
        if str(number) in result["cells"]:
            continue
        start = time.process_time()
        cell: dict[str, Any] = {"structure": structure, "macs": network.space.cost(structure).macs}
        cell["scores"] = {metric: each.score([structure])[0] for metric, each in evaluators.items()}
        small = weights.build(structure)
        ps.recalibrate_bn(small, bench.search[0])
        tuned = ps.finetune(small, bench.data, recipe=bench.recipe, teacher=bench.model, seed=number)
        cell["finetuned"] = metric_on_test(tuned, bench.data)[0]
        cell["seconds"] = round(time.process_time() - start, 2)
        result["cells"][str(number)] = cell
        tasks.save(result, bench.out)
        print(f"{number}: {cell['finetuned']:.4f}, {cell['seconds']:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--on", choices=BENCHES, default="cifar10", help="the network and its data")
    parser.add_argument("--weights", type=Path, required=True, help="file of the trained network")
    parser.add_argument("--structures", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run(BENCHES[arguments.on](arguments.data_root, arguments.cache, arguments.weights), arguments.structures)


if __name__ == "__main__":
    main()
