"""What is a structure worth once its network is trained: the unpruned network, from scratch, search, PAAM, ManiDP, GA.

    python benchmarks/training_methods.py [--seeds 3] [--budget 40%] [--methods paam manidp]

On small networks and images; `methods_cifar10.py` does on CIFAR-10. All at the same multiply-accumulates (ManiDP: on
average), from the same data and recipe; seeds decide weights, order of images and search. Methods that start from
trained weights finetune them in the epochs that are left of those that methods from scratch train. Costs are seconds of
one CPU core. Every cell is written when it is there; run again to go on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import tasks
import torch
from torch import Tensor, nn

import prunesearch as ps

MODEL = "resnet8"
PRETRAINING, FINETUNING = 10, 8
RECIPE = ps.Recipe(epochs=PRETRAINING + FINETUNING, lr=0.1)
TUNING = replace(RECIPE, epochs=FINETUNING, lr=0.05)
L1 = ps.Scoring(criterion="l1")
"""How searches scored when the committed results were measured."""


class Bench:
    """One seed's data, networks and clock."""

    def __init__(self, task: tasks.Task, budget: str, seed: int, model: str = MODEL) -> None:
        self.task, self.model, self.budget, self.seed = task, model, ps.Budget(macs=budget), seed
        self.data = task.data()
        self.examples = task.test[0][:2]

    def fresh(self) -> nn.Module:
        """The network with random weights."""
        torch.manual_seed(self.seed)
        return tasks.NETWORKS[self.model](in_channels=self.examples.shape[1], image_size=self.examples.shape[2])

    def pretrained(self) -> ps.Network:
        """Kept in benchmarks/cache, as every method but those from scratch starts from it."""
        path = tasks.CACHE / f"{self.model}-{self.task.name}-{len(self.task.train[0])}-methods-{self.seed}.safetensors"
        model = self.fresh()
        if not path.exists():
            start = time.process_time()
            trained = ps.finetune(model, self.data, recipe=replace(RECIPE, epochs=PRETRAINING), seed=self.seed)
            tasks.CACHE.mkdir(exist_ok=True)
            path.with_suffix(".seconds").write_text(str(time.process_time() - start))
            ps.save(trained, path)
        self.pretraining_seconds = float(path.with_suffix(".seconds").read_text())
        return ps.trace(ps.load(path, model).eval(), self.examples)

    @cached_property
    def found(self) -> tuple[ps.Network, ps.Winner, float]:
        """The pretrained network, the best structure of a search, and the seconds it took."""
        network, start = self.pretrained(), time.process_time()
        best = ps.search(network, self.data, budget=self.budget, n_trials=200, seed=self.seed, scoring=L1).best
        return network, best, time.process_time() - start

    def judged(self, model: nn.Module, macs: Tensor | int) -> dict[str, Any]:
        """What is reported of a trained network."""
        accuracy = ps.top1(model, *self.task.test)
        average = float(torch.as_tensor(macs).double().mean())
        return {"accuracy": accuracy, "macs": average, "params": ps.count(model, self.examples).params}


def unpruned(bench: Bench) -> dict[str, Any]:
    model = ps.finetune(bench.fresh(), bench.data, recipe=RECIPE, seed=bench.seed)
    return bench.judged(model, ps.count(model, bench.examples).macs)


def pretrained(bench: Bench) -> dict[str, Any]:
    network = bench.pretrained()
    judged = bench.judged(network.model, ps.count(network.model, bench.examples).macs)
    return {**judged, "seconds": bench.pretraining_seconds}


def search(bench: Bench, *, taught: bool = True) -> dict[str, Any]:
    network, winner, seconds = bench.found
    start = time.process_time()
    teacher = network.model if taught else None
    tuned = ps.finetune(winner.build(), bench.data, recipe=TUNING, teacher=teacher, seed=bench.seed)
    return {**bench.judged(tuned, winner.cost.macs), "seconds": seconds + time.process_time() - start}


def scratch(bench: Bench) -> dict[str, Any]:
    _, winner, _ = bench.found
    start = time.process_time()
    recipe = replace(RECIPE, from_scratch=True)
    tuned = ps.finetune(winner.build(), bench.data, recipe=recipe, seed=bench.seed)
    return {**bench.judged(tuned, winner.cost.macs), "seconds": time.process_time() - start}  # the structure is given


def paam(bench: Bench) -> dict[str, Any]:
    network = ps.trace(bench.fresh(), bench.examples)
    result = ps.paam(network, bench.data, budget=bench.budget, recipe=RECIPE, seed=bench.seed)
    return bench.judged(result.model, network.space.cost(result.structure).macs)


def paam_trained(bench: Bench) -> dict[str, Any]:
    network = bench.pretrained()
    result = ps.paam(network, bench.data, budget=bench.budget, recipe=TUNING, seed=bench.seed)
    return bench.judged(result.model, network.space.cost(result.structure).macs)


def manidp(bench: Bench) -> dict[str, Any]:
    result = ps.manidp(bench.pretrained(), bench.data, budget=bench.budget, recipe=TUNING, seed=bench.seed)
    return dynamic(bench, result.model)


def search_manidp(bench: Bench) -> dict[str, Any]:
    """Half of the way by search, the rest by gates."""
    network = bench.pretrained()
    full = network.space.cost(network.space.full).macs
    limit = bench.budget.check(network.space).limits[0][1]
    halfway = ps.Budget(macs=round((full * limit) ** 0.5))
    winner = ps.search(network, bench.data, budget=halfway, n_trials=200, seed=bench.seed, scoring=L1).best
    start = ps.trace(winner.build(), bench.examples)
    result = ps.manidp(start, bench.data, budget=ps.Budget(macs=limit), recipe=TUNING, seed=bench.seed)
    return dynamic(bench, result.model)


def genetic(bench: Bench, *, more: int = 0) -> dict[str, Any]:
    """All widths at once, by the searcher and the criterion of the same name; finetuned for so many epochs more."""
    network, scoring = bench.pretrained(), ps.Scoring(criterion="genetic")
    winner = ps.search(
        network, bench.data, budget=bench.budget, searcher="genetic", n_trials=200, seed=bench.seed, scoring=scoring
    ).best
    recipe = replace(TUNING, epochs=FINETUNING + more * (len(network.space.groups) - 1))
    tuned = ps.finetune(winner.build(), bench.data, recipe=recipe, teacher=network.model, seed=bench.seed)
    return {**bench.judged(tuned, winner.cost.macs), "epochs": recipe.epochs}


def layerwise(bench: Bench) -> dict[str, Any]:
    """A layer after the other, an epoch in between: more epochs in all than others; `genetic, as long` has them."""
    network = bench.pretrained()
    result = ps.layerwise(network, bench.data, budget=bench.budget, recipe=TUNING, seed=bench.seed)
    cell = bench.judged(result.model, network.space.cost(result.structure).macs)
    return {**cell, "epochs": len(result.reports)}


def dynamic(bench: Bench, model: nn.Module) -> dict[str, Any]:
    macs = ps.macs_per_image(model, bench.task.test[0]).double()
    spread = {"macs_lowest": float(macs.min()), "macs_highest": float(macs.max())}
    return {**bench.judged(model, macs), **spread}


METHODS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "pretrained": pretrained,
    "unpruned": unpruned,
    "scratch": scratch,
    "search": search,
    "search, no teacher": partial(search, taught=False),
    "paam": paam,
    "paam, from trained": paam_trained,
    "manidp": manidp,
    "search and manidp": search_manidp,
    "genetic": genetic,
    "genetic, as long": partial(genetic, more=1),
    "layerwise": layerwise,
}


def check_same(stored: Mapping[str, Any], facts: Mapping[str, Any], out: Path) -> None:
    """See to it that rows of one file are comparable.

    Raises:
        SystemExit: Those that are there were measured with other settings.
    """
    same = ("data", "train_images", "image", "model", "budget", "pretraining", "finetuning")
    other = [name for name in same if stored[name] != facts[name]]
    if other:
        raise SystemExit(f"{out.name} was measured with another {' and '.join(other)}; give another --out.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.set_defaults(train_images=4_000)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--model", default=MODEL, choices=tasks.NETWORKS)
    parser.add_argument("--budget", default="40%")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training_methods.json")
    arguments = parser.parse_args()
    task = tasks.load(arguments.data, arguments.data_root, arguments.train_images).halved()
    stored: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": {}}
    facts = {
        **tasks.facts(arguments),
        "test_images": len(task.test[0]),
        "image": list(task.train[0].shape[1:]),
        "model": arguments.model,
        "budget": arguments.budget,
        "pretraining": PRETRAINING,
        "finetuning": FINETUNING,
    }
    check_same(stored.get("facts", facts), facts, arguments.out)
    stored["facts"] = facts
    for seed in range(arguments.seeds):
        bench = Bench(task, arguments.budget, seed, arguments.model)
        for name in arguments.methods:
            done = stored["rows"].setdefault(name, [])
            if len(done) > seed:
                continue
            bench.pretrained()  # whatever comes of it, its time is its own row's
            start = time.process_time()
            cell = METHODS[name](bench)
            done.append({"seconds": time.process_time() - start, **cell})
            tasks.save(stored, arguments.out)
            print(name, seed, json.dumps(done[-1]), flush=True)


if __name__ == "__main__":
    main()
