"""Networks of ultralytics: from a YOLO object to what a search needs, and back to a file that the package goes on with.

The package is an optional extra with a licence of its own (AGPL-3.0): it is imported when it is asked for, nothing of
it is copied or changed, and its `.pt` files, which are pickles, are read by itself alone.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunesearch.contracts import kind_of
from prunesearch.files import as_path, whole
from prunesearch.models.isolation import as_found
from prunesearch.models.misfit import told_as
from prunesearch.ranges import whole_number
from prunesearch.tasks.task import Task
from prunesearch.tasks.yolo import MEASURES, detection_agreement, detection_distance, yolo_task
from prunesearch.training.data import Data
from prunesearch.training.yolo_data import DataSets, package, version

NO_TRAINER = (
    "This network was pruned by prunesearch, and no yaml can say its widths, from which the usual trainer would build "
    "it anew. Give train(trainer=prunesearch.tasks.pruned_trainer({kind!r}), ...), which trains the network as it is."
)


@dataclass(frozen=True, eq=False)
class UltralyticsTask:
    """A network of ultralytics with its data, ready for `trace` and `search`.

    Attributes:
        model: The network, a copy of the YOLO object's: in eval mode, and with all weights but fixed ones trainable.
        example_inputs: (2, 3, imgsz, imgsz) images.
        data: Training images, with the package's augmentation of single images; the same without it to calibrate and
            score; and to test with those that the data name as `test`, or else as `val`. With `test`, those of `val`
            validate a finetuning.
        kind: What it is for, as the package calls it, such as `"detect"`.
    """

    model: nn.Module
    example_inputs: Tensor
    data: Data
    kind: str
    _training: Mapping[str, Any]

    @property
    def trainer(self) -> type[Any]:
        """What `YOLO(...).train(trainer=...)` takes for a pruned network; see `pruned_trainer`."""
        return pruned_trainer(self.kind)

    def save(self, model: nn.Module, path: str | Path) -> None:
        """Write a pruned network to a file that `ultralytics.YOLO(path)` reads; whole or not at all.

        The file has the package's own format, hence is a pickle of the network's classes; prunesearch reads none. The
        package validates, predicts and exports the network as it is; to train it, give `trainer=`, as it says
        otherwise (`pruned_trainer`).

        Args:
            model: What `result.best.build()` made of `model`, finetuned or not. It is not changed.
            path: A name that ends in `.pt`. An existing file is replaced.

        Raises:
            ValueError: The name ends otherwise.
            TypeError: Something else than such a network was given.
        """
        path = as_path(path)
        if path.suffix != ".pt":
            raise ValueError(
                f"Expected a name that ends in .pt, by which ultralytics knows its files; got {path.name}."
            )
        if not isinstance(model, type(self.model)):
            raise TypeError(f"Expected a network made of the task's {type(self.model).__name__}, got {kind_of(model)}.")
        content = {
            "model": self._written(model),
            "ema": None,
            "epoch": -1,
            "train_args": dict(self._training),
            "version": version(),
        }
        with whole(path) as draft:
            torch.save(content, draft)

    def _written(self, model: nn.Module) -> nn.Module:
        """A copy of a pruned network, as it goes into a file."""
        found: Any = copy.deepcopy(model).float().cpu().eval()
        found.criterion = None
        no_layer = [-1, 1, NO_TRAINER.format(kind=self.kind), []]
        found.yaml = {**found.yaml, "backbone": [no_layer, *found.yaml["backbone"]]}
        for module in found.modules():
            if hasattr(module, "forward_split"):  # takes the place of forward in exports, and reads what that does not
                module.c = module.cv1.conv.out_channels // 2
        return found


def ultralytics(
    yolo: Any,
    data: str | Path,
    *,
    imgsz: int = 640,
    calibration: int = 64,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> UltralyticsTask:
    """A detector, segmenter, pose estimator or classifier of ultralytics, and its data, for a search.

    The loss is the network's own criterion, the metric what the package's validator computes (mAP50-95, of classifiers
    the accuracy), and images and labels come from the package's own data sets, fitted into a square. Nothing is
    downloaded.

    Args:
        yolo: `ultralytics.YOLO("best.pt")`, trained for the classes of the data. It is not changed.
        data: The data set, as `YOLO.train(data=...)` takes it: a yaml file, or a folder of classes.
        imgsz: Height and width of the images.
        calibration: How many training images score structures and re-estimate BatchNorm statistics.
        seed: Decides which.
        settings: Of a training, by the package's names, in place of those that the network was trained with and its
            file holds: augmentation of single images (such as `{"fliplr": 0.0}`), gains of the loss, `single_cls`, and
            `classes`, the numbers of those whose labels count, in training, scoring and testing.

    Raises:
        ImportError: ultralytics is not installed.
        TypeError: `yolo` is no YOLO object.
        ValueError: The network has no BatchNorm any more, is of a kind that is not supported or of other classes than
            the data, or cannot run in the installed version or on images of this size; or images or labels are missing.
    """
    package("ultralytics")
    given = _checked(yolo)
    kind: str = yolo.task
    size = whole_number("imgsz", imgsz, at_least=32)
    model = _trainable(given)
    _check_size(model, size)
    images = torch.rand(2, _channels(model), size, size, generator=torch.Generator().manual_seed(0))
    answers = _checked_run(model, images, yolo)
    if kind != "classify":
        _check_answers(model, answers)
    stored = getattr(yolo, "ckpt", None) or {}
    sets = DataSets(kind, data, size, stored.get("train_args") or {}, _stride(model), settings)
    sets.check_classes(model)
    task = yolo_task(
        kind,
        model,
        settings=sets.settings,
        facts={**sets.facts, "end2end": bool(getattr(model, "end2end", False))},
        collate=sets.collate,
        validator=yolo.task_map[kind]["validator"],
    )
    scored = sets.loader("train")
    _check_loss(task, model, sets.labelled(scored))
    test = "test" if sets.facts.get("test") else "val"
    loaded = Data(
        train=sets.loader("train", augmented=True),
        calibrate_on=scored,
        test=sets.loader(test) if sets.facts.get(test) else None,
        validation=sets.loader("val") if test == "test" and sets.facts.get("val") else None,
        calibration=calibration,
        seed=seed,
        task=task,
    )
    training = {**(stored.get("train_args") or {}), **(settings or {}), "task": kind, "data": str(data), "imgsz": size}
    return UltralyticsTask(model, images, loaded, kind, training)


def pruned_trainer(kind: str = "detect") -> type[Any]:
    """A trainer of ultralytics that trains the network it is given: `YOLO("small.pt").train(trainer=...)`.

    The package's own trainers build a new network from the yaml that a file holds, and copy those weights that fit. No
    yaml says the widths of a pruned network, so its architecture would come back. These trainers differ from the
    package's in that one step.

    Args:
        kind: `"detect"`, `"segment"`, `"pose"`, `"obb"` or `"classify"`, as `YOLO(...).task` says.

    Raises:
        ImportError: ultralytics is not installed.
        ValueError: There is no such kind.
    """
    package("ultralytics")
    if kind not in MEASURES:
        raise ValueError(f"Expected kind as one of {', '.join(MEASURES)}, got {kind!r}.")
    return importlib.import_module("prunesearch.training.yolo_trainers").TRAINERS[kind]


def _checked(yolo: Any) -> nn.Module:
    """The network of a YOLO object.

    Raises:
        TypeError: It is none.
        ValueError: It is one that cannot be pruned.
    """
    if isinstance(yolo, (str, Path)):
        raise TypeError(
            f"Expected a YOLO object, got the path {str(yolo)!r}. Give ultralytics.YOLO({str(yolo)!r}), which reads "
            "its own files; prunesearch reads no pickles."
        )
    model, kind = getattr(yolo, "model", None), getattr(yolo, "task", None)
    if not hasattr(yolo, "task_map"):
        raise TypeError(f'Expected a YOLO object, such as ultralytics.YOLO("best.pt"), got {kind_of(yolo)}.')
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"Expected a YOLO with a network of torch, got one of {str(model)!r}. Give the .pt it came from."
        )
    if kind not in MEASURES:
        raise ValueError(f"Expected a YOLO for one of {', '.join(MEASURES)}, got one for {kind!r}.")
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ValueError(
            "This YOLO is fused: its BatchNorm has become part of the convolutions, so no statistics could be "
            'estimated anew. Load it again, ultralytics.YOLO("best.pt"), and give it before anything calls fuse().'
        )
    return model


def _trainable(given: nn.Module) -> nn.Module:
    """A copy in eval mode whose weights train: files keep them frozen. What decodes distributions of boxes is fixed."""
    model: Any = copy.deepcopy(given).float().eval()
    model.criterion = None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".dfl." not in name)
    return model


def _channels(model: Any) -> int:
    return int(model.yaml.get("channels", 3))


def _stride(model: Any) -> int:
    return max(32, int(torch.as_tensor(model.stride).max()))


def _check_size(model: Any, size: int) -> None:
    """Make sure that the maps of features, each half as large as the one before, fit together.

    Raises:
        ValueError: They do not.
    """
    stride = int(torch.as_tensor(model.stride).max())
    if size % stride:
        raise ValueError(f"Expected imgsz as a multiple of {stride}, got {size}; try {-(-size // stride) * stride}.")


def _checked_run(model: nn.Module, images: Tensor, yolo: Any) -> Any:
    """What the installed version returns for a network that another version may have written.

    Raises:
        ValueError: It cannot run it.
    """

    def said(error: Exception) -> str:  # whatever code of another version meets
        written = (getattr(yolo, "ckpt", None) or {}).get("version", "another version")
        return (
            f"This YOLO cannot run in the installed ultralytics {version()} ({type(error).__name__}: {error}); its "
            f"file is of {written}. Install that version, or build the network anew and copy the weights: copy the "
            "yaml of its architecture, such as the package's yolov8.yaml, to yolov8n-mine.yaml, write the number of "
            'your classes after nc: there, and give YOLO("yolov8n-mine.yaml").load("best.pt").'
        )

    with told_as(said), as_found(model), torch.no_grad():
        answers = model(images)
    return answers


def _check_answers(model: nn.Module, answers: Any) -> None:
    """Make sure that a detector's answers can be compared: that they say classes and boxes of each place.

    Raises:
        ValueError: They do not.
    """
    refusal = (
        f"Expected a YOLO, got a {type(model).__name__}, for which there is no task: its answers are not classes "
        "and boxes of each place of an image. prunesearch.trace takes it; give Data(..., task=) a task of your own."
    )
    with told_as(lambda error: refusal):
        detection_distance(answers, answers, 1.0)
        detection_agreement(answers, answers)


def _check_loss(task: Task, model: nn.Module, batch: Any) -> None:
    """Make sure that the network's criterion judges its answers.

    Raises:
        ValueError: It does not.
    """
    loss: Any = task.loss

    def said(error: Exception) -> str:
        return (
            f"Expected a network whose criterion judges its answers; that of this {type(model).__name__} fails on an "
            f"image of the data ({type(error).__name__}: {error}). Train it on these data first."
        )

    with told_as(said), as_found(model), torch.no_grad():
        loss(model(task.inputs(batch)), batch)
