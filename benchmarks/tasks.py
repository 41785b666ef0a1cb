"""What benchmarks measure on: small real data and networks trained on them, kept in benchmarks/cache.

Fashion-MNIST is Debian's package `dataset-fashion-mnist`, CIFAR-10 the folder that torchvision makes, or the archive of
JPEG images of `realdata.py` where that is there.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import realdata
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.models.zoo.mobilenet import mobilenet_v2
from prunesearch.models.zoo.vgg import VGG
from prunesearch.training.datasets import DEBIAN_FASHION_MNIST, read_cifar, read_fashion_mnist

ROOTS = {"fashion-mnist": DEBIAN_FASHION_MNIST, "cifar10": Path("data")}
CACHE = Path(__file__).parent / "cache"
TRAINED = Path(__file__).parent / "trained"
"""Networks whose cells are committed, as another processor trains others: cells of one table share a network."""


@dataclass(frozen=True)
class Task:
    """Normalised images and labels.

    Attributes:
        name: Of the data set.
        train: (n, c, h, w) images and (n,) labels.
        test: Images that nothing is trained or scored by.
    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def data(self, calibration: int = 256) -> ps.Data:
        """The training images as prunesearch takes them."""
        return ps.Data(train=self.train, test=self.test, calibration=calibration)

    def halved(self) -> Task:
        """The same task with images of half the height and width, each pixel the mean of four: less work."""
        parts = [(F.avg_pool2d(images, 2), labels) for images, labels in (self.train, self.test)]
        return Task(f"{self.name}-halved", *parts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", choices=ROOTS, default="fashion-mnist")
    parser.add_argument("--data-root", type=Path, help="where the data are; default: as the package installs them")
    parser.add_argument("--train-images", type=int, default=20_000, help="how many of the training images to use")


def load(name: str, root: Path | None, train_images: int) -> Task:
    root = root or ROOTS[name]
    if name == "cifar10" and (root / "cifar10.npz").exists():
        name, read = "cifar10-jpeg", realdata.whole_cifar10(root, realdata.KEPT)
    else:
        read = read_fashion_mnist(root) if name == "fashion-mnist" else read_cifar(root / "cifar-10-batches-py")
    (drawn, labels), test = read
    chosen = torch.from_numpy(np.random.default_rng([0, 11]).permutation(len(drawn))[:train_images])
    images = drawn[chosen].float()
    mean = images.mean((0, 2, 3), keepdim=True)
    deviation = images.std((0, 2, 3), keepdim=True)
    return Task(
        name,
        ((images - mean) / deviation, labels[chosen]),
        ((test[0].float() - mean) / deviation, test[1]),
    )


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": partial(ps.make_model, "resnet8"),
    "resnet14": partial(ps.make_model, "resnet14"),
    "resnet20": partial(ps.make_model, "resnet20"),
    "mobilenet_v2_025": partial(mobilenet_v2, width=0.25),
    "vgg11_025": partial(VGG, 11, width=0.25),
}
"""Small enough to train in minutes."""


def trained(model: str, task: Task, *, epochs: int, seed: int = 0) -> nn.Module:
    """The network, trained on the task; from the cache if it was trained before."""
    images, labels = task.train
    torch.manual_seed(seed)
    network = NETWORKS[model](
        num_classes=int(labels.max()) + 1, in_channels=images.shape[1], image_size=images.shape[2]
    )
    file = CACHE / f"{model}-{task.name}-{len(task.train[0])}-{epochs}-{seed}.safetensors"
    if not file.exists():
        network = ps.finetune(network, task.data(), recipe=ps.Recipe(epochs=epochs, lr=0.1), seed=seed)
        CACHE.mkdir(exist_ok=True)
        partial = file.with_suffix(".partial")
        safetensors.torch.save_file(network.state_dict(), partial)
        partial.replace(file)
    ps.load_weights(network, file)
    return network.eval()


def save(value: Any, file: Path, *, indent: int | None = 1) -> None:
    """Write results as JSON, whole or not at all."""
    draft = file.with_suffix(".partial")
    draft.write_text(json.dumps(value, indent=indent) + "\n")
    draft.replace(file)


def facts(arguments: argparse.Namespace) -> dict[str, Any]:
    """What results were measured on and with."""
    return {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "prunesearch": ps.__version__,
        "torch": torch.__version__,
        "data": arguments.data,
        "train_images": arguments.train_images,
    }
