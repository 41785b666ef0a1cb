"""A YOLO on blood cells and a U-Net on streets, each with its data, its training and its metric, for detectors.py."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import realdata
import tasks
import torch
import unet
from PIL import Image
from torch import nn

import prunesearch as ps
from prunesearch.training.evaluation import metric_on_test

SIZE = 160
"""Height and width of images of blood cells."""


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        first: Epochs of the unpruned network.
        more: Epochs after it was pruned.
        trials: Structures that a search scores.
    """

    first: int
    more: int
    trials: int

    def epochs(self, start: Start) -> int:
        """Epochs of an arm: all arms have had equally many in the end."""
        return self.more + (self.first if start.weights == "random" else 0)


@dataclass(frozen=True)
class Start:
    """What an arm trains.

    Attributes:
        model: A network.
        size: Height and width of the images.
        weights: Random ones, those of the unpruned network, or what pruning left of these.
        structure: Widths of its groups, where a search found them.
    """

    model: nn.Module
    size: tuple[int, int]
    weights: Literal["random", "unpruned", "pruned"]
    structure: Sequence[int] | None = None


class Place(Protocol):
    """A network and its data, with one seed.

    Attributes:
        metric: Its name.
        effort: How much is done.
        seed: Of everything.
        size: Height and width of the images.
        multiple: Of widths; and of heights and widths of images.
    """

    metric: str
    effort: Effort
    seed: int
    size: tuple[int, int]
    multiple: tuple[int, int]

    @property
    def data(self) -> ps.Data:
        """Images that train, score and judge."""
        ...

    def unpruned(self) -> tuple[nn.Module, float]:
        """The network, trained once, and the CPU-seconds that this took."""
        ...

    def narrower(self, factor: float) -> nn.Module:
        """One of the same family, with random weights."""
        ...

    def last_layers(self, model: nn.Module) -> list[nn.Module]:
        """Those whose numbers of outputs stay."""
        ...

    def without_chunks(self, model: nn.Module) -> nn.Module:
        """The same function by blocks that do not cut a tensor into channels, for libraries that cannot follow it."""
        ...

    def trained(self, start: Start) -> nn.Module:
        """What becomes of it."""
        ...

    def judged(self, model: nn.Module, size: tuple[int, int]) -> float:
        """The metric on the test images."""
        ...


class Yolo:
    """YOLOv8n on BCCD, trained by ultralytics.

    Args:
        root: Folder of the archives.
        cache: Folder of images and of unpruned networks.
        effort: How much is done.
        seed: Of everything.
    """

    metric, size, multiple = "mAP50-95", (SIZE, SIZE), (2, 32)
    packages = ("ultralytics", "torch-pruning")

    def __init__(self, root: Path, cache: Path, effort: Effort, seed: int) -> None:
        self._package, self.effort, self.seed = importlib.import_module("ultralytics"), effort, seed
        self._images = written_bccd(root, cache)
        self._kept = cache / "detectors" / f"yolo-{SIZE}-{effort.first}-{seed}.pt"

    @functools.cached_property
    def _task(self) -> Any:
        if not self._kept.exists():
            start = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                yolo = self._package.YOLO("yolov8n.yaml")
                train(yolo, self._images, epochs=self.effort.first, folder=Path(folder), seed=self.seed)
                draft = self._kept.with_suffix(".draft")
                shutil.copyfile(Path(folder) / "train" / "weights" / "best.pt", draft)
            tasks.save(time.process_time() - start, self._kept.with_suffix(".seconds"))
            draft.replace(self._kept)
        yolo = self._package.YOLO(str(self._kept))
        return ps.tasks.ultralytics(yolo, self._images, imgsz=SIZE, seed=self.seed)

    @property
    def data(self) -> ps.Data:
        """Training images score; those that the description calls `test` judge."""
        data: ps.Data = self._task.data
        return data

    def unpruned(self) -> tuple[nn.Module, float]:
        """The network, trained once, and the CPU-seconds that this took."""
        return self._task.model, json.loads(self._kept.with_suffix(".seconds").read_text())

    def narrower(self, factor: float) -> nn.Module:
        """YOLOv8 with another factor of its widths."""
        package = importlib.import_module("ultralytics.nn.tasks")
        layout = package.yaml_model_load("yolov8n.yaml")
        depth, width, most = layout["scales"]["n"]
        torch.manual_seed(self.seed)
        scales = {"n": [depth, width * factor, most]}
        found: nn.Module = package.DetectionModel({**layout, "scales": scales}, nc=3, verbose=False)
        return found

    def last_layers(self, model: Any) -> list[nn.Module]:
        """Those of the head."""
        return [module for module in model.model[-1].modules() if isinstance(module, nn.Conv2d)]

    def without_chunks(self, model: Any) -> nn.Module:
        """With two convolutions where blocks have one, whose outputs they cut in two; as in Torch-Pruning's example."""
        whole = importlib.import_module("ultralytics.nn.modules.block").C2f
        model = copy.deepcopy(model)
        for i, block in enumerate(model.model):
            if isinstance(block, whole):
                model.model[i] = InTwo(block)
        return model

    def trained(self, start: Start) -> nn.Module:
        """By the package's own trainer, which takes the network as it is."""
        with tempfile.TemporaryDirectory() as folder:
            found: nn.Module = train(
                self._loaded(start.model, Path(folder)), self._images, epochs=self.effort.epochs(start),
                folder=Path(folder), imgsz=start.size[0], seed=self.seed, trainer=self._task.trainer,
            ).model  # fmt: skip
        return found

    def judged(self, model: nn.Module, size: tuple[int, int]) -> float:
        """By the package's own validator."""
        with tempfile.TemporaryDirectory() as folder:
            settings = {"split": "test", "imgsz": size[0], "plots": False, "workers": 0, "verbose": False}
            found = self._loaded(model, Path(folder)).val(data=str(self._images), project=folder, **settings)
        return float(found.results_dict["metrics/mAP50-95(B)"])

    def _loaded(self, model: nn.Module, folder: Path) -> Any:
        file = folder / "start.pt"
        self._task.save(model, file)
        return self._package.YOLO(str(file))


class InTwo(nn.Module):
    """A block of YOLOv8 (`C2f`), whose first convolution became two.

    Args:
        block: Of ultralytics. Where it stands in the network (`i`, `f`, `type`) is kept.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        for name in ("i", "f", "type"):
            setattr(self, name, getattr(block, name))
        self.first, self.second = (_part(block.cv1, half) for half in torch.arange(2 * block.c).chunk(2))
        self.inner, self.last = block.m, block.cv2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the block does."""
        found = [self.first(x), self.second(x)]
        for layer in self.inner:
            found.append(layer(found[-1]))
        out: torch.Tensor = self.last(torch.cat(found, 1))
        return out


def _part(layer: Any, channels: torch.Tensor) -> nn.Module:
    """Some outputs of a convolution, its BatchNorm and activation."""
    part: Any = copy.deepcopy(layer)
    part.conv.out_channels = part.bn.num_features = len(channels)
    part.conv.weight = nn.Parameter(layer.conv.weight.detach()[channels].clone())
    for name in ("weight", "bias"):
        setattr(part.bn, name, nn.Parameter(getattr(layer.bn, name).detach()[channels].clone()))
    for name in ("running_mean", "running_var"):
        setattr(part.bn, name, getattr(layer.bn, name)[channels].clone())
    found: nn.Module = part
    return found


def train(yolo: Any, data: Path, *, epochs: int, folder: Path, **more: Any) -> Any:
    """Train by ultralytics; the weights of the last epoch are in `train/weights/best.pt` of the folder.

    A step of the optimizer follows each batch (`nbs`): there are few images. Nothing is validated before the end.
    """
    settings = {
        "imgsz": SIZE, "batch": 8, "nbs": 8, "val": False, "save": False, "cache": "ram", "plots": False, "amp": False,
        "workers": 0, "verbose": False, **more,
    }  # fmt: skip
    yolo.train(data=str(data), epochs=epochs, project=str(folder.resolve()), name="train", exist_ok=True, **settings)
    return yolo


class Unet:
    """The U-Net of `unet.py` on CamVid, trained by `ps.finetune`.

    Args:
        root: Folder of the archive.
        cache: Folder of images and of unpruned networks.
        effort: How much is done.
        seed: Of everything.
    """

    metric, size, multiple = "mIoU", (144, 192), (1, 8)
    packages = ("torch-pruning",)

    def __init__(self, root: Path, cache: Path, effort: Effort, seed: int) -> None:
        self.effort, self.seed = effort, seed
        self._train, self._test = (unet.street_scenes(root, cache, part) for part in ("train", "test"))
        self._kept = cache / f"unet-{seed}.safetensors"

    @functools.cached_property
    def data(self) -> ps.Data:
        """Training images score; nothing is validated before the end."""
        return self._at(self.size)

    def unpruned(self) -> tuple[nn.Module, float]:
        """The network, trained once, and the CPU-seconds that this took."""
        model = unet.trained(self._train, self._kept, self.seed, self._recipe(self.effort.first))
        return model, json.loads(self._kept.with_suffix(".seconds").read_text())

    def narrower(self, factor: float) -> nn.Module:
        """The same levels with fewer channels."""
        torch.manual_seed(self.seed)
        return unet.UNet([max(1, int(width * factor)) for width in unet.WIDTHS])

    def last_layers(self, model: Any) -> list[nn.Module]:
        """The head."""
        return [model.head]

    def without_chunks(self, model: nn.Module) -> nn.Module:
        """It has none."""
        return copy.deepcopy(model)

    def trained(self, start: Start) -> nn.Module:
        """By the recipe of the unpruned network; with what it knows already, at a lower rate."""
        recipe = self._recipe(self.effort.epochs(start))
        return ps.finetune(
            start.model, self._at(start.size), recipe=recipe if start.weights == "random" else replace(recipe, lr=0.02),
            teacher=self.unpruned()[0] if start.weights == "pruned" else None, seed=self.seed, progress=False,
        )  # fmt: skip

    def judged(self, model: nn.Module, size: tuple[int, int]) -> float:
        """Masks keep their own size."""
        return metric_on_test(model, self._at(size))[0]

    def _recipe(self, epochs: int) -> ps.Recipe:
        return replace(unet.RECIPE, epochs=epochs)

    def _at(self, size: tuple[int, int]) -> ps.Data:
        def fewer(images: torch.Tensor) -> torch.Tensor:
            if size == images.shape[2:]:
                return images
            return nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)

        train, test = ((fewer(images), masks) for images, masks in (self._train, self._test))
        task = ps.tasks.segmentation(ignore_index=unet.VOID)
        return ps.Data(train=train, test=test, calibration=128, seed=self.seed, task=task)


NETWORKS: Mapping[str, tuple[type[Yolo] | type[Unet], Effort]] = {
    "yolo": (Yolo, Effort(first=50, more=16, trials=60)),
    "unet": (Unet, Effort(first=unet.RECIPE.epochs, more=6, trials=60)),
}


def written_bccd(root: Path, cache: Path) -> Path:
    """BCCD in the form that ultralytics reads; the yaml file."""
    folder = cache / "detectors" / "bccd"
    description = folder / "bccd.yaml"
    if description.exists():
        return description
    names = [str(name) for name in realdata.Archive(root / "bccd.npz", cache).array("classes")]
    for part in ("train", "val", "test"):
        images, boxes = realdata.bccd(root, cache, part)
        for where in ("images", "labels"):
            (folder / where / part).mkdir(parents=True, exist_ok=True)
        for i, (image, inside) in enumerate(zip(images, boxes, strict=True)):
            Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(
                folder / "images" / part / f"{i}.png"
            )
            lines = []
            for (left, top, right, bottom), kind in zip(inside.corners.tolist(), inside.classes.tolist(), strict=True):
                box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
                lines.append(" ".join([str(kind), *(f"{value:.6f}" for value in box)]))
            (folder / "labels" / part / f"{i}.txt").write_text("\n".join(lines) + "\n")
    listed = "".join(f"  {i}: {name}\n" for i, name in enumerate(names))
    description.write_text(
        f"path: {folder.resolve()}\ntrain: images/train\nval: images/val\ntest: images/test\nnames:\n{listed}"
    )
    return description
