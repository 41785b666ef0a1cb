"""What a caller gives by mistake to a public call is named in a sentence that says what to do; nothing is changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import prunesearch as ps
from prunesearch.evaluators.channels.l2 import L2Criterion
from tests.test_given import IMAGES, LABELS, Net, network, search

HOLES = IMAGES.clone()
HOLES[3, 0, 0, 0] = torch.nan
NET = Net()
ONCE = ps.Recipe(epochs=1, batch_size=16)
DATA = ps.Data(train=(IMAGES, LABELS))
finetune = partial(ps.finetune, NET, DATA, recipe=ONCE)


class Untrainable(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.answer(x)


class Holed(Dataset[Any]):
    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> Any:
        return None if index == 7 else (IMAGES[index], int(LABELS[index]))


@cache
def traced() -> ps.Network:
    return network()


def compared(**test: Any) -> object:
    return ps.compare(traced(), {"same": NET}, data=ps.Data(train=(IMAGES, LABELS), **test))


@cache
def result() -> ps.SearchResult:
    return search(traced(), n_trials=1)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    # of another kind
    "a result for a network": (lambda: ps.finetune(result(), DATA), "got SearchResult; give what its .best.build()"),  # type: ignore[arg-type]
    "a winner for a network": (lambda: ps.top1(result().best, IMAGES, LABELS), "got Winner; give what its .build()"),  # type: ignore[arg-type]
    "a traced network": (lambda: ps.count(traced(), IMAGES[:1]), "got Network; give its .model"),  # type: ignore[arg-type]
    "a class for a network": (lambda: ps.recalibrate_bn(Net, IMAGES), "got the class Net; make one first"),  # type: ignore[arg-type]
    "a name for a teacher": (lambda: finetune(teacher="resnet"), "Expected teacher as a network"),
    "a network that was not traced": (lambda: ps.slim(NET, (8, 8), L2Criterion()), "as trace(model, exam"),  # type: ignore[arg-type]
    "a table of a network that was not traced": (lambda: ps.LatencyTable.measure(NET), "as trace(model, example"),
    "a name for a ranking": (lambda: ps.slim(traced(), (8, 8), "l1"), "Expected a ranking"),  # type: ignore[arg-type]
    "settings for a recipe": (lambda: finetune(recipe={"epochs": 1}), "recipe as prunesearch.Recipe(epochs=20), got"),
    "settings for an augmentation": (lambda: replace(ONCE, augmentation={"flip": True}), "Augmentation(flip=True)"),
    "a text for features": (lambda: replace(ONCE, features="first"), "such as ('first',), got a text"),
    "features of nobody": (lambda: finetune(recipe=replace(ONCE, features=("first",))), "Expected a teacher to take"),
    "a folder for a log": (lambda: finetune(log="runs"), 'Expected log as prunesearch.Log("runs/a")'),
    "a URL for a result": (lambda: finetune(study="search.db"), "Expected study as what search returned"),
    "a list for options": (lambda: search(traced(), options=["x"]), "Expected options as a dictionary by name"),
    "a number for a study's name": (lambda: search(traced(), study_name=3), "Expected study_name as text, got 3"),
    "a list for models": (lambda: ps.compare(traced(), [NET]), "Expected models by name"),  # type: ignore[arg-type]
    "a number for a model's name": (lambda: ps.compare(traced(), {3: NET}), "which are texts; got 3"),  # type: ignore[dict-item]
    "a number for a table": (lambda: ps.compare(traced(), table=3), "Expected table as a latency table, or the path"),  # type: ignore[arg-type]
    "half a channel": (lambda: traced().space.check((8.5, 8)), "Expected one whole width per group (2), got (8.5"),  # type: ignore[arg-type]
    "a text for a time": (lambda: ps.stop_after("1h"), "Expected seconds as a number, got '1h'"),  # type: ignore[arg-type]
    "a text for classes": (lambda: ps.make_model("resnet8", num_classes="5"), "num_classes as a whole number"),  # type: ignore[arg-type]
    "no structures to verify": (lambda: traced().verify(n=0), "Expected n >= 1, got 0"),
    "a shape for inputs": (lambda: ps.trace(NET, (1, 3, 8, 8)), "Did you mean torch.zeros(1, 3, 8, 8)?"),
    "data for images": (lambda: ps.recalibrate_bn(NET, DATA), "Expected images as a tensor (n, ...), got Data"),
    "an argument of nothing": (lambda: ps.prune(NET, DATA, "macs=50%", trials=3), "Did you mean 'n_trials'?"),
    # inputs that the network cannot take
    "weights of 64 bits": (
        lambda: ps.trace(copy.deepcopy(NET).double(), IMAGES[:2]),
        "The weights are torch.float64, the inputs torch.float32: give tensors of torch.float64",
    ),
    "bytes for images": (lambda: ps.top1(NET, IMAGES.byte(), LABELS), "such as images.float() / 255."),
    "colours last": (lambda: ps.trace(NET, IMAGES.permute(0, 2, 3, 1)), "images.permute(0, 3, 1, 2)."),
    "one image": (lambda: ps.trace(nn.Sequential(NET.first, nn.BatchNorm2d(16)), IMAGES[0]), "images[None] of sh"),
    "no gradients": (lambda: ps.finetune(Untrainable(), DATA, recipe=ONCE), "Does its forward run under torch.no_gr"),
    # labels and items
    "labels from 1 to judge": (lambda: ps.top1(NET, IMAGES, LABELS + 1), "Expected labels from 0 to 3"),
    "labels from 1 to compare": (lambda: compared(test=(IMAGES, LABELS + 1)), "Expected labels from 0 to 3"),
    "labels and images": (lambda: ps.top1(NET, LABELS, IMAGES), "Expected labels as (n,) class indices, got shape (4"),
    "labels before images": (lambda: ps.Data(train=(LABELS, IMAGES)), "Images come first, then labels."),
    "labels of 64 bits": (lambda: ps.Data(train=(IMAGES, LABELS.double())), "as by labels.astype(int)"),
    "labels that are none": (lambda: ps.Data(train=(IMAGES, LABELS / 0 * 0)), "torch.float32 with NaN in it"),
    "items by name": (
        lambda: ps.Data(train=DataLoader([{"image": image, "label": 1} for image in IMAGES])),  # type: ignore[arg-type]
        "got a dictionary of 'image', 'label'. For items of another form give Data(task=...)",
    ),
    "an item that is none": (lambda: search(traced(), data=Holed()), "(image, label); item 7 is None"),
    "colours of the validation": (
        lambda: ps.finetune(NET, replace(DATA, validation=(IMAGES[:, :1], LABELS)), recipe=ONCE),
        "Net cannot run on images of shape (2, 1, 8, 8)",
    ),
    # numbers that are none
    "holes to judge": (lambda: ps.top1(NET, HOLES, LABELS), "cannot be judged. Some images hold NaN"),
    "holes to compare": (lambda: compared(test=(HOLES, LABELS)), "cannot be judged. Some images hold NaN"),
    "holes for statistics": (lambda: ps.recalibrate_bn(NET, HOLES), "Some images hold NaN or infinite values"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_given_by_mistake_is_named_and_nothing_is_changed(call: Callable[[], object], sentence: str) -> None:
    before = {name: tensor.clone() for name, tensor in NET.state_dict().items()}
    with pytest.raises((TypeError, ValueError, ps.TraceError)) as caught:
        call()
    assert sentence in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in NET.state_dict().items())
    assert NET.training


@pytest.mark.slow
def test_what_can_be_understood_is_taken(tmp_path: Path) -> None:
    arrays = IMAGES.numpy(), LABELS.numpy()
    assert ps.top1(NET, *arrays) == ps.top1(NET, IMAGES, LABELS)
    assert ps.count(NET, arrays[0][:1]) == ps.count(NET, IMAGES[:1])
    assert ps.trace(NET, arrays[0][:2]).fingerprint() == traced().fingerprint()
    batch = next(iter(DataLoader(TensorDataset(IMAGES, LABELS), batch_size=48)))  # a list of two tensors
    assert [t.score for t in search(traced(), batch).trials] == [t.score for t in search(traced()).trials]
    found = search(traced(), study=tmp_path / "search.db")
    assert found.within("macs=60%") == found.within(ps.Budget(macs="60%"))
    assert ps.write_report(tmp_path / "search.db", tmp_path / "page.html").exists()
    assert ps.Log(tmp_path, "csv") == ps.Log(tmp_path, ("csv",))  # type: ignore[arg-type]


def test_tables_and_names_that_are_none_are_refused_in_a_sentence(tmp_path: Path) -> None:
    url, page = tmp_path / "search.db", tmp_path / "page.html"
    search(traced(), study=url, n_trials=1)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: ps.write_report(url, page, table=3), "Expected table as a latency table, or the path of its file"),  # type: ignore[arg-type]
        (lambda: ps.write_report(url, page, 3), 'Expected study_names as names of studies, such as ["search"], got 3'),  # type: ignore[arg-type]
        (lambda: ps.compare(study=url, study_names=3), "Expected study_names as names of studies"),  # type: ignore[arg-type]
    ]
    for call, sentence in calls:
        with pytest.raises(TypeError) as caught:
            call()
        assert sentence in str(caught.value)
    assert not page.exists()


def test_images_of_one_class_are_said_to_be_so() -> None:
    images, labels = IMAGES[LABELS == 1], LABELS[LABELS == 1]
    assert any(
        "have the label 1, so accuracies say nothing" in note
        for note in search(traced(), (images, labels), n_trials=1).notes
    )


@pytest.mark.parametrize("name", ["search.db", "notes.txt", "page.pdf"])
def test_a_report_is_never_written_over_the_studies_nor_under_the_name_of_something_else(
    name: str, tmp_path: Path
) -> None:
    search(traced(), study=tmp_path / "search.db", n_trials=1)
    before = (tmp_path / "search.db").read_bytes()
    with pytest.raises(ValueError, match=r"Expected a name that ends in \.html"):
        ps.write_report(tmp_path / "search.db", tmp_path / name)
    (tmp_path / "search.html").hardlink_to(tmp_path / "search.db")
    with pytest.raises(ValueError, match="is the database of the studies, and would be lost"):
        ps.write_report(tmp_path / "search.db", tmp_path / "search.html")
    assert (tmp_path / "search.db").read_bytes() == before


def test_test_examples_are_looked_at_before_a_training_and_lose_nothing_after_it() -> None:
    found, labels = result(), LABELS + 1
    small = found.best.build()
    steps: list[object] = []
    with pytest.raises(ValueError, match=r"The test examples do not fit the network\. Expected labels from 0"):
        ps.finetune(small, replace(DATA, test=(IMAGES, labels)), recipe=ONCE, study=found, on_step=steps.append)
    assert steps == []
    few = LABELS.repeat(50)  # one wrong label among thousands, which a look at some does not find
    few[1] = 4
    data = replace(DATA, test=(IMAGES.repeat(50, 1, 1, 1), few))
    with pytest.warns(UserWarning, match="reached on test examples is not known. Expected labels from 0 to 3"):
        tuned = ps.finetune(small, data, recipe=ONCE, study=found)
    assert not torch.equal(tuned.get_parameter("first.weight"), small.get_parameter("first.weight"))


def test_weights_of_a_pruned_network_are_said_to_be_so(tmp_path: Path) -> None:
    ps.save(result().best.build(), tmp_path / "small.safetensors")
    with pytest.raises(ps.CheckpointError, match=r"If it is of a pruned network, prunesearch\.load reads it"):
        ps.load_weights(Net(), tmp_path / "small.safetensors")


def test_arrays_are_of_the_type_that_networks_have() -> None:
    assert ps.count(NET, np.zeros((1, 3, 8, 8))) == ps.count(NET, torch.zeros(1, 3, 8, 8))
