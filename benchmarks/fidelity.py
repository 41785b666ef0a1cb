"""Do scores without labels rank structures as labels do? Random structures of trained networks, at half the MACs.

    python benchmarks/fidelity.py --data-root DATA --on cifar10 --weights resnet20.safetensors   # by weights.py
    python benchmarks/fidelity.py --data-root DATA --on camvid --weights unet.safetensors        # trained if missing
    pip install 'prunesearch[ultralytics]'
    python benchmarks/fidelity.py --data-root DATA --on bccd --weights yolo.pt                   # trained if missing

Each structure is scored before any training by the loss on labels, by fidelity to the unpruned network, by agreement
with it and by the metric of the task, all on the same images; then finetuned shortly, and judged by the metric on
test images. Kendall's tau says how alike scores and the metric after finetuning order the structures. Cells go to
`results/fidelity.json`, `results/fidelity_camvid.json` and `results/fidelity_bccd.json`. Run again, the program
measures those that are missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import places
import realdata
import tasks
import torch
import unet
from torch import nn

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.examples import Examples
from prunesearch.training.evaluation import metric_on_test

RESULTS = Path(__file__).parent / "results"
METRICS = ("loss", "fidelity", "agreement", "metric")
EPOCHS = 100
"""Of the detector's first training."""


@dataclass(frozen=True)
class Bench:
    """A trained network, and what scores, trains and judges its structures.

    Attributes:
        of: The network in words.
        model: In eval mode.
        search: Images and labels that score.
        trained: How many images train.
        data: Others to train on, and test images.
        recipe: How structures are finetuned.
        measured: The metric in words.
        out: File of the cells.
    """

    of: str
    model: nn.Module
    search: Examples
    trained: int
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
    found, out = ps.Data(train, test), RESULTS / "fidelity.json"
    return Bench(name, model.eval(), found.examples_of(search), len(train[0]), found, recipe, "accuracy", out)


def camvid(root: Path, cache: Path, weights: Path) -> Bench:
    """A U-Net, trained on the training images; 64 of the validation images score, all test images judge."""
    train, search, test = (unet.street_scenes(root, cache, part) for part in ("train", "val", "test"))
    recipe = ps.Recipe(epochs=1, batch_size=8, lr=0.02)
    data = ps.Data(train, test, task=ps.tasks.segmentation(ignore_index=unet.VOID))
    some = search[0][:64], search[1][:64]
    name, out = "a small U-Net on CamVid at 144 x 192 pixels", RESULTS / "fidelity_camvid.json"
    model = unet.trained(train, weights)
    return Bench(name, model, data.examples_of(some), len(train[0]), data, recipe, "mIoU", out)


def bccd(root: Path, cache: Path, weights: Path) -> Bench:
    """A YOLOv8n, trained by ultralytics; 64 of the training images score, all test images judge."""
    yolo, images = importlib.import_module("ultralytics").YOLO, places.written_bccd(root, cache)
    if not weights.exists():
        places.train(yolo("yolov8n.yaml"), images, epochs=EPOCHS, folder=weights.with_suffix(""))
        shutil.copyfile(weights.with_suffix("") / "train" / "weights" / "best.pt", weights)
    task = ps.tasks.ultralytics(yolo(str(weights)), images, imgsz=places.SIZE)
    name, out = f"a YOLOv8n on blood cells at {places.SIZE} pixels", RESULTS / "fidelity_bccd.json"
    recipe = ps.Recipe(epochs=5, batch_size=16, optimizer="adamw", lr=1e-3)
    search = task.data.examples_of(task.data.calibration_set())
    return Bench(name, task.model, search, len(task.data.train), task.data, recipe, "mAP50-95", out)


BENCHES: Mapping[str, Callable[[Path, Path, Path], Bench]] = {"cifar10": cifar10, "camvid": camvid, "bccd": bccd}


def run(bench: Bench, structures: int) -> None:
    """Measure the structures that are missing.

    Raises:
        SystemExit: Those that are there are of another network.
    """
    examples = bench.search
    network = ps.trace(bench.model, examples.take(slice(2)).inputs)
    weights = InheritedWeights(network, make_criterion("l1").rank(network))
    evaluators = {metric: AccuracyEvaluator(weights, examples, metric=metric) for metric in METRICS}
    feasible = ps.Budget(macs="50%").check(network.space)
    drawn = feasible.fit(network.space.sample(np.random.default_rng(0), structures)).tolist()
    result = json.loads(bench.out.read_text()) if bench.out.exists() else {"facts": {}, "cells": {}}
    if result["cells"] and result["facts"].get("fingerprint", network.fingerprint()) != network.fingerprint():
        raise SystemExit(f"{bench.out.name} was measured with other weights. Move it away, or give those weights.")
    unpruned, tested = metric_on_test(bench.model, bench.data)
    result["facts"] = {
        "network": bench.of,
        "fingerprint": network.fingerprint(),
        "metric": bench.measured,
        "unpruned": unpruned,
        "macs": "50%",
        "images": len(examples),
        "trained": bench.trained,
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
        ps.recalibrate_bn(small, examples.inputs)
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
