"""Do generated weights rank structures better than slices do, and does that pay for training them?

    python benchmarks/pruningnet.py [--networks resnet8] [--keep 0.5 0.25] [--seeds 3] [--data cifar10 --data-root D]

Structures of one budget (the uniform one and random ones that use it up) are finetuned from inherited weights, and
trained from scratch, all alike. Kendall's tau of a score with either accuracy says how well the score ranks. Sources of
weights: slices of the trained network's; a supernet (sandwich rule, in-place distillation); a PruningNet in its compact
form, trained likewise or on one structure per step; one in the published form, from the trained weights and (for one
seed) from scratch. Training costs, in MACs, are alike: where a step runs four structures, epochs are fewer.

Then whole searches with evolution over each source, and the winners' test accuracy after finetuning from the weights
that the source gives them. Equal total compute: what training the PruningNet took, in MACs, inherited weights may use
for more finetuning. Every cell is written when it is there; run again to go on. Images are averaged over 2x2 pixels so
that all of it takes half an hour on one core; the real thing is `--pool 1` with more images and epochs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tasks
import torch
import torch.nn.functional as F
from torch import nn

import prunesearch as ps
from prunesearch.evaluators import make_weights
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.hypernet import PruningNet
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled
from prunesearch.training.pruningnet import train_pruningnet
from prunesearch.training.settings import PruningNetRecipe, Sampling

SOURCES: Mapping[str, Mapping[str, Any]] = {
    "inherited": {},
    "supernet": {"form": "supernet"},
    "compact, sandwich": {"form": "compact"},
    "compact": {"form": "compact"},
    "published": {"form": "published"},
    "published, scratch": {"form": "published", "start": "scratch"},
}
"""Arguments of the PruningNet; from scratch it takes the first channels, as published, otherwise those of L1."""

SANDWICH = ("supernet", "compact, sandwich")
"""Sources that are trained on four structures per step."""

Cell = dict[str, Any]


class Bench:
    """One network on one task, and the cells measured of it so far."""

    def __init__(self, name: str, task: tasks.Task, row: Cell, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.row = row
        self.name = name
        self.task = task
        self.data = ps.Data(train=task.train, test=task.test, calibration=arguments.calibration)
        self.training = self.data.sub_training()  # what everything is trained on
        self.images, self.labels = self.data.calibration_set()
        self.network = ps.trace(self._trained(), task.test[0][:2])
        self.ranking = make_criterion("l1").rank(self.network)
        row.setdefault("macs", self.network.space.cost(self.network.space.full).macs)

    def _trained(self) -> nn.Module:
        arguments = self.arguments
        file = tasks.CACHE / f"{self.name}-{tag(arguments)}-{arguments.epochs}.safetensors"
        torch.manual_seed(0)
        images, labels = self.task.train
        model = tasks.NETWORKS[self.name](
            num_classes=int(labels.max()) + 1, in_channels=images.shape[1], image_size=images.shape[2]
        )
        if not file.exists():
            model = ps.finetune(model, self.training, recipe=ps.Recipe(epochs=arguments.epochs, lr=0.1))
            tasks.CACHE.mkdir(exist_ok=True)
            ps.save(model, file)
        return ps.load(file, model).eval()

    def structures(self, keep: float) -> list[Structure]:
        """The uniform one and random ones that use the budget up."""
        feasible = ps.Budget(macs=f"{keep:.0%}").check(self.network.space)
        drawn = feasible.fit(self.network.space.sample(np.random.default_rng([0, 71]), self.arguments.structures - 1))
        return [uniform_structure(feasible), *(self.network.space.check(row.tolist()) for row in drawn)]

    # --- what training costs: multiply-accumulates of forwards, per training image, in units of the unpruned network

    def share_per_step(self, sandwich: bool) -> float:
        """Of the structures of one training step, on average, together."""
        space = self.network.space
        average = float(space.macs(space.sample(np.random.default_rng(0), 20_000)).mean()) / self.row["macs"]
        narrowest = space.cost(space.minimum).macs / self.row["macs"]
        return 1 + narrowest + 2 * average if sandwich else average

    def epochs_of(self, source: str) -> int:
        """Epochs of training: those of the argument for one structure per step, as costly ones for four."""
        wanted = self.arguments.pruningnet_epochs
        if source not in SANDWICH:
            return int(wanted)
        return max(1, round(wanted * self.share_per_step(False) / self.share_per_step(True)))

    def train(self, source: str, seed: int) -> Cell:
        """Train a PruningNet into the cache."""
        options = dict(SOURCES[source])
        net = PruningNet(
            self.network,
            ranking=None if options.get("start") == "scratch" else self.ranking,
            seed=seed,
            **options,
        )
        sampling: Sampling = "sandwich" if source in SANDWICH else "random"
        recipe = PruningNetRecipe(epochs=self.epochs_of(source), lr=self.arguments.lr, sampling=sampling)
        start = time.perf_counter()
        losses: list[float] = []
        train_pruningnet(
            net,
            self.data,
            recipe=recipe,
            seed=seed,
            file=self.file(source, seed),
            on_step=lambda report: losses.append(report.loss),
        )
        per_step = (time.perf_counter() - start) / len(losses) if losses else None  # it may go on where it was killed
        seconds = None if per_step is None else per_step * self.steps(recipe)
        return {
            "seconds": seconds,
            "epochs": recipe.epochs,
            "full epochs": recipe.epochs * self.share_per_step(sampling == "sandwich"),
            "params": net.size,
            "loss": float(np.mean(losses[-20:])) if losses else None,
        }

    def steps(self, recipe: PruningNetRecipe) -> int:
        """Of a training, from its beginning."""
        return recipe.epochs * self.training.steps_per_epoch(recipe.batch_size)

    def file(self, source: str, seed: int) -> Path:
        """Where a trained PruningNet is."""
        arguments = self.arguments
        about = f"{source.replace(', ', '-')}-{arguments.pruningnet_epochs}-{arguments.lr}-{seed}"
        return tasks.CACHE / f"pruningnet-{self.name}-{tag(arguments)}-{about}.safetensors"

    def weight_source(self, source: str, seed: int) -> str:
        """The source as `search` names it."""
        return "inherited" if source in ("inherited", "uniform") else f"generated:{self.file(source, seed)}"

    # --- how well scores rank

    def truth(self, structure: Structure) -> Cell:
        """Test accuracy after finetuning inherited weights, and after training from scratch."""
        arguments = self.arguments
        sliced = ps.slim(self.network, structure, self.ranking)
        fresh = ps.slim(self.network, structure, self.ranking)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for module in fresh.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                    module.reset_parameters()
        return {
            "structure": structure,
            "finetuned": self.accuracy(sliced, arguments.finetune_epochs, 0.02),
            "scratch": self.accuracy(fresh, arguments.scratch_epochs, 0.1),
        }

    def accuracy(self, model: nn.Module, epochs: int, lr: float, seed: int = 0) -> float:
        """On the test set, after training."""
        tuned = ps.finetune(model, self.training, recipe=ps.Recipe(epochs=epochs, lr=lr), seed=seed)
        return ps.top1(tuned, *self.task.test)

    def scores(self, source: str, seed: int) -> Cell:
        """Minus the loss on images that nothing was trained on, of each structure."""
        weights = make_weights(self.weight_source(source, seed), self.network, self.ranking, self.images)
        evaluator = AccuracyEvaluator(weights, labelled(self.images, self.labels))
        found: Cell = {}
        start = time.perf_counter()
        for keep in self.arguments.keep:
            found[f"{keep:.0%}"] = evaluator.score(self.structures(keep))
        n = len(self.arguments.keep) * self.arguments.structures
        return {"scores": found, "seconds per structure": (time.perf_counter() - start) / n}

    # --- what a search ends with

    def winner(self, source: str, keep: float, seed: int) -> Cell:
        """Search, then finetune from the source's weights; inherited ones also for as long as the others train.

        `"uniform"` does not search: one share of every width, inherited weights.
        """
        start = time.perf_counter()
        searcher = "uniform" if source == "uniform" else "evolution"
        best = ps.search(
            self.network,
            self.data,
            budget=ps.Budget(macs=f"{keep:.0%}"),
            searcher=searcher,
            scoring=ps.Scoring(
                weight_source=self.weight_source(source, seed), images=self.arguments.scoring_images, race=False
            ),
            n_trials=self.arguments.trials,
            seed=seed,
            options={"population": 40, "mutants": 20, "crossovers": 20} if searcher == "evolution" else {},
        ).best
        cell: Cell = {"seed": seed, "structure": best.structure, "search seconds": time.perf_counter() - start}
        epochs = self.arguments.winner_epochs
        cell["accuracy"] = self.accuracy(best.build(), epochs, 0.02, seed)
        if source == "inherited":
            longer = epochs + self.arguments.pruningnet_epochs * self.share_per_step(False) / keep
            cell["epochs at equal compute"] = round(longer)
            cell["accuracy at equal compute"] = self.accuracy(best.build(), round(longer), 0.02, seed)
        return cell


def tag(arguments: argparse.Namespace) -> str:
    return f"{arguments.data}-{arguments.train_images}-{arguments.pool}"


def cells(bench: Bench) -> list[tuple[str, Callable[[], Cell]]]:
    """Every cell by name, the most telling first; those that others need come before them."""
    arguments = bench.arguments
    found: list[tuple[str, Callable[[], Cell]]] = []
    for keep in arguments.keep:
        structures = enumerate(bench.structures(keep))
        found += [(f"truth {keep:.0%} {i}", partial(bench.truth, structure)) for i, structure in structures]
    for sources in (("inherited", "supernet", "compact, sandwich", "compact", "uniform"), ("published",)):
        for seed in range(arguments.seeds):
            for source in sources:
                found += source_cells(bench, source, seed)
    return found + source_cells(bench, "published, scratch", 0)


def source_cells(bench: Bench, source: str, seed: int) -> list[tuple[str, Callable[[], Cell]]]:
    """Training, scores and searches of one source."""
    found: list[tuple[str, Callable[[], Cell]]] = []
    if source not in ("inherited", "uniform"):
        found.append((f"train {source} {seed}", partial(bench.train, source, seed)))
    if source != "uniform" and (seed == 0 or source != "inherited"):
        found.append((f"scores {source} {seed}", partial(bench.scores, source, seed)))
    for keep in bench.arguments.keep:
        found.append((f"winner {source} {keep:.0%} {seed}", partial(bench.winner, source, keep, seed)))
    return found


def pooled(task: tasks.Task, pool: int) -> tasks.Task:
    (train, labels), (test, truth) = task.train, task.test
    return tasks.Task(task.name, (F.avg_pool2d(train, pool), labels), (F.avg_pool2d(test, pool), truth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.set_defaults(train_images=10_000)
    parser.add_argument("--networks", nargs="*", default=["resnet8"], choices=tasks.NETWORKS)
    parser.add_argument("--keep", nargs="*", type=float, default=[0.5, 0.25])
    parser.add_argument("--structures", type=int, default=16, help="per budget, to rank")
    parser.add_argument("--seeds", type=int, default=3, help="of trainings and searches")
    parser.add_argument("--pool", type=int, default=2, help="average images over so many pixels")
    parser.add_argument("--calibration", type=int, default=1024, help="images that score and are not trained on")
    parser.add_argument("--epochs", type=int, default=8, help="of the unpruned network")
    parser.add_argument("--pruningnet-epochs", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.05, help="of training PruningNets")
    parser.add_argument("--finetune-epochs", type=int, default=2, help="of structures that are ranked")
    parser.add_argument("--scratch-epochs", type=int, default=4)
    parser.add_argument("--trials", type=int, default=200, help="of a search")
    parser.add_argument("--scoring-images", type=int, default=256, help="of a search")
    parser.add_argument("--winner-epochs", type=int, default=4, help="of finetuning what a search found")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pruningnet.json")
    arguments = parser.parse_args()
    task = pooled(tasks.load(arguments.data, arguments.data_root, arguments.train_images), arguments.pool)
    stored: Cell = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": {}}
    facts = {name: value for name, value in vars(arguments).items() if name not in ("out", "data_root", "networks")}
    facts |= {"machine": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    stored["facts"] = {**facts, "prunesearch": ps.__version__}
    for name in arguments.networks:
        row = stored["rows"].setdefault(name, {"cells": {}})
        bench = Bench(name, task, row, arguments)
        row.setdefault("unpruned", ps.top1(bench.network.model, *task.test))
        for cell, measure in cells(bench):
            if cell not in row["cells"]:
                row["cells"][cell] = measure()
                tasks.save(stored, arguments.out)
                print(name, cell, json.dumps(row["cells"][cell]), flush=True)


if __name__ == "__main__":
    main()
