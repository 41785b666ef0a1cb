"""Real images for benchmarks, from archives of numpy: CIFAR-10, CamVid, BCCD, natural images; and public ResNets.

An archive `NAME.npz` is read without pickle. Its images are JPEG files laid end to end: file i of a part is
`PART_files[PART_offsets[i]:PART_offsets[i + 1]]`. They are decoded once, and kept as bytes in a folder outside the
repository (`--cache`). What is beside the images (labels, masks, boxes) is read from the archive each time.

The public ResNet-20 and ResNet-56 for CIFAR-10 (`resnet20_cifar10.th`) are the zoo's `resnet20` and `resnet56`, with
shortcuts without parameters; `ps.load_weights` reads such files.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import tempfile
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

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1]: what the public networks expect."""

TRAIN, HELD_OUT = 45_000, 2_048
"""Images of CIFAR-10 that train; that a search sees; and as many that it does not see."""


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


def normalised(images: Tensor) -> Tensor:
    """Floats as the public networks expect them, of (n, 3, height, width) bytes."""
    scaled = images.float().div_(255)
    return scaled.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(DEVIATION)[:, None, None])


Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Cifar10:
    """(n, 3, 32, 32) images as bytes and (n,) labels. No two parts share an image.

    Attributes:
        train: Images that train.
        search: Images by which structures are scored and BatchNorm statistics re-estimated.
        unseen: Images that tell what a search is worth; nothing here is trained, scored or chosen by them. The public
            networks, though, were trained on the originals of all but `test`.
        test: Images that tell the accuracy of a finished network.
    """

    train: Pair
    search: Pair
    unseen: Pair
    test: Pair


def whole_cifar10(root: Path, cache: Path) -> tuple[Pair, Pair]:
    """All training and all test images of CIFAR-10."""
    archive = Archive(root / "cifar10.npz", cache)
    train, test = (
        (archive.images(part), torch.from_numpy(archive.array(f"{part}_labels")).long()) for part in ("train", "test")
    )
    return train, test


def cifar10(root: Path, cache: Path, *, train: int = TRAIN, held_out: int = HELD_OUT) -> Cifar10:
    """CIFAR-10 and its one split: of a permutation with seed 0, the first images train, the next are searched with.

    Args:
        root: Folder of the archive.
        cache: Folder where decoded images are kept.
        train: How many images train.
        held_out: How many come next, to search with, and how many stand last in the permutation, unseen.

    Raises:
        ValueError: There are too few images for three parts without a common image.
    """
    (images, labels), test = whole_cifar10(root, cache)
    if train + 2 * held_out > len(images):
        raise ValueError(f"Expected at least {train + 2 * held_out} training images in cifar10.npz, got {len(images)}.")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    chosen = (order[:train], order[train : train + held_out], order[-held_out:])
    training, searching, unseen = ((images[part], labels[part]) for part in chosen)
    return Cifar10(training, searching, unseen, test)


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
