"""Finetune the public ResNet-20 and ResNet-56 on the JPEG images of CIFAR-10 that benchmarks use (`realdata.py`).

    python benchmarks/adapt.py --data-root D --out F [--depths 20 56]

The public weights were trained on the original images, and lose accuracy on compressed ones. Three epochs of SGD (rate
0.02 as a cosine, weight decay 1e-4, flip and crop by 4 pixels) bring most of it back. Writes `resnet20.safetensors` and
`resnet20.json` with the accuracy on all test images before and after. The state is kept after every epoch in
`resnet20.training`; run again to go on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import realdata
import tasks
import torch
from torch import nn

import prunesearch as ps
from prunesearch.training.finetune import train
from prunesearch.training.reports import EpochReport, Session

RECIPE = ps.Recipe(epochs=3, lr=0.02, weight_decay=1e-4, warmup=0.0, augmentation=ps.Augmentation(flip=True, crop=4))
BATCH = 500


def accuracy(model: nn.Module, part: realdata.Pair) -> float:
    """Share of images, given as bytes, that are classified correctly."""
    return ps.top1(model, realdata.normalised(part[0]), part[1], batch_size=BATCH)


def adapted(
    model: nn.Module, cifar: realdata.Cifar10, checkpoint: Path, recipe: ps.Recipe = RECIPE
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a copy of the model; the copy, and what is to be said of it."""
    before = accuracy(model, cifar.test)
    data = ps.Data(train=(realdata.normalised(cifar.train[0]), cifar.train[1]))
    training = train(model, data, recipe=recipe, session=Session(checkpoint, on_epoch=told))
    facts = {
        "recipe": repr(recipe),
        "train images": len(cifar.train[0]),
        "test images": len(cifar.test[0]),
        "accuracy before": before,
        "accuracy": accuracy(training.last, cifar.test),
        "accuracy on unseen training images": accuracy(training.last, cifar.unseen),
        "losses": [report.loss for report in training.reports],
        "seconds": training.reports[-1].seconds,
        "versions": {"prunesearch": ps.__version__, "torch": torch.__version__},
    }
    return training.last, facts


def told(report: EpochReport) -> None:
    """Print where the training stands."""
    print(f"epoch {report.epoch} of {report.epochs}: loss {report.loss:.4f}, {report.seconds:.0f} s", flush=True)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--depths", nargs="*", type=int, default=[20], choices=(20, 56))
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapted weights")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cifar = realdata.cifar10(arguments.data_root, arguments.cache)
    for depth in arguments.depths:
        file = arguments.out / f"resnet{depth}.safetensors"
        if file.with_suffix(".json").exists():
            continue
        public = realdata.public_resnet(depth, arguments.data_root)
        model, facts = adapted(public, cifar, file.with_suffix(".training"))
        ps.save(model, file)
        tasks.save({"network": f"resnet{depth}", **facts}, file.with_suffix(".json"))
        print(f"resnet{depth}: {facts['accuracy before']:.2%}, then {facts['accuracy']:.2%}", flush=True)


if __name__ == "__main__":
    main()
