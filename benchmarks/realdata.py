"""Real images for benchmarks: CIFAR-10, CamVid, BCCD, natural images, Fashion-MNIST; and public ResNets.

Most are archives of numpy. An archive `NAME.npz` is read without pickle. Its images are JPEG files laid end to end:
file i of a part is `PART_files[PART_offsets[i]:PART_offsets[i + 1]]`. They are decoded once, and kept as bytes in a
folder outside the repository (`--cache`). What is beside the images (labels, masks, boxes) is read from the archive
each time.

Fashion-MNIST are the four files of Debian's package `dataset-fashion-mnist`, packed or not.

The public ResNet-20 and ResNet-56 for CIFAR-10 (`resnet20_cifar10.th`) are the zoo's `resnet20` and `resnet56`, with
shortcuts without parameters; `ps.load_weights` reads such files.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

import prunesearch as ps
from prunesearch.models.zoo.resnet import ResNet
from prunesearch.training.datasets import read_fashion_mnist

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1]: what the public networks expect."""

TRAIN, HELD_OUT = 45_000, 2_048
"""Training images of a data set that train; that a search sees; and as many that it does not see."""


KEPT = Path(tempfile.gettempdir()) / "prunesearch-benchmarks"
"""Folder for decoded images, outside the repository."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the archives are, and where decoded images are kept."""
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the archives and public weights")
    parser.add_argument("--cache", type=Path, default=KEPT, help="folder for decoded images; default: %(default)s")


@dataclass(frozen=True)
class Archive:
    """One data set in a file.

    Attributes:
        file: Of numpy, `.npz`.
        cache: Folder where decoded images are kept.
    """

    file: Path
    cache: Path

    def array(self, name: str) -> npt.NDArray[Any]:
        """One array, as it was stored.

        Raises:
            KeyError: The archive has no such array; the message lists those that it has.
        """
        with np.load(self.file, allow_pickle=False) as arrays:
            if name not in arrays:
                raise KeyError(f"Expected an array {name} in {self.file.name}, which has {', '.join(arrays)}.")
            return arrays[name]

    def images(self, part: str = "") -> Tensor:
        """(n, 3, height, width) bytes: all images of a part, which have the same size.

        Args:
            part: What stands before `_files`, such as `"train"`; empty if nothing does.
        """
        prefix = f"{part}_" if part else ""
        stat = self.file.stat()
        kept = self.cache / f"{self.file.stem}-{prefix}{stat.st_size}-{stat.st_mtime_ns}.npy"  # anew for another file
        if not kept.exists():
            decoded = decode(self.array(f"{prefix}files"), self.array(f"{prefix}offsets"))
            self.cache.mkdir(parents=True, exist_ok=True)
            draft = kept.with_suffix(f".{os.getpid()}")  # several programs may do this at once
            with draft.open("wb") as file:
                np.save(file, decoded.numpy(), allow_pickle=False)
            draft.replace(kept)
        return torch.from_numpy(np.load(kept, allow_pickle=False))


def decode(files: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Tensor:
    """(n, 3, height, width) bytes, of n JPEG files of one size laid end to end.

    Args:
        files: All of their bytes.
        offsets: (n + 1,) where each begins, and where the last ends.
    """
    opened = (Image.open(io.BytesIO(files[a:b].tobytes())) for a, b in itertools.pairwise(offsets))
    images = np.stack([np.asarray(image.convert("RGB")) for image in opened])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def normalised(images: Tensor, mean: Sequence[float] = MEAN, deviation: Sequence[float] = DEVIATION) -> Tensor:
    """Floats of (n, c, height, width) bytes: by default as the public networks expect them.

    Args:
        images: Stay as they are.
        mean: Of each of the c colours in [0, 1].
        deviation: Likewise.
    """
    scaled = images.float().div_(255)
    return scaled.sub_(torch.tensor(mean)[:, None, None]).div_(torch.tensor(deviation)[:, None, None])


Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Parts:
    """(n, c, h, w) images as bytes and (n,) labels of one data set. No two parts share an image.

    Attributes:
        train: Images that train.
        search: Images by which structures are scored and BatchNorm statistics re-estimated.
        unseen: Images that tell what a search is worth; nothing here is trained, scored or chosen by them. The public
            networks, though, were trained on the originals of all but `test`.
        test: Images that tell the accuracy of a finished network.
        mean: Of each colour in [0, 1], by which images are normalised.
        deviation: Likewise.
    """

    train: Pair
    search: Pair
    unseen: Pair
    test: Pair
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION

    def normalised(self, part: Pair) -> Pair:
        """One of the parts as networks take it."""
        return normalised(part[0], self.mean, self.deviation), part[1]


def whole_cifar10(root: Path, cache: Path) -> tuple[Pair, Pair]:
    """All training and all test images of CIFAR-10."""
    archive = Archive(root / "cifar10.npz", cache)
    train, test = (
        (archive.images(part), torch.from_numpy(archive.array(f"{part}_labels")).long()) for part in ("train", "test")
    )
    return train, test


def cifar10(root: Path, cache: Path, *, train: int = TRAIN, held_out: int = HELD_OUT) -> Parts:
    """CIFAR-10 and its one split.

    Args:
        root: Folder of the archive.
        cache: Folder where decoded images are kept.
        train: How many images train.
        held_out: How many are searched with, and as many unseen.

    Raises:
        ValueError: There are too few images for three parts without a common image.
    """
    whole, test = whole_cifar10(root, cache)
    return Parts(*split(whole, train, held_out), test)


def fashion_mnist(root: Path, cache: Path, *, train: int = TRAIN, held_out: int = HELD_OUT) -> Parts:
    """Fashion-MNIST at its 28 pixels, split and counted as CIFAR-10 is; normalised by the pixels that train.

    Args:
        root: Folder of the four files.
        cache: Not used: nothing has to be decoded.
        train: How many images train.
        held_out: How many are searched with, and as many unseen.

    Raises:
        ValueError: A file is missing or damaged, or has too few images.
    """
    del cache
    whole, test = read_fashion_mnist(root)
    training, searching, unseen = split(whole, train, held_out)
    pixels = training[0].float().div_(255)
    return Parts(training, searching, unseen, test, (float(pixels.mean()),), (float(pixels.std()),))


def split(whole: Pair, train: int, held_out: int) -> tuple[Pair, Pair, Pair]:
    """The one split of training images: of a permutation with seed 0, the first train, the next are searched with.

    Args:
        whole: All training images of a data set.
        train: How many images train.
        held_out: How many come next, to search with, and how many stand last in the permutation, unseen.

    Raises:
        ValueError: There are too few images for three parts without a common image.
    """
    images, labels = whole
    if train + 2 * held_out > len(images):
        raise ValueError(f"Expected at least {train + 2 * held_out} training images, got {len(images)}.")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    first, second, last = order[:train], order[train : train + held_out], order[-held_out:]
    return (images[first], labels[first]), (images[second], labels[second]), (images[last], labels[last])


def camvid(root: Path, cache: Path, part: str) -> Pair:
    """(n, 3, 144, 192) images as bytes and (n, 144, 192) classes of pixels, 11 where there is none."""
    archive = Archive(root / "camvid.npz", cache)
    return archive.images(part), torch.from_numpy(archive.array(f"{part}_masks")).long()


@dataclass(frozen=True)
class Boxes:
    """What is to be found in one image.

    Attributes:
        corners: (m, 4) left, top, right and bottom, as shares of the width and height.
        classes: (m,) what is in each box.
    """

    corners: Tensor
    classes: Tensor


def bccd(root: Path, cache: Path, part: str) -> tuple[Tensor, list[Boxes]]:
    """(n, 3, 240, 320) images as bytes, and the boxes in each."""
    archive = Archive(root / "bccd.npz", cache)
    images = archive.images(part)
    corners, classes, owner = (torch.from_numpy(archive.array(f"{part}_{of}")) for of in ("boxes", "classes", "owner"))
    return images, [Boxes(corners[owner == i], classes[owner == i].long()) for i in range(len(images))]


def natural(root: Path, cache: Path) -> Pair:
    """(500, 3, 256, 256) images as bytes and the ImageNet class of each, of which no two are the same."""
    archive = Archive(root / "natural.npz", cache)
    return archive.images(), torch.from_numpy(archive.array("labels")).long()


def public_resnet(depth: int, root: Path) -> ResNet:
    """The public ResNet-20 or ResNet-56 with its weights, in eval mode."""
    model = ps.make_model(f"resnet{depth}")
    assert isinstance(model, ResNet)
    ps.load_weights(model, root / f"resnet{depth}_cifar10.th")
    return model.eval()
