"""Detectors and segmenters on real images: what a search is worth beside simpler ways to the same cost.

A YOLOv8n of ultralytics on blood cells (BCCD, 160 pixels) and a U-Net of segmentation_models_pytorch on streets
(CamVid, 144 x 192) are trained, brought to 70, 50 and 30 % of their multiply-accumulates by each arm, trained on, and
judged on test images that nothing was chosen by.

    pip install 'prunesearch[ultralytics]' segmentation-models-pytorch torch-pruning
    python benchmarks/detectors.py --data-root DATA --cells yolo-50-ours yolo-50-sibling.1
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cells
import numpy as np
import realdata
import tasks
import torch
from PIL import Image
from torch import nn

import prunesearch as ps
from prunesearch.evaluators.accuracy import measured_on
from prunesearch.training.scratch import drawn_anew

OUT = Path(__file__).parent / "results" / "detectors"
SEEDS, SHARES = (0, 1, 2), (70, 50, 30)
SEARCHED: Mapping[str, tuple[str, ps.Scoring]] = {
    "ours": ("surrogate", ps.Scoring()),
    "uniform": ("uniform", ps.Scoring()),
    "l1-global": ("global", ps.Scoring(criterion="l1")),
}
"""Arms that are searches: the searcher, and what scores."""
WAYS = (*SEARCHED, "torch-pruning", "sibling", "resolution", "scratch")
"""What arms do. `scratch` trains the structure of `ours` from random weights for as long as all stages together."""
SIZE = 160
SMALLER = ("tu-mobilenetv2_100", "tu-mobilenetv2_075", "tu-mobilenetv2_050", "tu-mobilenetv2_035")
DECODER = (256, 128, 64, 32, 16)


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        first: Epochs of the unpruned network.
        more: Epochs after it was pruned.
        trials: Structures that a search scores.
        parts: Training images, of all.
    """

    first: int
    more: int
    trials: int
    parts: float = 1.0


def trained_wholly(effort: Effort) -> int:
    """Epochs of what is trained from random weights, as long as the others in all."""
    return effort.first + effort.more


class Yolo:
    """YOLOv8n on BCCD, trained by ultralytics."""

    name, metric = "yolo", "mAP50-95"

    def __init__(self, options: argparse.Namespace, effort: Effort, seed: int) -> None:
        self._package = importlib.import_module("ultralytics")
        self._effort, self._seed, self._work = effort, seed, options.cache / "detectors"
        self._data = written_bccd(options.data_root, options.cache)
        self._base = self._work / f"yolo-{seed}-{effort.first}-{effort.parts}"

    def base(self) -> Any:
        """The unpruned network, trained once."""
        best = self._base / "train" / "weights" / "best.pt"
        if not best.exists():
            self._train(self._package.YOLO("yolov8n.yaml"), self._effort.first, self._base)
        return self._package.YOLO(str(best))

    def searched(self, way: str, share: int) -> tuple[float, dict[str, Any]]:
        """An arm that searches."""
        searcher, scoring = SEARCHED[way]
        task = ps.tasks.ultralytics(self.base(), self._data, imgsz=SIZE, seed=self._seed)
        network = ps.trace(task.model, task.example_inputs, round_to=2)
        found = ps.search(
            network, task.data, budget=f"macs={share}%", searcher=searcher, scoring=scoring, seed=self._seed,
            n_trials=self._effort.trials, build_with="reconstructed",
        )  # fmt: skip
        return self._finished(task, found.best.build(), self._effort.more), {"structure": list(found.best.structure)}

    def scratch(self, structure: list[int]) -> float:
        """A structure from random weights."""
        task = ps.tasks.ultralytics(self.base(), self._data, imgsz=SIZE, seed=self._seed)
        network = ps.trace(task.model, task.example_inputs, round_to=2)
        small = ps.slim(network, tuple(structure), l1(network))
        return self._finished(task, drawn_anew(small, self._seed), trained_wholly(self._effort))

    def torch_pruning(self, share: int) -> float:
        """One ranking of all channels, by the other library."""
        task = ps.tasks.ultralytics(self.base(), self._data, imgsz=SIZE, seed=self._seed)
        heads = [module for module in task.model.model[-1].modules() if isinstance(module, nn.Conv2d)]
        small = by_torch_pruning(task.model, task.example_inputs[:1], share, heads)
        return self._finished(task, small, self._effort.more)

    def sibling(self, share: int) -> float:
        """A narrower network of the same family, trained for as long in all."""
        tasks_of, yaml = (importlib.import_module(f"ultralytics.{name}") for name in ("nn.tasks", "utils"))
        layout = tasks_of.yaml_model_load("yolov8n.yaml")
        depth, width, most = layout["scales"]["n"]
        image = torch.rand(1, 3, SIZE, SIZE)
        limit = ps.count(self.base().model.eval(), image).macs * share / 100
        for step in range(64):
            layout["scales"] = {"n": [depth, width * (1 - step / 64), most]}
            if ps.count(tasks_of.DetectionModel(layout, nc=3, verbose=False).eval(), image).macs <= limit:
                break
        file = self._work / f"sibling-{share}" / "yolov8n.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        yaml.YAML.save(file, layout)
        yolo = self._package.YOLO(str(file))
        return self._judged(self._train(yolo, trained_wholly(self._effort), self._fresh(f"sibling-{share}")))

    def resolution(self, share: int) -> float:
        """The unpruned network on fewer pixels."""
        size = 32 * max(1, int(SIZE * (share / 100) ** 0.5) // 32)
        return self._judged(self._train(self.base(), self._effort.more, self._fresh(f"at-{size}"), size), size)

    def _finished(self, task: Any, small: nn.Module, epochs: int) -> float:
        folder = self._fresh("pruned")
        folder.mkdir(parents=True)
        task.save(small, folder / "small.pt")
        return self._judged(
            self._train(self._package.YOLO(str(folder / "small.pt")), epochs, folder, trainer=task.trainer)
        )

    def _fresh(self, name: str) -> Path:
        return next(p for i in itertools.count() if not (p := self._work / f"{name}-{self._seed}-{i}").exists())

    def _train(self, yolo: Any, epochs: int, folder: Path, size: int = SIZE, **more: Any) -> Any:
        more |= {"imgsz": size, "seed": self._seed, "fraction": self._effort.parts}
        return train(yolo, self._data, epochs=epochs, folder=folder, **more)

    def _judged(self, yolo: Any, size: int = SIZE) -> float:
        where = str(self._fresh("judged"))
        found = yolo.val(data=str(self._data), split="test", imgsz=size, plots=False, project=where, verbose=False)
        return float(found.results_dict["metrics/mAP50-95(B)"])


def train(yolo: Any, data: Path, *, epochs: int, folder: Path, **more: Any) -> Any:
    """Train by ultralytics; the weights are in `train/weights` of the folder."""
    settings = {"imgsz": SIZE, "batch": 16, "plots": False, "amp": False, "workers": 0, "verbose": False, **more}
    yolo.train(data=str(data), epochs=epochs, project=str(folder.resolve()), name="train", exist_ok=True, **settings)
    return yolo


class Unet:
    """A U-Net with a MobileNetV2 as its encoder on CamVid, trained by `ps.finetune`."""

    name, metric = "unet", "mIoU"

    def __init__(self, options: argparse.Namespace, effort: Effort, seed: int) -> None:
        self._package = importlib.import_module("segmentation_models_pytorch")
        self._effort, self._seed = effort, seed
        self._kept = options.cache / f"unet-{seed}-{effort.first}-{effort.parts}.safetensors"
        parts = {part: realdata.camvid(options.data_root, options.cache, part) for part in ("train", "val", "test")}
        ready = {part: (realdata.normalised(images), masks) for part, (images, masks) in parts.items()}
        n = round(len(ready["train"][0]) * effort.parts)
        self._parts = {**ready, "train": (ready["train"][0][:n], ready["train"][1][:n])}
        self._data = self._at(1.0)

    def base(self) -> nn.Module:
        """The unpruned network, trained once."""
        model = self._made(SMALLER[0], DECODER)
        if not self._kept.exists():
            trained = self._trained(model, self._data, self._effort.first)
            ps.save(trained, self._kept)
        return ps.load(self._kept, model).eval()

    def searched(self, way: str, share: int) -> tuple[float, dict[str, Any]]:
        """An arm that searches."""
        searcher, scoring = SEARCHED[way]
        model = self.base()
        found = ps.search(
            model, self._data, budget=f"macs={share}%", searcher=searcher, scoring=scoring, seed=self._seed,
            n_trials=self._effort.trials, build_with="reconstructed",
        )  # fmt: skip
        small = self._trained(found.best.build(), self._data, self._effort.more, teacher=model)
        return self._judged(small, self._data), {"structure": list(found.best.structure)}

    def scratch(self, structure: list[int]) -> float:
        """A structure from random weights."""
        network = ps.trace(self.base(), self._data.examples())
        small = drawn_anew(ps.slim(network, tuple(structure), l1(network)), self._seed)
        return self._judged(self._trained(small, self._data, trained_wholly(self._effort)), self._data)

    def torch_pruning(self, share: int) -> float:
        """One ranking of all channels, by the other library."""
        model = self.base()
        head = [module for module in model.segmentation_head.modules() if isinstance(module, nn.Conv2d)]  # type: ignore[union-attr]
        small = by_torch_pruning(model, self._data.examples(1), share, head)
        return self._judged(self._trained(small, self._data, self._effort.more, teacher=self.base()), self._data)

    def sibling(self, share: int) -> float:
        """The widest of narrower networks of the same family, trained for as long in all."""
        image = self._data.examples(1)
        limit = ps.count(self.base(), image).macs * share / 100
        made = (
            self._made(encoder, [max(8, int(width * factor / 8)) for width in DECODER])
            for encoder in SMALLER
            for factor in range(8, 0, -1)
        )
        costs = ((ps.count(model.eval(), image).macs, model) for model in made)
        _, model = max(((cost, model) for cost, model in costs if cost <= limit), key=lambda each: each[0])
        return self._judged(self._trained(model, self._data, trained_wholly(self._effort)), self._data)

    def resolution(self, share: int) -> float:
        """The unpruned network on fewer pixels; masks are judged at their own size."""
        data = self._at((share / 100) ** 0.5)
        return self._judged(self._trained(self.base(), data, self._effort.more), data)

    def _at(self, scale: float) -> ps.Data:
        def fewer(images: torch.Tensor) -> torch.Tensor:
            size = [32 * max(1, round(side * scale / 32)) for side in images.shape[2:]]
            return nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)

        found = {part: (fewer(images), masks) for part, (images, masks) in self._parts.items()}
        return ps.Data(
            train=found["train"], validation=found["val"], test=found["test"], calibration=128, seed=self._seed,
            task=ps.tasks.segmentation(ignore_index=11),
        )  # fmt: skip

    def _made(self, encoder: str, decoder: Any) -> nn.Module:
        torch.manual_seed(self._seed)
        return self._package.Unet(encoder, encoder_weights=None, decoder_channels=tuple(decoder), classes=11)

    def _trained(self, model: nn.Module, data: ps.Data, epochs: int, teacher: nn.Module | None = None) -> nn.Module:
        recipe = ps.Recipe(epochs=epochs, batch_size=16, optimizer="adamw", lr=2e-3, weight_decay=1e-2)
        return ps.finetune(model, data, recipe=recipe, teacher=teacher, seed=self._seed)

    def _judged(self, model: nn.Module, data: ps.Data) -> float:
        return measured_on(model, data.examples_of(data.test_set()), batch_size=32)


NETWORKS: Mapping[str, type[Yolo] | type[Unet]] = {"yolo": Yolo, "unet": Unet}


def l1(network: ps.Network) -> Any:
    """Which channels stay where weights are drawn anew anyway."""
    return importlib.import_module("prunesearch.evaluators.channels").make_criterion("l1").rank(network)


def by_torch_pruning(model: nn.Module, image: torch.Tensor, share: int, kept: Sequence[nn.Module]) -> nn.Module:
    """Narrow a network step by step, by one ranking of all channels, until it costs so little."""
    package = importlib.import_module("torch_pruning")
    limit = ps.count(model, image).macs * share / 100
    model.train()  # of a detector, so that its answer is plain tensors
    steps = 50
    pruner = package.pruner.MetaPruner(
        model, image, importance=package.importance.MagnitudeImportance(p=1), global_pruning=True, pruning_ratio=0.95,
        iterative_steps=steps, ignored_layers=list(kept),
    )  # fmt: skip
    for _ in range(steps):
        pruner.step()
        if ps.count(model.eval(), image).macs <= limit:
            return model
        model.train()
    raise RuntimeError(f"Torch-Pruning does not come to {share} % of the multiply-accumulates.")


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


def measure(options: argparse.Namespace, effort: Effort, arm: str, seed: int) -> tuple[dict[str, Any], str]:
    """One cell: what is reached on the test images, or why nothing is."""
    name, share, way = arm.split("-", 2)
    network = NETWORKS[name](options, effort, seed)
    more: dict[str, Any] = {}
    try:
        if way in SEARCHED:
            reached, more = network.searched(way, int(share))
        elif way == "scratch":
            ours = options.out / f"{name}-{share}-ours.{seed}.json"
            if not ours.exists():
                raise SystemExit(f"Expected {ours.name}, whose structure this trains. Measure {ours.stem} first.")
            reached = network.scratch(json.loads(ours.read_text())["structure"])
        else:
            reached = getattr(network, way.replace("-", "_"))(int(share))
    except Exception as error:
        if way != "torch-pruning":
            raise
        return {"failure": f"{type(error).__name__}: {error}"}, f"failed: {error}"
    return {network.metric: reached, **more}, f"{network.metric} {reached:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    arms = [f"{name}-{share}-{way}" for name in NETWORKS for share in SHARES for way in WAYS]
    grid = cells.Grid(arms, SEEDS, "ARM.SEED such as yolo-50-ours.0")
    parser.add_argument("--cells", nargs="+", default=arms, help="arms, or cells such as yolo-50-ours.0; default: all")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--first", type=int, default=100, help="epochs of the unpruned network")
    parser.add_argument("--more", type=int, default=40, help="epochs after pruning")
    parser.add_argument("--n-trials", type=int, default=200)
    parser.add_argument("--train-share", type=float, default=1.0, help="of the training images, to try things out")
    options = parser.parse_args()
    effort = Effort(options.first, options.more, options.n_trials, options.train_share)
    chosen = grid.chosen(options.cells)
    facts = {
        "first": effort.first,
        "more": effort.more,
        "trials": effort.trials,
        "train_share": effort.parts,
        **cells.conditions(),
    }
    same = ("first", "more", "trials", "train_share")
    cells.fill(chosen, options.out, facts, same, lambda arm, seed: measure(options, effort, arm, seed))


if __name__ == "__main__":
    tasks.CACHE.mkdir(exist_ok=True)
    main()
