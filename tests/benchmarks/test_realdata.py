"""Archives of JPEG files are read as they were written, and networks adapted to them and searched on them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import racing
import realdata
import torch
import weights
from networks import CHANGED_AT_RANDOM
from PIL import Image

import prunesearch as ps

COLOURS = 16


def jpegs(images: Sequence[torch.Tensor]) -> Mapping[str, Any]:
    """Files end to end, and where each begins."""
    files = [io.BytesIO() for _ in images]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=95)
    laid = [np.frombuffer(file.getvalue(), np.uint8) for file in files]
    return {"files": np.concatenate(laid), "offsets": np.cumsum([0, *map(len, laid)])}


def coloured(n: int, size: int = 32) -> list[torch.Tensor]:
    """Images of one grey each, number i as light as i mod 16 says; of different sizes as files."""
    lightness = (16 * (i % COLOURS) + 8 for i in range(n))
    images = [torch.full((3, size, size), value, dtype=torch.uint8) for value in lightness]
    for i, image in enumerate(images):
        image[:, : i % 3, :1] = 0
    return images


def colours(images: torch.Tensor) -> torch.Tensor:
    """Which grey each image has, by its lower half."""
    return images[:, :, images.shape[2] // 2 :].float().mean((1, 2, 3)).div(16).long()


def cifar(root: Path, train: int = 64, test: int = 32) -> Path:
    """An archive in which the class of an image follows from its grey."""
    parts = {"train": train, "test": test}
    arrays = {f"{part}_{name}": array for part, n in parts.items() for name, array in jpegs(coloured(n)).items()}
    labels = {f"{part}_labels": (np.arange(n) % COLOURS % 10).astype(np.uint8) for part, n in parts.items()}
    np.savez(root / "cifar10.npz", **arrays, **labels)
    return root


def small(root: Path) -> realdata.Parts:
    return realdata.cifar10(cifar(root), root / "cache", train=32, held_out=16)


def test_images_come_in_their_order_and_again_from_the_cache(tmp_path: Path) -> None:
    archive = realdata.Archive(cifar(tmp_path) / "cifar10.npz", tmp_path / "cache")
    images = archive.images("train")
    assert images.shape == (64, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert torch.equal(colours(images), torch.arange(64) % COLOURS)
    (kept,) = (tmp_path / "cache").iterdir()
    np.save(kept, images.flip(0).numpy())
    assert torch.equal(archive.images("train"), images.flip(0))  # as kept, not decoded anew


def test_another_archive_of_the_same_name_is_decoded_anew(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert len(realdata.Archive(cifar(tmp_path) / "cifar10.npz", cache).images("test")) == 32
    assert len(realdata.Archive(cifar(tmp_path, test=7) / "cifar10.npz", cache).images("test")) == 7


def test_an_archive_with_pickled_objects_is_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "natural.npz", labels=np.array([{"code": 1}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        realdata.Archive(tmp_path / "natural.npz", tmp_path).array("labels")


def test_a_missing_array_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"val_files.*train_files"):
        realdata.Archive(cifar(tmp_path) / "cifar10.npz", tmp_path).images("val")


def test_parts_share_no_image_and_keep_labels_with_images(tmp_path: Path) -> None:
    arrays = {f"{part}_{name}": array for part in ("train", "test") for name, array in jpegs(coloured(16)).items()}
    labels = {f"{part}_labels": np.arange(16, dtype=np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "cifar10.npz", **arrays, **labels)
    found = realdata.cifar10(tmp_path, tmp_path / "cache", train=8, held_out=4)
    parts = (found.train, found.search, found.unseen)
    assert [len(part[1]) for part in parts] == [8, 4, 4]
    assert sorted(torch.cat([part[1] for part in parts]).tolist()) == list(range(16))
    for images, classes in (*parts, found.test):
        assert torch.equal(colours(images), classes)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([part[1] for part in parts]), order)


def test_more_images_than_there_are_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 65 training images"):
        realdata.cifar10(cifar(tmp_path), tmp_path / "cache", train=33, held_out=16)


def idx(file: Path, values: npt.NDArray[np.uint8]) -> None:
    """As Fashion-MNIST's files are: bytes after the number of dimensions and their sizes."""
    file.write_bytes(bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes())


def fashion(root: Path, train: int = 64, test: int = 32) -> Path:
    """Four files in which image i of a part has the one grey 2 i, and the class i mod 10."""
    for part, n in (("train", train), ("t10k", test)):
        numbers = np.arange(n, dtype=np.uint8)
        idx(root / f"{part}-images-idx3-ubyte", np.repeat(2 * numbers, 28 * 28).reshape(n, 28, 28))
        idx(root / f"{part}-labels-idx1-ubyte", numbers % 10)
    return root


def test_fashion_mnist_is_split_as_cifar_10_is_and_normalised_by_the_images_that_train(tmp_path: Path) -> None:
    found = realdata.fashion_mnist(fashion(tmp_path), tmp_path, train=32, held_out=16)
    parts = (found.train, found.search, found.unseen)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([images[:, 0, 0, 0] for images, _ in parts]), (2 * order).to(torch.uint8))
    for images, labels in (*parts, found.test):
        assert images.shape[1:] == (1, 28, 28)
        assert torch.equal(images[:, 0, 0, 0] // 2 % 10, labels)
    images, labels = found.normalised(found.train)
    assert images.mean() == pytest.approx(0.0, abs=1e-5)
    assert images.std() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(labels, found.train[1])


def test_normalised_images_have_the_public_mean_and_deviation() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    before = images.clone()
    back = realdata.normalised(images) * torch.tensor(realdata.DEVIATION)[:, None, None]
    back += torch.tensor(realdata.MEAN)[:, None, None]
    assert torch.equal((back * 255).round().to(torch.uint8), images)
    assert torch.equal(images, before)


def test_boxes_stay_with_their_image(tmp_path: Path) -> None:
    corners = np.arange(12, dtype=np.float32).reshape(3, 4) / 12
    beside = {"boxes": corners, "classes": np.array([2, 0, 1], np.uint8), "owner": np.array([1, 0, 1], np.int32)}
    arrays = {**jpegs(coloured(3)), **beside}
    np.savez(tmp_path / "bccd.npz", **{f"val_{name}": array for name, array in arrays.items()})
    images, boxes = realdata.bccd(tmp_path, tmp_path / "cache", "val")
    assert len(images) == len(boxes) == 3
    assert [box.classes.tolist() for box in boxes] == [[0], [2, 1], []]
    assert torch.equal(boxes[1].corners, torch.from_numpy(corners[[0, 2]]))


@pytest.mark.parametrize("depth", [20, 56])
def test_public_weights_with_their_prefix_load_into_the_network_of_the_zoo(depth: int, tmp_path: Path) -> None:
    model = ps.make_model(f"resnet{depth}").eval()
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 90.0}, tmp_path / f"resnet{depth}_cifar10.th")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(realdata.public_resnet(depth, tmp_path)(images), model(images))


def test_a_training_run_again_ends_with_the_same_weights_and_facts(tmp_path: Path) -> None:
    parts, checkpoint = small(tmp_path), tmp_path / "resnet8.training"
    recipe = ps.Recipe(epochs=2, batch_size=16, lr=0.01, augmentation=CHANGED_AT_RANDOM)
    public = ps.make_model("resnet8").eval()
    model, facts = weights.trained(public, parts, checkpoint, recipe)
    again, same = weights.trained(public, parts, checkpoint, recipe)
    assert len(facts["losses"]) == 2
    assert facts == same
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), public.parameters(), strict=True))


def bench(root: Path) -> racing.Bench:
    torch.manual_seed(0)
    return racing.bench_of(ps.make_model("resnet8"), small(root))


HALF = ps.Budget(macs="50%")


def test_a_cell_says_what_its_winner_loses_on_unseen_images(tmp_path: Path) -> None:
    place = bench(tmp_path)
    arm = racing.ARMS["uniform"]
    (cell,) = racing.measured(place, arm, 0, HALF)
    winner = ps.search(place.network, place.data, budget=HALF, **arm.settings).best.build()
    with torch.no_grad():
        right = winner(place.unseen[0]).softmax(1).gather(1, place.unseen[1][:, None])
    assert cell["loss"] == pytest.approx(-float(right.log().mean()), rel=1e-4)
    assert cell["macs"] <= place.network.space.cost(place.network.space.full).macs / 2
    assert cell["seconds"]["cpu"] > 0


def test_uniform_widths_are_filled_up_to_the_limit(tmp_path: Path) -> None:
    place = bench(tmp_path)
    limit = ps.Budget(macs="45%")
    plain, filled = (racing.measured(place, racing.ARMS[arm], 0, limit)[0] for arm in ("uniform", "uniform-filled"))
    most = 0.45 * place.network.space.cost(place.network.space.full).macs
    assert plain["macs"] < filled["macs"] <= most
    assert all(narrow <= wide for narrow, wide in zip(plain["structure"], filled["structure"], strict=True))


def test_more_structures_are_rows_of_the_same_search(tmp_path: Path) -> None:
    place = bench(tmp_path)
    rows = racing.measured(place, racing.Arm({"searcher": "random"}, (2, 5)), 0, HALF)
    assert [row["evaluations"] for row in rows] == [2, 5]
    assert (
        rows[0]["structure"]
        == racing.measured(place, racing.Arm({"searcher": "random"}, (2,)), 0, HALF)[0]["structure"]
    )
    assert rows[0]["images scored"] < rows[1]["images scored"]
    assert rows[0]["score"] <= rows[1]["score"]


def test_cells_that_are_there_are_not_measured_again(tmp_path: Path) -> None:
    place, out = bench(tmp_path), tmp_path / "cells"
    racing.run(place, ["uniform.0"], out, HALF)
    file = out / "uniform.0.json"
    stored = {**json.loads(file.read_text()), "loss": -1.0}
    file.write_text(json.dumps(stored))
    racing.run(place, ["uniform.0"], out, HALF)
    assert json.loads(file.read_text()) == stored


def test_cells_of_another_limit_are_not_mixed(tmp_path: Path) -> None:
    place, out = bench(tmp_path), tmp_path / "cells"
    racing.run(place, ["uniform.0"], out, HALF)
    with pytest.raises(SystemExit, match="another limit"):
        racing.run(place, ["uniform.0"], out, ps.Budget(macs="40%"))


def test_cells_are_named_by_arm_or_one_by_one() -> None:
    assert racing.cells_of(["uniform"]) == [f"uniform.{seed}" for seed in range(racing.SEEDS)]
    assert racing.cells_of(["surrogate-64.3", "random-race.0"]) == ["random-race.0", "surrogate-64.3"]
    with pytest.raises(SystemExit, match="no-such-arm"):
        racing.cells_of(["no-such-arm"])
