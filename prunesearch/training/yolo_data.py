"""The data sets of ultralytics: its own description, images, labels and augmentation, as examples of a task."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, default_collate

from prunesearch.models.misfit import told_as
from prunesearch.tasks.yolo import as_batch

_GAINS = ("box", "cls", "dfl", "pose", "kobj", "rle", "angle", "overlap_mask", "mask_ratio", "single_cls")
"""Settings of a training that decide what the loss and the labels are."""
_AUGMENTATION = (
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "bgr"),
    *("auto_augment", "erasing"),  # of classifiers
)
"""Settings of a training that decide how an image is changed, without others."""
_TAKEN = (*_GAINS, *_AUGMENTATION, "classes")
_OWN = "augmentations"
"""Of albumentations, as files hold them; the package has no default for it, and takes it all the same."""
_STEADY = {"mosaic": 0.0, "mixup": 0.0, "cutmix": 0.0, "copy_paste": 0.0}
"""Augmentation that mixes several images draws on what was read before, so a training could not be resumed."""


def package(name: str) -> Any:
    """A module of ultralytics.

    Raises:
        ImportError: It is not installed; the message says how to.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("ultralytics"):
            raise
        raise ImportError(
            "ultralytics is not installed, which this needs; run: pip install prunesearch[ultralytics]"
        ) from error


def version() -> str:
    """Of the installed package."""
    return package("ultralytics").__version__


class DataSets:
    """The package's own data sets of one description.

    Args:
        kind: What they are for.
        data: The description, or a folder of classes.
        size: Of the images.
        stored: Settings of the training that the network comes from.
        stride: Of the network.
        settings: In place of the stored ones.

    Raises:
        ValueError: The package cannot read it, or settings are none that can be given, or have no such values.
    """

    def __init__(
        self,
        kind: str,
        data: str | Path,
        size: int,
        stored: Mapping[str, Any],
        stride: int,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._kind, self._data, self._stride = kind, data, stride
        known = package("ultralytics.utils").DEFAULT_CFG_DICT
        given = _checked(settings or {}, known)
        own = {name: stored[name] for name in _TAKEN if name in stored and name in known} | given
        if stored.get(_OWN) is not None:
            own[_OWN] = stored[_OWN]
        wanted = {"task": kind, "mode": "val", "imgsz": size, "rect": False, "plots": False, "batch": 1, "workers": 0}
        off = {name: value for name, value in _STEADY.items() if name in known}
        try:
            self.settings = package("ultralytics.cfg").get_cfg(overrides={**own, **wanted, **off})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"ultralytics refuses {_said(error)}. Give settings= with a value that it takes."
            ) from error
        self.facts: dict[str, Any] = self._asked(self._description)
        if self.settings.single_cls:  # as the package's trainer has it: what there is, and not of which class
            self.facts = {**self.facts, "nc": 1, "names": {0: "item"}}

    @property
    def collate(self) -> Callable[[list[Any]], dict[str, Any]]:
        """The package's function that puts samples together."""
        if self._kind == "classify":
            return default_collate
        return package("ultralytics.data.dataset").YOLODataset.collate_fn

    def check_classes(self, model: Any) -> None:
        """Make sure that the network is for the classes of the data. A warning says it where they have other names.

        Raises:
            ValueError: It is for another number of classes, or for these in another order.
        """
        head = model.model[-1]
        own = int(head.linear.out_features if self._kind == "classify" else head.nc)
        if own != self.facts["nc"]:
            raise ValueError(
                f"Expected a YOLO that was trained for the {self.facts['nc']} classes of {self._data}, got one for "
                f"{own}. Train it on these data first."
            )
        check_names(getattr(model, "names", None), self.facts["names"], self._data)

    def loader(self, part: str, *, augmented: bool = False) -> DataLoader[Any]:
        """One part, `"train"`, `"val"` or `"test"`, as examples that the task reads.

        Raises:
            ValueError: It has no images, or no boxes.
        """
        found: Any = self._asked(lambda: self._dataset(part, "train" if augmented else "val"))
        if len(found) == 0:
            raise ValueError(f"Expected images in the part {part} of {self._data}, found none.")
        if self._kind != "classify" and not any(len(label["cls"]) for label in found.labels):
            kept = self.settings.classes
            of = "" if kept is None else f" of the classes {kept}, as the network was trained for or settings say,"
            raise ValueError(
                f"Expected labels with boxes{of} in the part {part} of {self._data}, found none in {len(found)} "
                "images. Put a .txt file of lines 'class x y width height' beside each image, in the folder labels."
            )
        return DataLoader(found, collate_fn=as_batch)

    def labelled(self, loader: DataLoader[Any]) -> dict[str, Any]:
        """A batch of one image that has labels, of what `loader` returned."""
        found: Any = loader.dataset
        labels = None if self._kind == "classify" else found.labels
        index = 0 if labels is None else next(i for i, label in enumerate(labels) if len(label["cls"]))
        return as_batch([self._asked(lambda: found[index])])

    def _description(self) -> dict[str, Any]:
        utils = package("ultralytics.data.utils")
        if self._kind == "classify":
            if not Path(self._data).is_dir():
                raise FileNotFoundError(f"there is no folder {self._data}")
            return utils.check_cls_dataset(self._data)
        return utils.check_det_dataset(str(self._data), autodownload=False)

    def _dataset(self, part: str, mode: str) -> Any:
        settings, where = copy.copy(self.settings), self.facts[part]
        if self._kind == "classify":
            make = package("ultralytics.data.dataset").ClassificationDataset
            return make(str(where), settings, augment=mode == "train", prefix=part)
        build = package("ultralytics.data").build_yolo_dataset
        return build(settings, where, 1, self.facts, mode=mode, rect=False, stride=self._stride)

    def _asked(self, function: Callable[[], Any]) -> Any:
        with told_as(
            lambda error: (
                f"ultralytics cannot read the data {self._data}: {_said(error)}. Expected what its train(data=...) "
                "takes; correct the paths in it."
            )
        ):
            found = function()
        return found


def _said(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _checked(settings: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the user gives.

    Raises:
        ValueError: One is none of a training's that this package heeds.
    """
    names = [name for name in _TAKEN if name in known]
    for name in settings:
        if name in _STEADY:
            raise ValueError(
                f"Expected settings of single images, got {name}, which mixes several. Train with the trainer of "
                "prunesearch.tasks.pruned_trainer to have it."
            )
        if name not in names:
            raise ValueError(f"Expected settings of {', '.join(names)}, got {name!r}.")
    return dict(settings)


def check_names(own: Any, given: Any, data: str | Path) -> None:
    """Compare the names of a network's classes with those of the data. A warning says it where they are others.

    Args:
        own: Of the network, as the package keeps them: by number, or in a list. Networks that were never trained have
            numbers for names, which say nothing.
        given: Of the data.
        data: What they are called, for the message.

    Raises:
        ValueError: A class has another number in the data than in the network.
    """
    ours, theirs = _numbered(own), _numbered(given)
    if ours == theirs or all(name == str(number) for number, name in ours.items()):
        return
    said = f"{', '.join(ours.values())}, got {', '.join(theirs.values())}"
    known = set(ours.values())
    if any(name in known and ours.get(number) != name for number, name in theirs.items()):
        raise ValueError(
            f"Expected the classes of {data} in the order in which the network was trained for them, {said}. Correct "
            "the names, if the labels have the network's numbers; else train it on these data first."
        )
    warnings.warn(
        f"The classes of {data} have other names than those that the network was trained for: {said}. If they mean the "
        "same, all is well; else train it on these data first.",
        stacklevel=4,
    )


def _numbered(names: Any) -> dict[int, str]:
    items = names.items() if isinstance(names, Mapping) else enumerate(names or ())
    return {int(number): str(name) for number, name in sorted(items)}
