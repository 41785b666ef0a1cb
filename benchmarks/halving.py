"""Does a short training tell which of a few structures ends best, and is it worth its seconds?

    python benchmarks/halving.py --data-root D [--cells 30-floor.0]

A score says how good a structure is before any training. Structures of one network and share of the MACs, found in
different ways, are trained for a quarter of an epoch, a half, one, and two (each from the same start, its rate falling
to zero), with the unpruned network as their teacher. The question is whether successive halving, which trains a few
structures briefly and keeps the better ones, would keep the one that is best after two epochs.

A cell is `SHARE-STRUCTURE.SEED`. All structures of a share and seed have weights of one kind, `cap` and inherited, and
see the same images in the same order. Of the training images 2,000 are kept out of trainings, and judge the short ones;
5,000 others, and the unseen ones, judge the long one: fewer cannot tell structures apart that differ by half a point.
Test images are not looked at. Each cell is a file of its own in `results/halving`; run again to go on. A cell takes
about six CPU-minutes.

Registered before the first cell was measured: after half an epoch, Kendall's tau with the accuracy after two epochs is
below 0.6 at both shares (means over seeds), so that the structure it would choose ends more than 0.2 points below the
best one; after one epoch it is above 0.6. If so, short trainings of eight structures cost more than the second half of
a finetuning that is twice as long, which is worth more than half a point (`recovery.py`), and searches keep choosing by
the score.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import racing
import realdata
import torch
from cells import Grid, conditions, fill
from networks import CHANGED_AT_RANDOM
from torch import nn

import prunesearch as ps
from prunesearch.search.uniform import uniform_structure, widest
from prunesearch.structure import Structure
from prunesearch.training.finetune import train

RESULTS = Path(__file__).parent / "results" / "halving"
SHARES, SEEDS, TRIALS = (30, 50), 3, 100
FEW, MANY = 2_000, 5_000
"""Training images that judge short trainings, and the long one."""
SHORT = (0.25, 0.5, 1.0)
"""Epochs of short trainings."""
RECIPE = ps.Recipe(epochs=2, lr=0.05, augmentation=CHANGED_AT_RANDOM)

Found = tuple[ps.SearchResult, Structure]
"""What builds a structure, and the structure."""


def searched(bench: racing.Bench, share: int, seed: int, **settings: Any) -> Found:
    """What a search gives."""
    budget = f"macs={share}%"
    result = ps.search(bench.network, bench.data, budget=budget, seed=seed, n_trials=TRIALS, progress=False, **settings)
    return result, result.best.structure


def floored(bench: racing.Bench, share: int, seed: int, floor: float) -> Found:
    """What a search gives if every group keeps at least a part of about what it keeps in uniform widths."""
    narrowest = floor * (share / 100) ** 0.5  # MACs grow with the square of the widths
    network = ps.trace(bench.network.model, bench.search[0][:2], min_channels=narrowest)
    return searched(replace(bench, network=network), share, seed)


def between(bench: racing.Bench, share: int, seed: int) -> Found:
    """Geometric means of the widths that a search gives and of uniform ones."""
    result, structure = searched(bench, share, seed)
    limits = ps.Budget(macs=f"{share}%").check(bench.network)
    middle = np.sqrt(np.array(structure) * np.array(uniform_structure(limits)))
    found = widest(limits, tuple(middle.tolist()), {})
    assert found is not None  # no width is fixed
    return result, found


FIND: Mapping[str, Callable[[racing.Bench, int, int], Found]] = {
    "score": searched,
    "floor": partial(floored, floor=0.5),
    "high-floor": partial(floored, floor=0.75),
    "between": between,
    "global": partial(searched, searcher="global"),
    "uniform": partial(searched, searcher="uniform"),
}
"""How structures are found."""
ARMS = [f"{share}-{name}" for share in SHARES for name in FIND]

cells_of = Grid(ARMS, range(SEEDS), f"SHARE-STRUCTURE.SEED with seeds below {SEEDS}").chosen


def measured(bench: racing.Bench, arm: str, seed: int, recipe: ps.Recipe = RECIPE) -> dict[str, Any]:
    """One cell."""
    share, _, name = arm.partition("-")
    result, structure = FIND[name](bench, int(share), seed)
    built, (images, labels) = result.build(structure), bench.train
    few, many = (images[:FEW], labels[:FEW]), (images[FEW : FEW + MANY], labels[FEW : FEW + MANY])
    others = torch.cat([many[0], bench.unseen[0]]), torch.cat([many[1], bench.unseen[1]])
    rest = images[FEW + MANY :], labels[FEW + MANY :]

    def trained(n: int, epochs: int) -> tuple[nn.Module, float]:
        start, data = time.process_time(), ps.Data(train=(rest[0][:n], rest[1][:n]))
        long = replace(recipe, epochs=epochs)
        return train(built, data, recipe=long, teacher=bench.network.model, seed=seed).last, time.process_time() - start

    rows = []
    for epochs in SHORT:
        model, seconds = trained(round(epochs * len(rest[0])), 1)
        loss, accuracy = racing.judged(model, *few)
        rows.append({"epochs": epochs, "loss": loss, "accuracy": accuracy, "seconds": round(seconds, 1)})
    model, seconds = trained(len(rest[0]), recipe.epochs)
    loss, accuracy = racing.judged(model, *others)
    return {
        "structure": list(structure),
        "macs": bench.network.space.cost(structure).macs,
        "short": rows,
        "long": {"epochs": recipe.epochs, "loss": loss, "accuracy": accuracy, "seconds": round(seconds, 1)},
    }


def run(bench: racing.Bench, cells: Sequence[str], out: Path) -> None:
    """Measure all cells that are empty.

    Raises:
        SystemExit: A cell that is there is of another network or recipe.
    """
    facts = {
        "network": bench.network.fingerprint(),
        "recipe": repr(RECIPE),
        "full macs": bench.network.space.cost(bench.network.space.full).macs,
        "search images": len(bench.search[0]),
        "train images": len(bench.train[0]) - FEW - MANY,
        "held out images": FEW,
        "unseen images": MANY + len(bench.unseen[0]),
        **conditions(),
    }

    def measure(arm: str, seed: int) -> tuple[dict[str, Any], str]:
        row = measured(bench, arm, seed)
        short = ", ".join(f"{each['accuracy']:.1%} after {each['epochs']:g}" for each in row["short"])
        return {"seed": seed, **row}, f"{short}; {row['long']['accuracy']:.2%} after {row['long']['epochs']} epochs"

    fill(cells, out, facts, ("network", "recipe", "search images", "train images", "unseen images"), measure)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--weights", type=Path, default=racing.WEIGHTS, help="of the adapted ResNet-20, by weights.py")
    parser.add_argument("--cells", nargs="*", default=ARMS, help="arms, or single cells as SHARE-STRUCTURE.SEED")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the cells; default: results/halving")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    torch.set_num_threads(1)
    bench = racing.bench_of_adapted(arguments.weights, arguments.data_root, arguments.cache)
    run(bench, cells_of(arguments.cells), arguments.out)


if __name__ == "__main__":
    main()
