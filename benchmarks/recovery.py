"""Who ends with the most accurate network of the same MACs, after a short finetuning on images of real size?

    pip install torch-pruning nvidia-modelopt torchprofile==0.0.4
    python benchmarks/weights.py --data-root D --networks vgg
    python benchmarks/recovery.py --data-root D --network vgg [--share 50]
        [--cells ours.0 fastnas]

The networks and their images are in `networks.py`; those of Fashion-MNIST want the folder of its files as
`--data-root`. A cell is an arm and a seed, `ours.0`. An arm prunes the trained network on the 2,048 search images
(`realdata.py`), and trains what it gets on 45,000 others. Arms that end in `taught` differ from their namesakes by the
teacher alone: without them, and `ours-untaught`, a difference is of search and teacher together. `ours-longer` trains
for as many epochs as let search and training cost what FastNAS and its two epochs do on ResNet-20. BatchNorm statistics
are re-estimated on the search images before. The 10,000 test images are looked at once, at the very end of a cell;
choices were made on the unseen training images. CPU-seconds are of one thread, evaluation left out. Each cell is a file
of its own in `results/recovery_NETWORK_SHARE`; run again to go on. Cells of one seed are of the same network; those of
another seed may be of a network that was trained anew.

Two arms train the uniform structure from random weights. `scratch` may take as many CPU-seconds as `ours` took for
search and training: that many epochs, rounded up, of the length that `uniform` of the seed measured with the same
structure. So both are measured before. `sibling` trains for as many epochs as the unpruned network did, and as
finetuning does: it is the thinner network that one could have trained at once.

Another way to prune takes part by one line in `ARMS`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import peers
import realdata
import torch
from cells import Grid, conditions, fill, stored
from networks import CHANGED_AT_RANDOM, FROM_SCRATCH, NETWORKS, Subject
from racing import Bench, bench_of_trained, judged
from rivals import filled_uniform
from torch import nn

import prunesearch as ps
from prunesearch.training.finetune import train

RESULTS = Path(__file__).parent / "results"
SEEDS = 5
SAME = ("network", "limit", "search images", "train images", "test images", "recipe", "unpruned recipe")
"""Facts that all cells of a folder share. The first cells were measured before recipes were among the facts."""

PLAIN = ps.Recipe(epochs=2, lr=0.05, augmentation=CHANGED_AT_RANDOM)
"""Of all arms, but for what their names say, and for the size of batches, which the network decides."""


@dataclass(frozen=True)
class Place:
    """What is the same for all arms of a seed.

    Attributes:
        bench: The network and the images.
        limit: On its MACs.
        macs: The same as a number.
        seed: Of the search and the training.
        unpruned: How the network was trained.
        rows: What was measured before with this seed, by arm.
    """

    bench: Bench
    limit: ps.Budget
    macs: int
    seed: int
    unpruned: ps.Recipe = FROM_SCRATCH
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What comes of pruning.

    Attributes:
        model: The pruned network.
        structure: Widths of its groups; None of a library that has other ones.
        evaluations: How many structures were scored.
        seconds_again: Spent only to hit our count of MACs with a library that counts otherwise; not charged.
    """

    model: nn.Module
    structure: Sequence[int] | None = None
    evaluations: int = 0
    seconds_again: float = 0.0


@dataclass(frozen=True)
class Arm:
    """A way to prune and to train.

    Attributes:
        prune: The first half.
        recipe: The second.
        taught: Whether the unpruned network is the teacher.
        epochs: How many it trains for, where that follows from the place and not from the recipe.
    """

    prune: Callable[[Place], Found]
    recipe: ps.Recipe = PLAIN
    taught: bool = False
    epochs: Callable[[Place], int] | None = None

    def training(self, place: Place) -> ps.Recipe:
        """The recipe at a place."""
        epochs = self.recipe.epochs if self.epochs is None else self.epochs(place)
        return replace(self.recipe, epochs=epochs, batch_size=place.unpruned.batch_size)


L1 = ps.Scoring(criterion="l1")


def searched(place: Place, **settings: Any) -> Found:
    """By a search of ours."""
    result = ps.search(place.bench.network, place.bench.data, budget=place.limit, seed=place.seed, **settings)
    return Found(result.best.build(), result.best.structure, len(result.trials))


def peer(place: Place, prune: Callable[..., peers.Pruned]) -> Found:
    """By another library."""
    pruned = prune(place.bench.network.model, *place.bench.search, place.macs)
    ps.recalibrate_bn(pruned.model, place.bench.search[0])
    return Found(pruned.model, None, pruned.evaluations, pruned.seconds_again)


def uniform(place: Place) -> Found:
    """Uniform widths, filled up to the limit."""
    bench, limit = place.bench, place.limit
    result = ps.search(bench.network, bench.data, budget=limit, seed=place.seed, searcher="uniform", scoring=L1)
    structure = filled_uniform(limit.check(bench.network))
    return Found(result.build(structure), structure, len(result.trials))


def as_long_as_ours(place: Place) -> int:
    """Epochs of the uniform structure that cost the CPU-seconds of `ours`, its search included; rounded up.

    Raises:
        SystemExit: `ours` or `uniform` of the seed, which say how long, are not measured.
    """
    missing = [f"{arm}.{place.seed}" for arm in ("ours", "uniform") if arm not in place.rows]
    if missing:
        raise SystemExit(f"How long scratch may train follows from {' and '.join(missing)}; measure them first.")
    ours, same = place.rows["ours"]["seconds"], place.rows["uniform"]
    return math.ceil((ours["search"] + ours["training"]) / (same["seconds"]["training"] / same["epochs"]))


def as_long_as_unpruned(place: Place) -> int:
    """Epochs of the unpruned network and of the finetuning that pruned ones have."""
    return place.unpruned.epochs + PLAIN.epochs


ours: Callable[[Place], Found] = partial(searched, n_trials=100)
fastnas: Callable[[Place], Found] = partial(peer, prune=peers.fastnas)

ARMS: Mapping[str, Arm] = {
    "ours": Arm(ours, taught=True),
    "fastnas": Arm(fastnas),
    "uniform": Arm(uniform),
    "global-l1": Arm(partial(searched, searcher="global", scoring=L1)),
    "ours-longer": Arm(ours, replace(PLAIN, epochs=4), taught=True),
    "torch-pruning-taylor": Arm(partial(peer, prune=partial(peers.torch_pruning, importance="taylor"))),
    "torch-pruning-norm": Arm(partial(peer, prune=partial(peers.torch_pruning, importance="norm"))),
    "scratch": Arm(uniform, FROM_SCRATCH, epochs=as_long_as_ours),
    "sibling": Arm(uniform, FROM_SCRATCH, epochs=as_long_as_unpruned),
    "fastnas-taught": Arm(fastnas, taught=True),
    "uniform-taught": Arm(uniform, taught=True),
    "ours-untaught": Arm(ours),
}
"""By name, in the order in which the cells of a seed are measured."""

TOLD = (
    "ours",
    "fastnas",
    "uniform",
    "global-l1",
    "torch-pruning-taylor",
    "torch-pruning-norm",
    "scratch",
    "fastnas-taught",
    "uniform-taught",
    "ours-untaught",
)
"""Arms that are measured unless others are named, and of which the README's table is."""

cells_of = Grid(ARMS, range(SEEDS), f"ARM.SEED with seeds below {SEEDS}").chosen


def chosen(name: str, subject: Subject, wanted: Sequence[str]) -> list[str]:
    """Cells of a network; of nothing in particular those of `TOLD` with the first three seeds.

    Raises:
        SystemExit: There is no such arm or cell, or the network does not have the arm.
    """
    told = [f"{arm}.{seed}" for arm in TOLD if arm not in subject.left_out for seed in range(3)]
    cells = cells_of(wanted or told)
    for arm in dict.fromkeys(cell.rpartition(".")[0] for cell in cells):
        if arm in subject.left_out:
            raise SystemExit(f"{name} has no arm {arm}: {subject.left_out[arm]}")
    return cells


def measured(place: Place, arm: Arm, test: realdata.Pair) -> dict[str, Any]:
    """One cell."""
    recipe, start = arm.training(place), time.process_time()
    found = arm.prune(place)
    seconds = {"search": time.process_time() - start - found.seconds_again}
    cost = ps.count(found.model, place.bench.search[0][:1])
    loss, before = judged(found.model, *place.bench.unseen)
    start = time.process_time()
    teacher = place.bench.network.model if arm.taught else None
    data = ps.Data(train=place.bench.train)
    trained = train(found.model, data, recipe=recipe, teacher=teacher, seed=place.seed).last
    seconds["training"] = time.process_time() - start
    unseen_loss, unseen = judged(trained, *place.bench.unseen)
    test_loss, accuracy = judged(trained, *test)
    return {
        "macs": cost.macs,
        "params": cost.params,
        "holds": cost.macs <= place.macs,
        "before": {"loss": loss, "accuracy": before},
        "unseen": {"loss": unseen_loss, "accuracy": unseen},
        "test": {"loss": test_loss, "accuracy": accuracy},
        "epochs": recipe.epochs,
        "recipe": repr(recipe),
        "evaluations": found.evaluations,
        "structure": None if found.structure is None else list(found.structure),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def run(
    bench: Bench,
    test: realdata.Pair,
    limit: ps.Budget,
    cells: Sequence[str],
    out: Path,
    unpruned: ps.Recipe = FROM_SCRATCH,
) -> None:
    """Measure all cells that are empty.

    Raises:
        SystemExit: A cell that is there is of another network or limit, or one that must be there first is not.
    """
    loss, accuracy = judged(bench.network.model, *test)
    full = bench.network.space.cost(bench.network.space.full)
    macs = int(limit.check(bench.network.space).limits[0][1])
    facts = {
        "network": bench.network.fingerprint(),
        "limit": str(limit),
        "macs": macs,
        "full macs": full.macs,
        "full params": full.params,
        "unpruned": {"loss": loss, "accuracy": accuracy},
        "search images": len(bench.search[0]),
        "train images": len(bench.train[0]),
        "test images": len(test[0]),
        "recipe": repr(PLAIN),
        "unpruned recipe": repr(unpruned),
        **conditions(**peers.versions()),
    }

    def measure(arm: str, seed: int) -> tuple[dict[str, Any], str]:
        before = {name: stored(f"{name}.{seed}", out, facts, SAME) for name in ARMS}
        rows = {name: cell["row"] for name, cell in before.items() if cell is not None}
        row = measured(Place(bench, limit, macs, seed, unpruned, rows), ARMS[arm], test)
        says = f"{row['before']['accuracy']:.1%} before, {row['test']['accuracy']:.2%} on test images, {row['seconds']}"
        return {"seed": seed, "row": row}, says

    fill(cells, out, facts, SAME, measure)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--network", default="resnet20", choices=NETWORKS)
    parser.add_argument("--weights", type=Path, help="of the trained network; default: those of weights.py")
    parser.add_argument("--share", type=int, default=50, help="per cent of the MACs; default: 50")
    told = f"arms, or single cells as ARM.SEED; default: the first three seeds of {', '.join(TOLD)}"
    parser.add_argument("--cells", nargs="*", default=(), help=told)
    parser.add_argument("--out", type=Path, help="folder of the cells; default: results/recovery_NETWORK_SHARE")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    subject = NETWORKS[arguments.network]
    cells = chosen(arguments.network, subject, arguments.cells)
    torch.set_num_threads(1)
    parts = subject.data(arguments.data_root, arguments.cache)
    bench = bench_of_trained(arguments.network, arguments.weights, parts)
    out = arguments.out or RESULTS / f"recovery_{arguments.network}_{arguments.share}"
    limit = ps.Budget(macs=f"{arguments.share}%")
    run(bench, parts.normalised(parts.test), limit, cells, out, subject.recipe)


if __name__ == "__main__":
    main()
