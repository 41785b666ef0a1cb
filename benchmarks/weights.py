"""Make the weights of the networks that recovery.py prunes (`networks.py`): of public ones, or from random ones.

    python benchmarks/weights.py --data-root D [--networks resnet20 vgg]

The public ResNet-20 and ResNet-56 are finetuned on the JPEG images of CIFAR-10 that benchmarks use (`realdata.py`):
their weights were trained on the original images, and lose accuracy on compressed ones. The others are trained from
scratch. Writes `resnet20.safetensors` and `resnet20.json` with the accuracy on all test images before and after, where
they are not there yet. The same recipe ends in slightly other weights on another kind of processor. So the weights that
cells were measured on are committed with them. The ResNet-20 is there twice: `resnet20.safetensors` (fingerprint
f425ce726876ed55) is that of `racing` and `recovery_resnet20_*`, of a processor with AVX-512, where the recipe ended in
the same weights a second time. `resnet20-avx2.safetensors` (aded24b42bae27b8) is that of `halving`, `policies_cifar10`
and `methods_resnet20`; their scripts take it with `--weights`. The state is kept after every epoch in
`resnet20.training`; run again to go on.

The data of `resnet20-fashion` are the four files of Fashion-MNIST: give their folder as `--data-root`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import realdata
import tasks
import torch
from cells import check_recipe
from networks import NETWORKS
from torch import nn

import prunesearch as ps
from prunesearch.training.finetune import train
from prunesearch.training.reports import EpochReport, Session

BATCH = 500


def trained(
    model: nn.Module, parts: realdata.Parts, checkpoint: Path, recipe: ps.Recipe
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a copy of the model; the copy, and what is to be said of it."""

    def accuracy(network: nn.Module, part: realdata.Pair) -> float:
        return ps.top1(network, *parts.normalised(part), batch_size=BATCH)

    before = accuracy(model, parts.test)
    data = ps.Data(train=parts.normalised(parts.train))
    training = train(model, data, recipe=recipe, session=Session(checkpoint, on_epoch=told))
    facts = {
        "recipe": repr(recipe),
        "train images": len(parts.train[0]),
        "test images": len(parts.test[0]),
        "accuracy before": before,
        "accuracy": accuracy(training.last, parts.test),
        "accuracy on unseen training images": accuracy(training.last, parts.unseen),
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
    parser.add_argument("--networks", nargs="*", default=["resnet20"], choices=NETWORKS)
    parser.add_argument("--out", type=Path, default=tasks.TRAINED, help="folder of the weights; default: trained")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in arguments.networks:
        subject, file = NETWORKS[name], arguments.out / f"{name}.safetensors"
        if file.with_suffix(".json").exists():
            check_recipe(file, subject.recipe)
            continue
        parts = subject.data(arguments.data_root, arguments.cache)
        torch.manual_seed(0)  # the state belongs to the network that came in, also where its weights are drawn anew
        checkpoint = file.with_suffix(".training")
        model, facts = trained(subject.start(arguments.data_root), parts, checkpoint, subject.recipe)
        ps.save(model, file)
        tasks.save({"network": name, **facts}, file.with_suffix(".json"))
        print(f"{name}: {facts['accuracy before']:.2%}, then {facts['accuracy']:.2%}", flush=True)


if __name__ == "__main__":
    main()
