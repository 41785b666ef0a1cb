"""Do scores without labels rank structures as labels do? Random structures of a ResNet-20 on CIFAR-10, half the MACs.

Each is scored before any training by the loss on labels, by fidelity to the unpruned network, by agreement with it and
by accuracy, all on the same images; then finetuned for an epoch of a part of the training images, and judged on test
images. Kendall's tau says how alike scores and the accuracy after finetuning order the structures. Run again, the
program measures the structures that are missing.

    python benchmarks/fidelity.py --data-root DATA --weights resnet20.safetensors   # weights: see adapt.py
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import realdata
import torch

import prunesearch as ps
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.files import write_text
from prunesearch.models.weights import InheritedWeights
from prunesearch.tasks.classify import labelled

RESULTS = Path(__file__).parent / "results" / "fidelity.json"
METRICS = ("loss", "fidelity", "agreement", "accuracy")
IMAGES, TRAINED, TESTED = 512, 5_000, 4_000
RECIPE = ps.Recipe(epochs=1, lr=0.02, augmentation=ps.Augmentation(flip=True, crop=4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--weights", type=Path, required=True, help="of the zoo's ResNet-20, for these images")
    parser.add_argument("--structures", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = realdata.cifar10(arguments.data_root, arguments.cache)
    search, train, test = (
        (realdata.normalised(images[:n]), labels[:n])
        for (images, labels), n in ((data.search, IMAGES), (data.train, TRAINED), (data.test, TESTED))
    )
    model = ps.make_model("resnet20")
    ps.load_weights(model, arguments.weights)
    network = ps.trace(model.eval(), search[0][:2])
    weights = InheritedWeights(network, make_criterion("l1").rank(network))
    evaluators = {metric: AccuracyEvaluator(weights, labelled(*search), metric=metric) for metric in METRICS}
    feasible = ps.Budget(macs="50%").check(network.space)
    drawn = feasible.fit(network.space.sample(np.random.default_rng(0), arguments.structures)).tolist()
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"facts": {}, "cells": {}}
    result["facts"] = {
        "network": "a public ResNet-20 adapted to CIFAR-10 as JPEG images",
        "unpruned": ps.top1(model, *test),
        "macs": "50%",
        "images": IMAGES,
        "trained": TRAINED,
        "tested": TESTED,
        "epochs": RECIPE.epochs,
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
        ps.recalibrate_bn(small, search[0])
        tuned = ps.finetune(small, ps.Data(train=train), recipe=RECIPE, teacher=model, seed=number)
        cell["finetuned"] = ps.top1(tuned, *test)
        cell["seconds"] = round(time.process_time() - start, 2)
        result["cells"][str(number)] = cell
        write_text(RESULTS, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
