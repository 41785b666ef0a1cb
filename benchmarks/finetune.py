"""Accuracy per minute: finetuning a pruned network with `ps.finetune` against the loop that one would write oneself.

    python benchmarks/finetune.py [--seeds 3] [--keep 30%]

The plain loop: SGD with a constant rate of 0.01, 0.9 momentum, a `DataLoader`. Ours: the recipe of docs/finetune.md
for 1, 2, 4 and 8 epochs; then for 4 epochs with one change each, and the plain loop with torchvision's augmentation,
image by image. The network is pruned to its uniform structure by L1 norms. Seconds are of one CPU core, evaluation left
out. Every seed is written when it is there; run again to go on.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tasks
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2
from training_methods import MODEL, Bench

import prunesearch as ps
from prunesearch.evaluators.channels import make_criterion
from prunesearch.search.uniform import uniform_structure
from prunesearch.tasks.classify import labelled

LENGTHS = (1, 2, 4, 8)
RECIPE = ps.Recipe(lr=0.05, warmup=0.1)
CHANGES: Mapping[str, ps.Recipe] = {
    "label smoothing 0.1": replace(RECIPE, label_smoothing=0.1),
    "moving average 0.99": replace(RECIPE, ema=0.99),
    "flip and crop": replace(RECIPE, augmentation=ps.Augmentation(flip=True, crop=1)),
    "adamw, 0.002": replace(RECIPE, optimizer="adamw", lr=0.002),
    "bf16": replace(RECIPE, precision="bf16"),
    "constant rate 0.01": replace(RECIPE, schedule="constant", warmup=0.0, lr=0.01),
    "from scratch": replace(RECIPE, from_scratch=True, lr=0.1),
}


PLAIN_AUGMENTED = "plain SGD loop, torchvision's flip and crop"


def pruned(bench: Bench, keep: str) -> tuple[ps.Network, nn.Module]:
    """The pretrained network, and its uniform structure with statistics re-estimated."""
    network = bench.pretrained()
    images, labels = bench.task.data(calibration=1024).calibration_set()
    ranking = make_criterion("l1", seed=0).rank(network, labelled(images, labels))
    model = ps.slim(network, uniform_structure(ps.Budget(macs=keep).check(network.space)), ranking).eval()
    ps.recalibrate_bn(model, images)
    return network, model


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Images with random flips and crops, one by one, as torchvision's data sets are used."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images, self._labels = images, labels
        size = images.shape[2:]
        self._change = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(size, padding=1, padding_mode="reflect")])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._change(self._images[index]), self._labels[index]


def plain(
    model: nn.Module, task: tasks.Task, pictures: Dataset[Any], epochs: int, seed: int
) -> Iterator[dict[str, float]]:
    """Accuracy and seconds after each epoch of the loop that everybody writes; changes the model."""
    torch.manual_seed(seed)
    loader = DataLoader(pictures, batch_size=128, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    seconds = 0.0
    for _ in range(epochs):
        start = time.process_time()
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        seconds += time.process_time() - start
        yield {"seconds": seconds, "accuracy": ps.top1(model.eval(), *task.test)}


def ours(bench: Bench, keep: str, recipe: ps.Recipe, *, taught: bool) -> dict[str, float]:
    network, model = pruned(bench, keep)
    start = time.process_time()
    tuned = ps.finetune(model, bench.data, recipe=recipe, teacher=network.model if taught else None, seed=bench.seed)
    return {"seconds": time.process_time() - start, "accuracy": ps.top1(tuned, *bench.task.test)}


def cells(bench: Bench, keep: str) -> dict[str, Any]:
    """Everything of one seed, the two contenders in turns."""
    network, model = pruned(bench, keep)
    found: dict[str, Any] = {
        "unpruned": ps.top1(network.model, *bench.task.test),
        "pruned": ps.top1(model, *bench.task.test),
        "macs": ps.count(model, bench.examples).macs / ps.count(network.model, bench.examples).macs,
    }
    by_hand = partial(plain, task=bench.task, seed=bench.seed)
    epochs = by_hand(copy.deepcopy(model), pictures=TensorDataset(*bench.task.train), epochs=max(LENGTHS))
    done: list[dict[str, float]] = []
    for length in LENGTHS:
        while len(done) < length:
            done.append(next(epochs))
        found[f"plain, {length}"] = done[-1]
        found[f"ours, {length}"] = ours(bench, keep, replace(RECIPE, epochs=length), taught=False)
        found[f"ours with teacher, {length}"] = ours(bench, keep, replace(RECIPE, epochs=length), taught=True)
    *_, found[PLAIN_AUGMENTED] = by_hand(copy.deepcopy(model), pictures=Pictures(*bench.task.train), epochs=4)
    for name, recipe in CHANGES.items():
        found[name] = ours(bench, keep, replace(recipe, epochs=4), taught=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.set_defaults(train_images=4_000)
    parser.add_argument("--keep", default="30%", help="share of the MACs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finetune.json")
    arguments = parser.parse_args()
    task = tasks.load(arguments.data, arguments.data_root, arguments.train_images).halved()
    stored: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"seeds": []}
    stored["facts"] = {
        **tasks.facts(arguments),
        "numpy": np.__version__,
        "test_images": len(task.test[0]),
        "image": list(task.train[0].shape[1:]),
        "model": MODEL,
        "keep": arguments.keep,
        "lengths": LENGTHS,
        "changes": [*CHANGES, PLAIN_AUGMENTED],
    }
    for seed in range(len(stored["seeds"]), arguments.seeds):
        stored["seeds"].append(cells(Bench(task, arguments.keep, seed), arguments.keep))
        tasks.save(stored, arguments.out)
        print(seed, json.dumps(stored["seeds"][-1]), flush=True)


if __name__ == "__main__":
    main()
