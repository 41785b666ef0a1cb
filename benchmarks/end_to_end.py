"""Who ends with the most accurate network of the same MACs, and what does it take? All arms, ours and the peers'.

    python benchmarks/end_to_end.py [--networks resnet20b] [--budgets 50%] [--arms uniform ours] [--seeds 3]
    python benchmarks/end_to_end.py --list            # which cells are empty
    python benchmarks/end_to_end.py --retry-failed    # those that failed, too
    python benchmarks/end_to_end.py --data cifar10 --data-root D

A cell is a network, a budget, an arm and a seed. For all cells of a seed and network: the same trained network, the
same split of the training images (most train, some are for searching and criteria, the rest validates), the same
finetuning recipe without a teacher, the same counter of MACs (`ps.count`), BatchNorm statistics re-estimated on the
same images before finetuning. The test images are looked at once, at the very end of a cell. One setting of `ours` was
changed after cells of it had been seen, and all its cells were measured anew (docs/evidence.md). Seconds are of one CPU
core, for what the arm does after the network was trained; evaluation is left out. Every cell is written when it is
there; run again to go on. The most telling arms of all networks come first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peers
import tasks
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.evaluators.channels import CRITERIA, make_criterion
from prunesearch.search import SEARCHERS
from prunesearch.search.uniform import uniform_structure
from prunesearch.tasks.classify import labelled
from prunesearch.training.data import balanced

NETWORKS = ("resnet20b", "vgg16_05", "mobilenet_v2_05")
"""Of 6 to 11 million MACs on 14x14 pixels. The ResNet has projections as shortcuts, which every library can prune."""

BUDGETS = ("50%", "30%")
SEARCH, VALIDATION = 1 / 13, 2 / 13
"""Shares of the training images."""

PRETRAINING, SCRATCH = ps.Recipe(lr=0.1), ps.Recipe(lr=0.1, from_scratch=True)
FINETUNING = ps.Recipe(lr=0.05)
"""As docs/finetune.md has it."""


@dataclass(frozen=True)
class Split:
    """The images of one data set, by what they are for.

    Attributes:
        train: Train and finetune.
        search: Score structures, choose channels, re-estimate BatchNorm statistics.
        validation: Tell the accuracy before finetuning; nothing is trained or scored by them.
        test: Tell the accuracy afterwards.
        name: Of the data set.
    """

    train: tuple[Tensor, Tensor]
    search: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    name: str

    @property
    def task(self) -> tasks.Task:
        """What networks are trained on."""
        return tasks.Task(f"{self.name}-{self.train[0].shape[-1]}px", self.train, self.test)

    @property
    def data(self) -> ps.Data:
        """As a search takes it."""
        return ps.Data(train=self.train, calibration=len(self.search[0]), calibrate_on=self.search)


def split(task: tasks.Task, image_size: int) -> Split:
    """Divide the training images: those to search with are balanced by class, the same for all seeds."""
    train, test = ((pooled(images, image_size), labels) for images, labels in (task.train, task.test))
    images, labels = train
    searching = balanced(labels.numpy(), round(SEARCH * len(labels)))
    rest = np.setdiff1d(np.arange(len(labels)), searching)  # in the random order that tasks.load draws
    held_out = round(VALIDATION * len(labels))
    validating, training = rest[:held_out], rest[held_out:]
    parts = [(images[chosen], labels[chosen]) for chosen in map(torch.from_numpy, (training, searching, validating))]
    return Split(parts[0], parts[1], parts[2], test, task.name)


def pooled(images: Tensor, size: int) -> Tensor:
    """Images of fewer pixels, each the mean of several.

    Raises:
        ValueError: The size does not divide theirs.
    """
    if images.shape[-1] % size:
        raise ValueError(f"Expected an image size that divides {images.shape[-1]}, got {size}.")
    return F.avg_pool2d(images, images.shape[-1] // size) if size < images.shape[-1] else images


@dataclass(frozen=True)
class Place:
    """What is the same for all arms of a network, budget and seed.

    Attributes:
        split: The images.
        network: The trained network.
        budget: Share of its MACs.
        seed: Of the network's training, of searches and of finetuning.
        trials: Of searches.
        pretraining: The recipe that trained the network.
        finetuning: The one recipe of all arms.
    """

    split: Split
    network: ps.Network
    budget: ps.Budget
    seed: int
    trials: int
    pretraining: ps.Recipe
    finetuning: ps.Recipe

    @property
    def limit(self) -> int:
        """MACs that must not be exceeded."""
        return int(self.budget.check(self.network.space).limits[0][1])


@dataclass(frozen=True)
class Found:
    """What an arm hands over to finetuning.

    Attributes:
        model: The pruned network.
        recipe: How it is trained: the common recipe, except from scratch.
        evaluations: How many structures were scored.
        notes: What should be known.
        seconds_again: Spent only to hit our count of MACs with a library that counts otherwise; not charged.
    """

    model: nn.Module
    recipe: ps.Recipe
    evaluations: int
    notes: tuple[str, ...] = ()
    seconds_again: float = 0.0


def searched(
    place: Place,
    *,
    searcher: str = "surrogate",
    criterion: str = "l1",
    weights: str = "inherited",
    build_with: str | None = None,
) -> Found:
    result = ps.search(
        place.network,
        place.split.data,
        budget=place.budget,
        searcher=searcher,
        n_trials=place.trials,
        seed=place.seed,
        scoring=ps.Scoring(criterion=criterion, weight_source=weights),
        build_with=build_with,
    )
    return Found(result.best.build(), place.finetuning, len(result.trials), result.notes)


def scratch(place: Place, *, equal_compute: bool) -> Found:
    """The uniform structure with random weights, for as many epochs as finetuning or as all training cost in MACs."""
    structure = uniform_structure(place.budget.check(place.network.space))
    ranking = make_criterion("l1").rank(place.network, labelled(*place.split.search))
    model = ps.slim(place.network, structure, ranking)
    epochs = place.finetuning.epochs
    if equal_compute:
        share = place.network.space.cost(structure).macs / place.network.space.cost(place.network.space.full).macs
        epochs += round(place.pretraining.epochs / share)
    return Found(model, replace(SCRATCH, epochs=epochs), 0, (f"{epochs} epochs",))


def peer(place: Place, *, prune: Callable[..., peers.Pruned]) -> Found:
    pruned = prune(place.network.model, *place.split.search, place.limit)
    return Found(pruned.model, place.finetuning, pruned.evaluations, pruned.notes, pruned.seconds_again)


FIRST: Mapping[str, Callable[[Place], Found]] = {
    "uniform": partial(searched, searcher="uniform"),
    "l1 global": partial(searched, searcher="global"),
    "torch-pruning, taylor": partial(peer, prune=partial(peers.torch_pruning, importance="taylor")),
    "fastnas": partial(peer, prune=peers.fastnas),
    "ours": partial(searched, build_with="reconstructed"),
    "surrogate": searched,
    "scratch": partial(scratch, equal_compute=False),
    "torch-pruning, norm": partial(peer, prune=partial(peers.torch_pruning, importance="norm")),
    "surrogate, compensated": partial(searched, weights="compensated"),
}
"""In the order in which they are run, before all others. `ours` is the combination that docs/criteria.md recommends:
the default search, then the winner's layers refitted one after the other."""

SLOW: Mapping[str, Callable[[Place], Found]] = {
    "scratch, equal compute": partial(scratch, equal_compute=True),
    "uniform, lfe": partial(searched, searcher="uniform", criterion="lfe"),
    "surrogate, reconstructed": partial(searched, weights="reconstructed"),
}
"""After all others."""

ARMS: Mapping[str, Callable[[Place], Found]] = {
    **FIRST,
    **{name: partial(searched, searcher=name) for name in SEARCHERS if name not in ("uniform", "global", "surrogate")},
    **{
        f"uniform, {name}": partial(searched, searcher="uniform", criterion=name)
        for name in CRITERIA
        if name not in ("l1", "lfe")
    },
    **SLOW,
}


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every convolution."""
    return {name: m.out_channels for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def measured(place: Place, arm: str) -> dict[str, Any]:
    """One cell."""
    split, example = place.split, place.split.search[0][:1]
    start, wall = time.process_time(), time.perf_counter()
    found = ARMS[arm](place)
    seconds = {"search": time.process_time() - start - found.seconds_again, "asked again": found.seconds_again}
    seconds["search wall"] = time.perf_counter() - wall
    cost = ps.count(found.model, example)
    if not found.recipe.from_scratch:
        ps.recalibrate_bn(found.model, split.search[0])
    before = None if found.recipe.from_scratch else ps.top1(found.model, *split.validation)
    start, wall = time.process_time(), time.perf_counter()
    tuned = ps.finetune(found.model, ps.Data(train=split.train), recipe=found.recipe, seed=place.seed)
    seconds |= {"finetune": time.process_time() - start, "finetune wall": time.perf_counter() - wall}
    return {
        "macs": cost.macs,
        "params": cost.params,
        "holds": cost.macs <= place.limit,
        "before": before,
        "accuracy": ps.top1(tuned, *split.test),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "evaluations": found.evaluations,
        "widths": widths(tuned),
        "notes": found.notes,
    }


def failed(error: Exception) -> dict[str, str]:
    """What is written of a cell that came to nothing."""
    message = re.sub(r"/\S*/(?=[^/\s]+)", "", str(error)).partition("\n")[0]  # without the folders of this machine
    return {"failure": f"{type(error).__name__}: {message[:300]}"}


class Results:
    """The file of cells; several programs may fill it at once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        tasks.CACHE.mkdir(exist_ok=True)
        self._lock = FileLock(tasks.CACHE / f"{file.name}.lock")

    def read(self) -> dict[str, Any]:
        """Facts, unpruned networks and cells."""
        return json.loads(self._file.read_text()) if self._file.exists() else {"facts": {}, "unpruned": {}, "cells": {}}

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Write what all cells share.

        Raises:
            SystemExit: The file's cells were measured otherwise.
        """
        with self._lock:
            stored = self.read()
            other = [
                name
                for name, value in facts["settings"].items()
                if stored["facts"].get("settings", facts["settings"])[name] != value
            ]
            if other:
                raise SystemExit(f"{self._file} was measured with other {', '.join(other)}; give another --out.")
            stored["facts"] = dict(facts)
            tasks.save(stored, self._file)

    def write(self, part: str, key: str, value: Mapping[str, Any]) -> None:
        """Add one cell."""
        with self._lock:
            stored = self.read()
            stored[part][key] = value
            tasks.save(stored, self._file)

    def forget(self, arms: Sequence[str]) -> int:
        """Empty all cells of some arms, as after a change to them; how many there were."""
        with self._lock:
            stored = self.read()
            kept = {name: cell for name, cell in stored["cells"].items() if name.split(" | ")[2] not in arms}
            emptied = len(stored["cells"]) - len(kept)
            tasks.save({**stored, "cells": kept}, self._file)
            return emptied


def cells(arguments: argparse.Namespace) -> Iterator[tuple[int, str, str, str]]:
    """Seed, arm, network and budget: all of the telling arms of a seed, then its others."""
    for seed in range(arguments.seeds):
        for arm, network, budget in itertools.product(arguments.arms, arguments.networks, arguments.budgets):
            yield seed, arm, network, budget


def key(seed: int, arm: str, network: str, budget: str) -> str:
    return f"{network} | {budget} | {arm} | {seed}"


def is_empty(cell: Mapping[str, Any] | None, retry_failed: bool) -> bool:
    return cell is None or (retry_failed and "failure" in cell)


def pretrained(network: str, images: Split, seed: int, results: Results, epochs: int) -> ps.Network:
    """The trained network; its own row is written once."""
    start = time.process_time()
    cached = tasks.is_trained(network, images.task, epochs=epochs, seed=seed)
    model = tasks.trained(network, images.task, epochs=epochs, seed=seed)
    name = f"{network} | {seed}"
    if name not in results.read()["unpruned"]:
        cost = ps.count(model, images.search[0][:1])
        row: dict[str, Any] = {"macs": cost.macs, "params": cost.params, "accuracy": ps.top1(model, *images.test)}
        row["seconds"] = None if cached else round(time.process_time() - start, 2)
        results.write("unpruned", name, row)
    return ps.trace(model, images.search[0][:2])


def facts(arguments: argparse.Namespace, images: Split) -> dict[str, Any]:
    settings = {
        "data": arguments.data,
        "image_size": arguments.image_size,
        "train_images": len(images.train[0]),
        "search_images": len(images.search[0]),
        "validation_images": len(images.validation[0]),
        "test_images": len(images.test[0]),
        "epochs": arguments.epochs,
        "finetune_epochs": arguments.finetune_epochs,
        "trials": arguments.trials,
    }
    packages = {**peers.versions(), "prunesearch": ps.__version__, "torch": torch.__version__}
    common = {name: value for name, value in tasks.facts(arguments).items() if name in ("machine", "threads")}
    recipes = {"pretraining": repr(PRETRAINING), "finetuning": repr(FINETUNING), "scratch": repr(SCRATCH)}
    shown = {"networks": NETWORKS, "budgets": BUDGETS, "arms": list(ARMS)}
    return {**shown, "settings": settings, "versions": packages, **common, "recipes": recipes}


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.set_defaults(train_images=13_000)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=tasks.NETWORKS)
    parser.add_argument("--budgets", nargs="*", default=list(BUDGETS), help="shares of the MACs")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--image-size", type=int, help="images are averaged down to it; default: half of theirs")
    parser.add_argument("--epochs", type=int, default=10, help="of training the unpruned networks")
    parser.add_argument("--finetune-epochs", type=int, default=3)
    parser.add_argument("--trials", type=int, default=200, help="structures that a search scores")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/end_to_end.json, or end_to_end_DATA.json")
    parser.add_argument("--list", action="store_true", help="say which cells are empty, and end")
    parser.add_argument("--retry-failed", action="store_true")
    parser.add_argument("--forget", nargs="*", default=[], choices=ARMS, help="empty all cells of these arms, and end")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run? Give --out")
    read = parser.parse_args(arguments)
    if read.smoke:
        read.train_images, read.epochs, read.finetune_epochs, read.trials, read.seeds = 1_000, 1, 1, 4, 1
    if read.image_size is None:
        read.image_size = 14 if read.data == "fashion-mnist" else 16
    if read.out is None:
        name = "end_to_end" if read.data == "fashion-mnist" else f"end_to_end_{read.data}"
        read.out = Path(__file__).parent / "results" / f"{name}{'_smoke' if read.smoke else ''}.json"
    return read


def listing(arguments: argparse.Namespace, stored: Mapping[str, Any]) -> str:
    """Which cells are empty or failed, a line each, and how many."""
    names = [key(*cell) for cell in cells(arguments)]
    lines = [name for name in names if name not in stored["cells"]]
    empty = len(lines)
    lines += [f"{n}: {stored['cells'][n]['failure']}" for n in names if "failure" in stored["cells"].get(n, {})]
    return "\n".join([*lines, f"{empty} of {len(names)} cells are empty, {len(lines) - empty} failed"])


def main() -> None:
    arguments = parsed()
    results = Results(arguments.out)
    if arguments.list:
        print(listing(arguments, results.read()))
        return
    if arguments.forget:
        print(f"{results.forget(arguments.forget)} cells emptied")
        return
    task = tasks.load(arguments.data, arguments.data_root, arguments.train_images)
    images = split(task, arguments.image_size)
    results.begin(facts(arguments, images))
    for seed, arm, network, budget in cells(arguments):
        name = key(seed, arm, network, budget)
        if not is_empty(results.read()["cells"].get(name), arguments.retry_failed):
            continue
        place = Place(
            images,
            pretrained(network, images, seed, results, arguments.epochs),
            ps.Budget(macs=budget),
            seed,
            arguments.trials,
            replace(PRETRAINING, epochs=arguments.epochs),
            replace(FINETUNING, epochs=arguments.finetune_epochs),
        )
        try:
            cell = measured(place, arm)
        except Exception as error:  # whatever it raises is the cell
            cell = failed(error)
        results.write("cells", name, cell)
        brief = {part: value for part, value in cell.items() if part != "widths"}
        print(name, json.dumps(brief), flush=True)


if __name__ == "__main__":
    main()
