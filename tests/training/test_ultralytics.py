"""Networks of ultralytics, pruned: what the package's own numbers are, and that it goes on with what was saved."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import prunesearch as ps
from prunesearch.evaluators.accuracy import measured_on
from prunesearch.models.nested import mapped
from prunesearch.training.yolo_data import check_names
from tests.tasks.shapes import write_shapes
from tests.test_tutorials import YOLO, run

NETWORKS = {
    "yolov8n": "detect",
    "yolov8n-seg": "segment",
    "yolo11n-pose": "pose",
    "yolo26n": "detect",
    "yolo26n-cls": "classify",
}
installed = pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="needs ultralytics")

FRESH = """
import json, sys
from pathlib import Path
import onnx
from torch import nn
from ultralytics import YOLO
import prunesearch as ps

small, data, picture = sys.argv[1:]
kept = dict(data=data, imgsz=64, plots=False, project=str(Path(small).parent / "again"), verbose=False)
training = dict(kept, epochs=1, batch=8, amp=False, workers=0)

def shapes(model):
    kinds = nn.Conv2d, nn.ConvTranspose2d
    return sorted(tuple(m.weight.shape) for m in model.modules() if isinstance(m, kinds))

network = YOLO(small)
saved = shapes(network.model)
try:
    YOLO(small).train(**training)
    refused = ""
except Exception as error:
    refused = str(error)
found = {
    "refused": refused,
    "measured": {name: float(value) for name, value in network.val(rect=False, **kept).results_dict.items()},
    "answers": len(network.predict(picture, imgsz=64, conf=1e-4, verbose=False)),
}
exported = onnx.load(YOLO(small).export(format="onnx", imgsz=64, simplify=False))
written = sorted(tuple(each.dims) for each in exported.graph.initializer if len(each.dims) == 4)
network = YOLO(small)
network.train(trainer=ps.tasks.pruned_trainer(network.task), **training)
again = shapes(YOLO(str(network.trainer.best)).model)
found |= {"saved": saved, "written": written, "trained": shapes(network.model), "trained again": again}
print(json.dumps(found))
"""


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The package fetches fonts, weights and packages of its own accord; it reads this when it is imported."""
    os.environ |= {
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "YOLO_CONFIG_DIR": str(tmp_path_factory.mktemp("settings")),
    }


def trained(name: str, folder: Path, *, epochs: int = 1, single_cls: bool = False) -> tuple[Any, Path]:
    """A YOLO object from a `.pt` file that the package wrote, and its data."""
    from ultralytics import YOLO

    data = write_shapes(folder / "data", kind=NETWORKS[name])
    again = {"project": str(folder / "runs"), "plots": False, "verbose": False, "amp": False, "workers": 0}
    again |= {"mosaic": 0.0, "single_cls": single_cls}
    yolo = YOLO(f"{name}.yaml")
    yolo.train(data=str(data), epochs=epochs, imgsz=64, batch=8, optimizer="AdamW", lr0=2e-3, **again)
    return YOLO(str(yolo.trainer.best)), data


@pytest.mark.detectors
@installed
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_package_goes_on_with_the_pruned_network_in_another_process(name: str, tmp_path: Path) -> None:
    kind = NETWORKS[name]
    yolo, data = trained(name, tmp_path, epochs=50 if name == "yolov8n" else 1)
    task = ps.tasks.ultralytics(yolo, data, imgsz=64, calibration=16)
    network = ps.trace(task.model, task.example_inputs)
    assert network.space.cost(network.space.minimum).macs < 0.2 * network.space.cost(network.space.full).macs

    small = ps.search(network, task.data, budget="macs=60%", n_trials=3).best.build()
    task.save(small, tmp_path / "small.pt")
    picture = next((tmp_path / "data").rglob("val/**/*.png"))
    command = [sys.executable, "-c", FRESH, str(tmp_path / "small.pt"), str(data), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])

    layers = [m for m in small.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    assert found["saved"] == sorted(list(layer.weight.shape) for layer in layers)
    assert found["saved"] == found["trained"] == found["trained again"]
    assert "pruned_trainer" in found["refused"], "the network must not become wide again unannounced"
    assert found["answers"] == 1
    assert all(shape in found["saved"] for shape in found["written"])

    test = task.data.examples_of(task.data.test_set())
    key = {"detect": "mAP50-95(B)", "segment": "mAP50-95(M)", "pose": "mAP50-95(P)", "classify": "accuracy_top1"}[kind]
    assert measured_on(small, test) == pytest.approx(found["measured"][f"metrics/{key}"], abs=2e-3)
    if name == "yolov8n":  # which has learnt something
        theirs = yolo.val(data=str(data), imgsz=64, rect=False, plots=False, project=str(tmp_path), verbose=False)
        assert measured_on(task.model, test) == pytest.approx(theirs.results_dict[f"metrics/{key}"], abs=2e-3)
        assert theirs.results_dict[f"metrics/{key}"] > 0.05


@pytest.fixture(scope="module")
def detector(offline: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    return trained("yolov8n", tmp_path_factory.mktemp("detector"))


@pytest.mark.detectors
@installed
@pytest.mark.filterwarnings("default")
def test_a_detector_is_at_no_distance_from_itself_and_labels_stay_as_they_were(detector: tuple[Any, Path]) -> None:
    yolo, data = detector
    task = ps.tasks.ultralytics(yolo, data, imgsz=64, calibration=4)
    examples = task.data.examples_of(task.data.calibration_set())
    answers, goal = mapped(task.model(examples.inputs), torch.Tensor.detach), examples.task
    assert float(goal.distil(answers, answers, 2.0).abs().max()) < 1e-5
    assert float(goal.distil(mapped(answers, lambda x: x + 0.1 * x.std()), answers, 1.0).min()) > 1e-3
    assert goal.agreement(answers, answers).tolist() == [1.0] * 4
    assert torch.equal(examples.losses(answers), examples.losses(answers))
    one = examples.take(slice(1))
    loss = one.losses(task.model(one.inputs))
    loss.backward()
    assert loss.isfinite()


@pytest.mark.detectors
@installed
@pytest.mark.filterwarnings("default")
def test_a_detector_of_a_single_class_takes_data_of_several(tmp_path: Path) -> None:
    yolo, data = trained("yolov8n", tmp_path, epochs=20, single_cls=True)
    task = ps.tasks.ultralytics(yolo, data, imgsz=64, calibration=4)
    examples = task.data.examples_of(task.data.calibration_set())
    assert all(not sample["cls"].any() for sample in examples.batch["samples"])
    with torch.no_grad():
        assert examples.losses(task.model(examples.inputs)).isfinite()
    test = task.data.examples_of(task.data.test_set())
    kept = {"data": str(data), "imgsz": 64, "rect": False, "plots": False, "project": str(tmp_path), "verbose": False}
    theirs = yolo.val(**kept, single_cls=True).results_dict["metrics/mAP50-95(B)"]
    assert measured_on(task.model, test) == pytest.approx(theirs, abs=2e-3)


OFF = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "translate": 0.0, "scale": 0.0, "fliplr": 0.0}
OFF |= {"auto_augment": None, "erasing": 0.0, "augmentations": []}


def told(yolo: Any, **settings: Any) -> Any:
    """A YOLO object whose training had these settings."""
    other = copy.deepcopy(yolo)
    other.ckpt = {**other.ckpt, "train_args": {**other.ckpt["train_args"], **settings}}
    return other


def pictures(items: Any) -> torch.Tensor:
    return torch.stack([items[i]["img"] for i in range(8)]).float()


@pytest.mark.detectors
@installed
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["yolov8n", "yolo26n-cls"])
def test_augmentation_is_that_of_the_training_unless_told_otherwise(name: str, tmp_path: Path) -> None:
    yolo, data = trained(name, tmp_path)
    changed = ps.tasks.ultralytics(yolo, data, imgsz=64).data
    assert not torch.allclose(pictures(changed.train.dataset), pictures(changed.calibrate_on.dataset), atol=0.1)
    still = ps.tasks.ultralytics(told(yolo, **OFF), data, imgsz=64).data
    assert torch.allclose(pictures(still.train.dataset), pictures(still.calibrate_on.dataset))
    task = ps.tasks.ultralytics(told(yolo, **OFF), data, imgsz=64, settings={"fliplr": 1.0})
    turned = task.data
    assert torch.allclose(pictures(turned.train.dataset).flip(-1), pictures(turned.calibrate_on.dataset))
    task.save(task.model, tmp_path / "small.pt")
    again = ps.tasks.ultralytics(type(yolo)(str(tmp_path / "small.pt")), data, imgsz=64).data
    assert torch.allclose(pictures(again.train.dataset).flip(-1), pictures(again.calibrate_on.dataset))


@pytest.mark.detectors
@installed
@pytest.mark.filterwarnings("default")
def test_labels_are_of_the_classes_that_the_training_kept(detector: tuple[Any, Path], tmp_path: Path) -> None:
    yolo, data = detector

    def classes(given: Any, **settings: Any) -> list[set[int]]:
        found = ps.tasks.ultralytics(given, data, imgsz=64, **settings).data
        sources = (found.train, found.calibrate_on, found.test)
        return [{int(kind) for label in each.dataset.labels for kind in label["cls"].ravel()} for each in sources]

    assert classes(yolo) == [{0, 1}] * 3
    assert classes(told(yolo, classes=[1])) == [{1}] * 3
    assert classes(told(yolo, classes=[1]), settings={"classes": None}) == [{0, 1}] * 3
    with pytest.raises(ValueError, match=r"labels with boxes of the classes \[5\].* in the part train"):
        classes(told(yolo, classes=[5]))
    for settings, message in (
        ({"mosaic": 1.0}, "got mosaic, which mixes several"),
        ({"fliplrr": 1.0}, "Expected settings of box, .*, got 'fliplrr'"),
        ({"fliplr": 7.0}, r"ultralytics refuses .*fliplr.*Give settings="),
        ({"fliplr": "often"}, r"ultralytics refuses .*fliplr.*Give settings="),
    ):
        with pytest.raises(ValueError, match=message):
            classes(yolo, settings=settings)


@pytest.mark.detectors
@installed
@pytest.mark.filterwarnings("default")
def test_networks_without_answers_or_a_criterion_that_can_be_used_are_refused_at_once(
    detector: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ultralytics

    yolo, data = detector
    folder = Path(ultralytics.__file__).parent / "cfg/models/rt-detr"
    written = (folder / "rtdetr-resnet50.yaml").read_text()
    for classes in (2, 80):
        (tmp_path / "rtdetr-mine.yaml").write_text(re.sub(r"(?m)^nc: 80", f"nc: {classes}", written))
        with pytest.raises(ValueError, match="got a RTDETRDetectionModel, for which there is no task"):
            ps.tasks.ultralytics(ultralytics.RTDETR(str(tmp_path / "rtdetr-mine.yaml")), data, imgsz=64)

    def none(_: Any) -> None:
        raise NotImplementedError("compute it yourself")

    monkeypatch.setattr(type(yolo.model), "init_criterion", none)
    with pytest.raises(ValueError, match=r"this DetectionModel fails .*NotImplementedError: compute it yourself"):
        ps.tasks.ultralytics(yolo, data, imgsz=64)


@pytest.mark.detectors
@installed
def test_a_trainer_of_one_class_says_that_it_is_so_for_single_cls(detector: tuple[Any, Path]) -> None:
    yolo, _ = detector
    trainer = ps.tasks.pruned_trainer("detect")
    asked = SimpleNamespace(args=SimpleNamespace(single_cls=True), data={"nc": 1})
    with pytest.raises(ValueError, match=r"2 classes .*, got 1, as single_cls=True makes .* Leave that out, or train"):
        trainer.get_model(asked, weights=yolo.model)
    asked = SimpleNamespace(args=SimpleNamespace(single_cls=False), data={"nc": 3})
    with pytest.raises(ValueError, match=r"2 classes .*, got 3\. Train the unpruned"):
        trainer.get_model(asked, weights=yolo.model)
    asked.data = {"nc": 2}
    assert isinstance(trainer.get_model(asked, weights=yolo.model), type(yolo.model))


@pytest.mark.detectors
@installed
@pytest.mark.filterwarnings("default")
def test_networks_and_files_that_are_refused(detector: tuple[Any, Path], tmp_path: Path) -> None:
    yolo, data = detector
    with pytest.raises(TypeError, match="reads no pickles"):
        ps.tasks.ultralytics("best.pt", data)
    with pytest.raises(TypeError, match="Expected a YOLO object"):
        ps.tasks.ultralytics(yolo.model, data)
    task = ps.tasks.ultralytics(yolo, data, imgsz=64)
    with pytest.raises(ValueError, match=r"ends in \.pt"):
        task.save(task.model, tmp_path / "small.safetensors")
    with pytest.raises(TypeError, match="DetectionModel"):
        task.save(torch.nn.Linear(1, 1), tmp_path / "small.pt")

    other = copy.deepcopy(yolo)
    del other.model.model[-1].reg_max
    other.ckpt = {**other.ckpt, "version": "8.0.3"}
    with pytest.raises(ValueError, match=r"its file is of 8\.0\.3"):
        ps.tasks.ultralytics(other, data, imgsz=64)
    fused = copy.deepcopy(yolo)
    fused.model.fuse(verbose=False)
    with pytest.raises(ValueError, match="fused"):
        ps.tasks.ultralytics(fused, data, imgsz=64)


@pytest.mark.detectors
@installed
@pytest.mark.filterwarnings("default")
def test_data_that_are_refused(detector: tuple[Any, Path], tmp_path: Path) -> None:
    yolo, _ = detector
    data = write_shapes(tmp_path / "shapes", images=3)
    written = data.read_text()
    data.write_text(written.replace("  1: disc", "  1: disc\n  2: star"))
    with pytest.raises(ValueError, match=r"3 classes of .*got one for 2"):
        ps.tasks.ultralytics(yolo, data, imgsz=64)
    data.write_text(written.replace("  0: square\n  1: disc", "  0: disc\n  1: square"))
    with pytest.raises(ValueError, match=r"in the order .*square, disc, got disc, square"):
        ps.tasks.ultralytics(yolo, data, imgsz=64)
    data.write_text(written.replace("disc", "circle"))
    with pytest.warns(UserWarning, match="other names"):
        ps.tasks.ultralytics(yolo, data, imgsz=64)
    for part in ("train", "val"):
        data.write_text(written.replace(f"images/{part}", "images/nowhere"))
        with pytest.raises(ValueError, match=r"cannot read the data .*nowhere"):
            ps.tasks.ultralytics(yolo, data, imgsz=64)
    data.write_text(written)
    for file in (tmp_path / "shapes/labels").rglob("*.txt"):
        file.write_text("")
    with pytest.raises(ValueError, match="Expected labels with boxes in the part train"):
        ps.tasks.ultralytics(yolo, data, imgsz=64)


FEW_LAYERS = """
nc: 2
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [[2, 3], 1, Detect, [nc]]
"""
"""An architecture as ultralytics writes them, of which few layers must be timed."""


@pytest.mark.detectors
@installed
def test_the_tutorial_prunes_an_architecture_trains_it_and_exports_it(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data")
    (tmp_path / "few.yaml").write_text(FEW_LAYERS)
    ended = run(YOLO, tmp_path, "--weights", "few.yaml", "--data", str(data), "--imgsz", "128", "--latency", "90%")
    if "too noisy" in ended.stderr or "cannot be met" in ended.stderr:
        pytest.skip("other work on this machine: its times say nothing")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "for a limit of" in ended.stdout
    assert "mAP50-95: " in ended.stdout
    (exported,) = re.findall(r"^exported: (.*\.onnx)$", ended.stdout, flags=re.MULTILINE)
    assert Path(exported).stat().st_size < (tmp_path / "yolo/train/weights/best.pt").stat().st_size * 4


def test_classes_in_another_order_are_refused_and_other_names_are_said() -> None:
    own = {0: "square", 1: "disc", 2: "star"}
    check_names(own, ["square", "disc", "star"], "my.yaml")
    check_names({0: "0", 1: "1", 2: "2"}, own, "my.yaml")  # never trained
    for other in (["disc", "square", "star"], ["square", "star", "moon"]):
        with pytest.raises(ValueError, match=r"my\.yaml in the order .* square, disc, star, got .*Correct the names"):
            check_names(own, other, "my.yaml")
    with pytest.warns(UserWarning, match=r"other names than .*: square, disc, star, got Quadrat, Kreis, star"):
        check_names(own, {0: "Quadrat", 1: "Kreis", 2: "star"}, "my.yaml")


class Strided(torch.nn.Module):
    """As much of a network of ultralytics as is asked before it runs."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.norm, self.stride, self.yaml = torch.nn.BatchNorm2d(3), torch.tensor([8, stride]), {"channels": 3}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("of another version")


@pytest.mark.parametrize(("stride", "size", "other"), [(32, 100, 128), (32, 65, 96), (64, 96, 128)])
def test_a_size_that_the_stride_does_not_divide_is_not_the_fault_of_the_version(
    stride: int, size: int, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", SimpleNamespace(__version__="1.2.3"))
    yolo = SimpleNamespace(task="detect", task_map={}, model=Strided(stride))
    with pytest.raises(ValueError, match=rf"^Expected imgsz as a multiple of {stride}, got {size}; try {other}\.$"):
        ps.tasks.ultralytics(yolo, "my.yaml", imgsz=size)
    with pytest.raises(ValueError, match=r"cannot run in the installed ultralytics 1\.2\.3 .*classes after nc: there"):
        ps.tasks.ultralytics(yolo, "my.yaml", imgsz=other)


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    for asked in (lambda: ps.tasks.ultralytics(None, "my.yaml"), lambda: ps.tasks.pruned_trainer("detect")):
        with pytest.raises(ImportError, match=r"pip install prunesearch\[ultralytics\]"):
            asked()
