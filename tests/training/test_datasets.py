"""Data sets by name: what is read, how it is normalised, and that nothing in their files runs."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunesearch.sources import load_data
from prunesearch.training.data import Data


def idx(array: np.ndarray) -> bytes:  # type: ignore[type-arg]
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_fashion_mnist(folder: Path, *, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 40), ("t10k", 20)):
        for name, array in (
            (f"{part}-images-idx3-ubyte", rng.integers(256, size=(n, 28, 28))),
            (f"{part}-labels-idx1-ubyte", np.arange(n) % 10),
        ):
            raw = idx(array)
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw)) if packed else (folder / name).write_bytes(raw)


def write_cifar(folder: Path, labels: str, files: list[str], n: int = 20) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in files:
        content = {"data": rng.integers(256, size=(n, 3072), dtype=np.uint8), labels: [i % 10 for i in range(n)]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=4))


def is_normalised(data: Data) -> bool:
    images = data.train[0]  # type: ignore[index]
    return torch.allclose(images.mean((0, 2, 3)), torch.zeros(images.shape[1]), atol=1e-4) and torch.allclose(
        images.std((0, 2, 3)), torch.ones(images.shape[1]), atol=1e-4
    )


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_read_as_debian_and_as_torchvision_leave_it(tmp_path: Path, packed: bool) -> None:
    write_fashion_mnist(tmp_path if packed else tmp_path / "FashionMNIST" / "raw", packed=packed)
    data = load_data("fashion-mnist", data_root=tmp_path, calibration=12)
    images, labels = data.calibration_set()
    assert images.shape == (12, 1, 28, 28)
    assert data.test_set()[0].shape == (20, 1, 28, 28)
    assert is_normalised(data)
    assert data.class_count() == 10
    assert sorted(labels.tolist())[0] == 0


def test_a_damaged_file_is_a_sentence(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, packed=True)
    file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    raw = file.read_bytes()
    for damaged in (raw[:-12], b"", raw[:10] + bytes([255]) * 20 + raw[30:], b"no gzip at all"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz is damaged"):
            load_data("fashion-mnist", data_root=tmp_path)


def test_cifar_is_read_as_torchvision_leaves_it(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py", "labels", [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
    data = load_data("cifar10", data_root=tmp_path)
    assert data.train[0].shape == (100, 3, 32, 32)  # type: ignore[index]
    assert data.test_set()[0].shape == (20, 3, 32, 32)
    assert is_normalised(data)
    write_cifar(tmp_path / "cifar-100-python", "fine_labels", ["train", "test"], n=30)
    data = load_data("cifar100", data_root=tmp_path / "cifar-100-python", calibration=8)
    assert data.train[0].shape == (30, 3, 32, 32)  # type: ignore[index]


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("open('it_ran', 'w').close()",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path / "cifar-100-python", "fine_labels", ["train", "test"])
    (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps({"data": Runs(), "fine_labels": []}))
    with pytest.raises(ValueError, match=r"test cannot be read as images of CIFAR: it asks for builtins\.exec"):
        load_data("cifar100", data_root=tmp_path)
    assert not (tmp_path / "it_ran").exists()


def write_images(folder: Path, *classes: str, n: int = 3) -> None:
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (40, 30), (60 * place, 10 * i, 0)).save(folder / name / f"{i}.png")


def test_a_folder_of_images_is_read_lazily_resized_and_normalised(tmp_path: Path) -> None:
    write_images(tmp_path / "train", "cat", "dog")
    write_images(tmp_path / "val", "cat", "dog", n=1)
    data = load_data(f"imagefolder:{tmp_path}", image_size=16, calibration=4)
    images, labels = data.calibration_set()
    assert images.shape == (4, 3, 16, 16)
    assert sorted(labels.tolist()) == [0, 0, 1, 1]
    assert data.class_count() == 2
    assert data.validation is None
    ((test, _),) = data.test_batches()
    black = (torch.zeros(3) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(test[0][:, 8, 8], black)  # the first class's first image is black
    write_images(tmp_path / "test", "cat", "dog", n=2)
    both = load_data(f"imagefolder:{tmp_path}", image_size=16)
    assert (len(both.test_set()[1]), len(both.validation_set()[1])) == (4, 2)  # type: ignore[index]


def test_classes_that_differ_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train", "cat", "dog")
    write_images(tmp_path / "test", "cat", "cow")
    with pytest.raises(ValueError, match=r"\['cow', 'dog'\] differ"):
        load_data(f"imagefolder:{tmp_path}")


def test_a_function_of_the_users_is_given_the_options_it_has(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch, prunesearch as ps\n"
        "def data(image_size=8):\n"
        "    return ps.Data(train=(torch.zeros(4, 1, image_size, image_size), torch.arange(4)))\n"
    )
    assert load_data(f"{tmp_path / 'own.py'}:data", image_size=5).examples().shape == (2, 1, 5, 5)
    with pytest.raises(ValueError, match=r"takes --image-size\. Give the function a parameter data_root, or leave the"):
        load_data(f"{tmp_path / 'own.py'}:data", data_root=tmp_path)
