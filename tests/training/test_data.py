from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

from prunesearch.models.fingerprint import fingerprint
from prunesearch.training.data import Data, as_data, told_of
from prunesearch.training.digits import digits

IMAGES = torch.arange(60, dtype=torch.float32).view(60, 1, 1, 1)
LABELS = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)


class Items(Dataset[Any]):
    """A dataset as torchvision's are: `targets` beside the items."""

    def __init__(self, *, targets: bool) -> None:
        self.read = 0
        if targets:
            self.targets = LABELS.tolist()

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.read += 1
        return IMAGES[index], int(LABELS[index])


SOURCES = {
    "tensors": (IMAGES, LABELS),
    "dataset": TensorDataset(IMAGES, LABELS),
    "loader": DataLoader(TensorDataset(IMAGES, LABELS), batch_size=7, shuffle=True),
    "targets": Items(targets=True),
    "no targets": Items(targets=False),
    "arrays": (IMAGES.numpy(), LABELS.numpy()),
    "arrays of 64 bits": (IMAGES.double().numpy(), LABELS.numpy().astype(np.uint8)),
    "array that cannot be written": (np.broadcast_to(IMAGES.numpy(), IMAGES.shape), LABELS.tolist()),
    "big-endian array": (IMAGES.numpy().astype(">f4"), LABELS[:, None]),
    "two lists": (list(IMAGES), LABELS.tolist()),
    "pairs": list(zip(IMAGES, LABELS, strict=True)),
    "pairs of arrays": tuple((image.numpy(), label) for image, label in zip(IMAGES, LABELS.tolist(), strict=True)),
    "loader of a subset": DataLoader(
        TensorDataset(torch.cat([IMAGES, IMAGES + 1000]), torch.cat([LABELS, LABELS])),
        sampler=SubsetRandomSampler(range(60)),
    ),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_form_of_source_gives_the_same_calibration_set(source: Any) -> None:
    images, labels = Data(train=source, calibration=24).calibration_set()
    expected_images, expected_labels = Data(train=(IMAGES, LABELS), calibration=24).calibration_set()
    assert torch.equal(images, expected_images)
    assert torch.equal(labels, expected_labels)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_the_calibration_set_is_balanced_distinct_and_labelled_right() -> None:
    images, labels = Data(train=(IMAGES, LABELS), calibration=24).calibration_set()
    assert Counter(labels.tolist()) == {0: 8, 1: 8, 2: 8}
    assert len(set(images.flatten().tolist())) == 24
    assert torch.equal(LABELS[images.flatten().long()], labels)


def test_a_class_with_too_few_images_gives_all_of_them() -> None:
    _, labels = Data(train=(IMAGES, LABELS), calibration=45).calibration_set()
    assert Counter(labels.tolist()) == {0: 18, 1: 17, 2: 10} or Counter(labels.tolist()) == {0: 17, 1: 18, 2: 10}


def test_more_calibration_images_than_there_are_means_all() -> None:
    images, _ = Data(train=(IMAGES, LABELS), calibration=1000).calibration_set()
    assert sorted(images.flatten().tolist()) == IMAGES.flatten().tolist()


def test_only_the_chosen_images_are_read_where_the_dataset_keeps_its_labels() -> None:
    items = Items(targets=True)
    data = Data(train=items, calibration=12)
    items.read = 0
    data.calibration_set()
    assert items.read <= 12 + 4  # four of them twice, to see that they do not change


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_an_epoch_shows_each_image_once_in_full_batches(source: Any) -> None:
    data = Data(train=source)
    batches = list(data.train_batches(16, np.random.default_rng(0)))
    assert [len(images) for images, _ in batches] == [16, 16, 16]
    assert len(batches) == data.steps_per_epoch(16)
    seen = torch.cat([images.flatten() for images, _ in batches]).tolist()
    assert len(set(seen)) == 48
    assert all(torch.equal(LABELS[images.flatten().long()], labels) for images, labels in batches)


def test_a_source_smaller_than_a_batch_is_one_batch() -> None:
    assert [len(x) for x, _ in Data(train=(IMAGES, LABELS)).train_batches(100, np.random.default_rng(0))] == [60]


def test_equal_data_have_equal_fingerprints_and_one_changed_label_shows() -> None:
    changed = LABELS.clone()
    changed[0] = 2
    prints = [
        fingerprint(*Data(train=train, calibration=60).calibration_set())  # type: ignore[arg-type]
        for train in ((IMAGES, LABELS), (IMAGES.clone(), LABELS), (IMAGES, changed))
    ]
    assert prints[0] == prints[1] != prints[2]
    assert fingerprint(IMAGES.bfloat16(), LABELS) != fingerprint(IMAGES, LABELS)


class Transformed(Items):
    """Labels pass through a transform that `targets` knows nothing of, as torchvision's `target_transform`."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = super().__getitem__(index)
        return image, label + 1


def test_labels_are_those_of_the_items_and_not_of_what_the_dataset_keeps_beside_them() -> None:
    images, labels = Data(train=Transformed(targets=True), calibration=30).calibration_set()
    assert torch.equal(labels, LABELS[images.flatten().long()] + 1)
    assert Counter(labels.tolist()) == {1: 10, 2: 10, 3: 10}


class Augmented(Items):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = super().__getitem__(index)
        return image + self.read, label


def test_images_that_change_with_every_reading_are_refused_unless_clean_ones_are_given() -> None:
    with pytest.raises(ValueError, match=r"Data\(calibrate_on=...\)"):
        Data(train=Augmented(targets=True)).calibration_set()
    images, _ = Data(train=Augmented(targets=True), calibrate_on=(IMAGES, LABELS), calibration=60).calibration_set()
    assert sorted(images.flatten().tolist()) == IMAGES.flatten().tolist()


def test_an_epoch_is_shuffled_and_another_generator_shuffles_otherwise() -> None:
    data = Data(train=(IMAGES, LABELS))
    orders = [
        torch.cat([x.flatten() for x, _ in data.train_batches(20, np.random.default_rng(seed))]).tolist()
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


class Labelled(Dataset[Any]):
    def __init__(self, label: Any) -> None:
        self.label = label

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        return IMAGES[index], self.label


@pytest.mark.parametrize("label", [1.7, "cat", None, torch.tensor([0.0, 1.0, 0.0])])
def test_labels_that_are_no_class_indices_are_refused(label: Any) -> None:
    with pytest.raises(ValueError, match="class indices"):
        Data(train=Labelled(label)).calibration_set()


@pytest.mark.parametrize("label", [3, torch.tensor(3), torch.tensor([3]), np.uint8(3), True])
def test_labels_may_be_integers_of_any_kind(label: Any) -> None:
    assert set(Data(train=Labelled(label)).calibration_set()[1].tolist()) == {int(label)}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (None, TypeError, "got None"),
        ([], ValueError, "train is empty"),
        ((), ValueError, "train is empty"),
        (([], []), ValueError, "train is empty"),
        ((IMAGES,), TypeError, "got a tuple of 1, the first a Tensor"),
        ((IMAGES, LABELS, LABELS), TypeError, "got a tuple of 3, the first a Tensor"),
        ({"images": IMAGES, "labels": LABELS}, TypeError, "got {'images'"),
        ([{"image": IMAGES[0], "label": 0}], TypeError, "the first a dict"),
        ((IMAGES, ["cat"] * 60), ValueError, "labels are strings, such as 'cat'"),
        ((IMAGES, np.array(["cat"] * 60)), ValueError, "labels are strings, such as 'cat'"),
        ([(IMAGES[0], "cat")], ValueError, "labels are strings, such as 'cat'"),
        ((IMAGES, np.array([None] * 60)), ValueError, "class indices"),
        ((np.array([None] * 60), LABELS), ValueError, "images as tensors, got ndarray"),
        ((IMAGES.to("meta"), LABELS), ValueError, "meta device"),
        ((IMAGES, LABELS[:5]), ValueError, "60 images and 5 labels"),
        ((IMAGES, LABELS.float()), ValueError, r"class indices, got \(60,\) torch.float32"),
        ((IMAGES, torch.zeros(60, 10, dtype=torch.long)), ValueError, r"class indices, got \(60, 10\)"),
        ((IMAGES[:0], LABELS[:0]), ValueError, "train is empty"),
        (Stream(), TypeError, "got Stream, which has no length"),
        ("digits", TypeError, "got 'digits'"),
        (3, TypeError, "got int"),
    ],
)
def test_data_of_another_form_are_refused(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Data(train=source)
    assert str(caught.value).count(". ") <= 1


class Made(Dataset[Any]):
    """Images that a function makes of their index."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.make(index), index % 2


def picture(index: int) -> Any:
    return Image.fromarray(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (picture, r"got PIL images\. Add torchvision\.transforms\.ToTensor\(\)"),
        (lambda index: "photos/1.jpg", "Expected images as tensors, got str"),
        (lambda index: None, "Expected images as tensors, got NoneType"),
        (lambda index: torch.zeros(3, 8 + index, 8), r"one size, got \(3, .*Resize\(256\) and transforms.CenterCrop"),
        (lambda index: torch.zeros(3 - index % 2 * 2, 8, 8), r"one size, got .*transforms.Grayscale\(3\)"),
        (lambda index: torch.zeros(3 + index), r"one size, got .*Pad or cut them to one length"),
    ],
)
def test_images_that_cannot_be_a_batch_are_refused_with_what_to_do(make: Callable[[int], Any], message: str) -> None:
    for source in (Made(make), DataLoader(Made(make)), [(make(i), i % 2) for i in range(8)]):
        with pytest.raises(ValueError, match=message):
            Data(train=source).calibration_set()


@pytest.mark.parametrize("labels", [LABELS > 0, (LABELS > 0).float(), (LABELS > 0).double()[:, None].numpy()])
def test_labels_of_two_classes_may_be_of_any_type(labels: Any) -> None:
    items = list(zip(IMAGES, torch.as_tensor(labels), strict=True))
    for source in ((IMAGES, labels), items):
        images, found = Data(train=source, calibration=60).calibration_set()
        assert torch.equal(found, (LABELS > 0).long()[images.flatten().long()])


def test_a_source_alone_is_what_to_train_with() -> None:
    data = Data(train=(IMAGES, LABELS))
    assert as_data(data) is data
    assert as_data((IMAGES, LABELS)).train == data.train
    assert as_data(SOURCES["loader"]).train is SOURCES["loader"]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_data_print_what_they_are_and_not_what_is_in_them(source: Any) -> None:
    printed = repr(Data(train=source, validation=source, test=source))
    assert "60" in printed
    assert "\n" not in printed
    assert len(printed) < 200


def test_asking_for_a_test_set_that_is_not_there_says_how_to_give_one() -> None:
    with pytest.raises(ValueError, match=r"Data\(test=...\)"):
        Data(train=(IMAGES, LABELS)).test_set()


def test_digits_are_real_normalised_and_split_without_overlap() -> None:
    data = digits(seed=1)
    (train, train_labels), (test, test_labels) = data.train, data.test_set()  # type: ignore[misc]
    assert train.shape == (1348, 1, 8, 8)
    assert test.shape == (449, 1, 8, 8)
    assert abs(float(train.mean())) < 1e-5
    assert float(train.std()) == pytest.approx(1.0, abs=1e-4)
    assert len(train_labels) + len(test_labels) == 1797
    rows = {tuple(image.flatten().tolist()) for image in test}
    assert len(rows) > 440
    assert not rows & {tuple(image.flatten().tolist()) for image in train}


def test_data_are_told_in_words_without_their_settings() -> None:
    assert told_of(Data(train=(torch.zeros(6, 1, 4, 4), torch.arange(6)), seed=3)) == "6 images of 1x4x4 with labels"


@pytest.mark.parametrize("share", [None, 0.25])
def test_calibration_and_validation_images_are_not_trained_on(share: float | None) -> None:
    numbered = torch.arange(48.0)[:, None, None, None].expand(48, 1, 2, 2).clone()
    data = Data(train=(numbered, torch.arange(48) % 2), calibration=16, validation=share)
    rest = data.sub_training()

    def seen(images: torch.Tensor) -> set[int]:
        return {int(image[0, 0, 0]) for image in images}

    trained = set[int]().union(*(seen(batch[0]) for batch in rest.train_batches(1, np.random.default_rng(0))))
    held_out = set() if share is None else seen(data.validation_set()[0])
    scored = seen(data.calibration_set()[0])
    assert len(scored) == 16
    assert trained == set(range(48)) - scored - held_out
    assert torch.equal(rest.calibration_set()[0], data.calibration_set()[0])
    if share is not None:
        assert seen(rest.validation_set()[0]) == held_out


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_subset_that_a_loader_draws_from_is_what_there_is(task: str) -> None:
    images, labels = torch.rand(48, 1, 2, 2), torch.arange(48) % 2
    targets = labels if task == "classification" else labels.float()[:, None]
    loader = DataLoader(TensorDataset(images, targets), sampler=SubsetRandomSampler(range(10)))
    assert Data(train=loader, task=task).steps_per_epoch(1) == 10
