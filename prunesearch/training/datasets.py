"""Data sets that lie on a disk, by name: Fashion-MNIST, CIFAR-10 and -100, and folders of images.

Each has a training set, from which a search takes its calibration images, and a test set, which nothing is chosen by.
Nothing in these files can run code: CIFAR's are pickles, of which only arrays, lists and text are read.
"""

from __future__ import annotations

import gzip
import pickle
import sys
import zlib
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from prunesearch.ranges import whole_number
from prunesearch.training.data import Data

Images: TypeAlias = "tuple[Tensor, Tensor]"
"""(n, c, h, w) bytes and (n,) labels."""

DEFAULT_ROOT = Path("data")
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts it."""
_HARMLESS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESIZED = 256 / 224  # the shorter side, against the square cut from the middle


def fashion_mnist(*, data_root: Path | None = None, download: bool = False, calibration: int = 1024) -> Data:
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 60,000 and 10,000 images, (1, 28, 28), of 10 classes.

    Normalised by the mean and the standard deviation of all pixels of the training set.

    Args:
        data_root: Folder with the four IDX files, packed or not, or with torchvision's `FashionMNIST/raw` in it. By
            default that of Debian's package, and else `data`.
        download: Let torchvision fetch what is not there.
        calibration: How many training images score structures.

    Raises:
        ValueError: They are not there, or damaged.
    """
    roots = [DEBIAN_FASHION_MNIST, DEFAULT_ROOT] if data_root is None else [data_root]
    folders = [folder for root in roots for folder in (root, root / "FashionMNIST" / "raw")]
    found = next((folder for folder in folders if _idx_file(folder, "train-images-idx3-ubyte")), None)
    if found is None and download:
        found = _download(roots[-1], "fashion-mnist", _download_fashion_mnist)
    if found is None:
        raise ValueError(
            f"There is no fashion-mnist in {' or '.join(map(str, roots))}. Install Debian's dataset-fashion-mnist, "
            "name the folder that has it with --data-root, or fetch it with --download."
        )
    return _in_memory(*read_fashion_mnist(found), calibration)


def cifar10(*, data_root: Path | None = None, download: bool = False, calibration: int = 1024) -> Data:
    """CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 images, (3, 32, 32), of 10 classes.

    Normalised by the mean and the standard deviation of each colour in the training set.

    Args:
        data_root: Folder with `cifar-10-batches-py` in it, as torchvision leaves it; by default `data`.
        download: Let torchvision fetch what is not there.
        calibration: How many training images score structures.

    Raises:
        ValueError: They are not there, or damaged, or hold more than arrays.
    """
    return _cifar("cifar10", data_root, download, calibration)


def cifar100(*, data_root: Path | None = None, download: bool = False, calibration: int = 1024) -> Data:
    """CIFAR-100, as `cifar10` but of 100 classes ("fine" labels), from `cifar-100-python`."""
    return _cifar("cifar100", data_root, download, calibration)


def image_folder(path: str | Path, *, image_size: int = 224, calibration: int = 1024, data_workers: int = 0) -> Data:
    """Images in folders named after their classes, read when they are needed.

    `PATH/train/CLASS/*.jpg` are trained with. The test set is `PATH/test`, and `PATH/val` is then what a training is
    validated with; where there is no `test`, `val` is the test set, as is the custom with ImageNet. The shorter side is
    resized to 256/224 of `image_size`, the square in the middle is cut out, and colours are normalised as torchvision's
    networks want them. Training images are read in the same way; `Recipe(augmentation=...)` changes them at random.

    Args:
        path: The folder.
        image_size: Height and width.
        calibration: How many training images score structures; they are held in memory.
        data_workers: Processes that read training images; 0 reads them in this one.

    Raises:
        ValueError: A folder is missing or empty, or its classes are not those of `train`.
    """
    folder = Path(path)
    whole_number("image_size", image_size, at_least=1)
    whole_number("data_workers", data_workers, at_least=0)
    parts = {name: folder / name for name in ("train", "val", "test") if (folder / name).is_dir()}
    if "train" not in parts or len(parts) == 1:
        there = ", ".join(sorted(entry.name for entry in folder.iterdir())[:6]) if folder.is_dir() else "no such folder"
        raise ValueError(
            f"Expected {folder} to have the folders train, and val or test, with a folder per class in each; got "
            f"{there or 'an empty folder'}."
        )
    sets = {name: _folder_of_classes(part, image_size) for name, part in parts.items()}
    for name, part in sets.items():
        if part.classes != sets["train"].classes:
            odd = sorted(set(part.classes) ^ set(sets["train"].classes))
            raise ValueError(f"Expected the same classes in {parts['train']} and {parts[name]}; {odd[:4]} differ.")
    train = sets["train"]
    return Data(
        train=DataLoader(train, num_workers=data_workers) if data_workers else train,
        test=sets.get("test", sets.get("val")),
        validation=sets.get("val") if "test" in sets else None,
        calibration=calibration,
    )


def read_fashion_mnist(folder: Path) -> tuple[Images, Images]:
    """Training and test images and their labels, from four IDX files, packed or not.

    Raises:
        ValueError: One is missing or damaged.
    """

    def read(part: str) -> Images:
        images, labels = _idx(folder, f"{part}-images-idx3-ubyte", 3), _idx(folder, f"{part}-labels-idx1-ubyte", 1)
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()

    return read("train"), read("t10k")


def read_cifar(folder: Path) -> tuple[Images, Images]:
    """Training and test images and their labels, from `cifar-10-batches-py` or `cifar-100-python`.

    Raises:
        ValueError: A file is missing or damaged, or holds more than arrays, lists and text.
    """

    def read(files: Sequence[Path]) -> Images:
        parts = [_arrays_of(file) for file in files]
        images = np.concatenate([images for images, _ in parts]).reshape(-1, 3, 32, 32)
        return torch.from_numpy(images), torch.tensor([label for _, labels in parts for label in labels])

    if (folder / "train").is_file():
        return read([folder / "train"]), read([folder / "test"])
    return read([folder / f"data_batch_{i}" for i in range(1, 6)]), read([folder / "test_batch"])


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays, lists, numbers and text; nothing that a pickle could call is found."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _arrays_of(file: Path) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
    """(n, 3072) bytes and n labels of one of CIFAR's files."""
    try:
        with file.open("rb") as opened:
            content = _ArraysOnly(opened, encoding="latin1").load()
        images, labels = content["data"], content.get("fine_labels", content.get("labels"))
        if images.dtype != np.uint8 or images.shape != (len(labels), 3072) or not all(type(n) is int for n in labels):
            raise ValueError(f"its data are {images.shape} {images.dtype}")
    except Exception as error:  # random bytes make an unpickler raise nearly anything
        raise ValueError(
            f"{file} cannot be read as images of CIFAR: {error}. Nothing in it was run; download it again."
        ) from error
    return images, labels


def _cifar(name: str, data_root: Path | None, download: bool, calibration: int) -> Data:
    root = DEFAULT_ROOT if data_root is None else data_root
    inner = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    found = root if root.name == inner else root / inner
    if not found.is_dir() and download:
        found = _download(root, name, _download_cifar) / inner
    if not found.is_dir():
        raise ValueError(
            f"There is no {name} in {root}: expected the folder {inner} there. Name the folder that has it with "
            "--data-root, or fetch it with --download."
        )
    return _in_memory(*read_cifar(found), calibration)


def _in_memory(train: Images, test: Images, calibration: int) -> Data:
    """Both sets as floats with zero mean and unit variance of each colour of the training set."""
    images, held_out = train[0].float(), test[0].float()
    mean, deviation = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    for tensor in (images, held_out):
        tensor.sub_(mean).div_(deviation)
    return Data(train=(images, train[1]), test=(held_out, test[1]), calibration=calibration)


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _idx(folder: Path, name: str, dimensions: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The array of bytes in an IDX file: two zeros, 8 for bytes, the number of dimensions, their sizes, the values."""
    file = _idx_file(folder, name)
    if file is None:
        raise ValueError(f"There is no {name}, nor {name}.gz, in {folder}.")
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        if raw[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError(f"it begins with {raw[:4]!r}")
        start = 4 + 4 * dimensions
        sizes = np.frombuffer(raw[4:start], ">u4").astype(int)
        return np.frombuffer(raw, np.uint8, offset=start).reshape(sizes).copy()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{file} is damaged: {error}. Download it again.") from error


def _folder_of_classes(folder: Path, image_size: int) -> Any:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [
        transforms.Resize(round(image_size * _RESIZED)),
        transforms.CenterCrop(image_size),
        transforms.ToTensor(),
        transforms.Normalize(_IMAGENET_MEAN, _IMAGENET_DEVIATION),
    ]
    try:
        return ImageFolder(str(folder), transforms.Compose(steps))
    except FileNotFoundError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"Expected a folder of images per class in {folder}: {said}") from error


def _download(root: Path, name: str, fetch: Callable[[Path, str], Path]) -> Path:
    try:
        with redirect_stdout(sys.stderr):  # what torchvision says of it is no result
            return fetch(root, name)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} could not be fetched into {root}: {error}") from error


def _download_fashion_mnist(root: Path, _: str) -> Path:
    from torchvision.datasets import FashionMNIST

    return Path(FashionMNIST(str(root), download=True).raw_folder)


def _download_cifar(root: Path, name: str) -> Path:
    from torchvision.datasets import CIFAR10, CIFAR100
    from torchvision.datasets.utils import download_and_extract_archive

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]  # their own reading would run what the pickles say
    download_and_extract_archive(kind.url, str(root), filename=kind.filename, md5=kind.tgz_md5)
    return root
