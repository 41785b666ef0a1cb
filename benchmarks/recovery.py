"""Who ends with the most accurate network of the same MACs, after a short finetuning on CIFAR-10 at 32 pixels?

    pip install nvidia-modelopt torchprofile==0.0.4
    python benchmarks/adapt.py --data-root D --out F
    python benchmarks/recovery.py --data-root D --weights F/resnet20.safetensors [--network resnet20] [--share 50]
        [--cells ours.0 fastnas]

A cell is an arm and a seed, `ours.0`. An arm prunes the adapted public network on the 2,048 search images
(`realdata.py`), and trains what it gets on 45,000 others. Arms that end in `taught` differ from their namesakes by the
teacher alone; `ours-longer` trains for as many epochs as let search and training cost what FastNAS and its two epochs
do. BatchNorm statistics are re-estimated on the search images before. The 10,000 test images are looked at once, at the
very end of a cell; choices were made on the unseen training images. CPU-seconds are of one thread, evaluation left out.
Each cell is a file of its own in `results/recovery_NETWORK_SHARE`; run again to go on. Cells of one seed are of the
same network; those of another seed may be of a network that was adapted anew.

Torch-Pruning takes no part: of networks whose shortcuts have no parameters, such as these, it builds some that do not
run. Another way to prune takes part by one line in `ARMS`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import peers
import realdata
import torch
from cells import Grid, conditions, fill
from racing import Bench, bench_of, judged
from torch import nn

import prunesearch as ps
from prunesearch.training.finetune import train

RESULTS = Path(__file__).parent / "results"
NETWORKS = ("resnet20", "resnet56")
SEEDS = 5

PLAIN = ps.Recipe(epochs=2, lr=0.05, augmentation=ps.Augmentation(flip=True, crop=4))
"""Of all arms, but for what their names say."""


@dataclass(frozen=True)
class Place:
    """What is the same for all arms of a seed.

    Attributes:
        bench: The network and the images.
        limit: On its MACs.
        macs: The same as a number.
        seed: Of the search and the training.
    """

    bench: Bench
    limit: ps.Budget
    macs: int
    seed: int


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
    """

    prune: Callable[[Place], Found]
    recipe: ps.Recipe = PLAIN
    taught: bool = False


def searched(place: Place, **settings: Any) -> Found:
    """By a search of ours."""
    result = ps.search(place.bench.network, place.bench.data, budget=place.limit, seed=place.seed, **settings)
    return Found(result.best.build(), result.best.structure, len(result.trials))


def peer(place: Place, prune: Callable[..., peers.Pruned]) -> Found:
    """By another library."""
    pruned = prune(place.bench.network.model, *place.bench.search, place.macs)
    ps.recalibrate_bn(pruned.model, place.bench.search[0])
    return Found(pruned.model, None, pruned.evaluations, pruned.seconds_again)


L1 = ps.Scoring(criterion="l1")
ours: Callable[[Place], Found] = partial(searched, n_trials=100)
fastnas: Callable[[Place], Found] = partial(peer, prune=peers.fastnas)
uniform: Callable[[Place], Found] = partial(searched, searcher="uniform", scoring=L1)

ARMS: Mapping[str, Arm] = {
    "ours": Arm(ours, taught=True),
    "fastnas": Arm(fastnas),
    "uniform": Arm(uniform),
    "global-l1": Arm(partial(searched, searcher="global", scoring=L1)),
    "ours-longer": Arm(ours, replace(PLAIN, epochs=4), taught=True),
    "scratch": Arm(uniform, replace(PLAIN, epochs=6, lr=0.1, from_scratch=True)),
    "fastnas-taught": Arm(fastnas, taught=True),
    "uniform-taught": Arm(uniform, taught=True),
    "ours-untaught": Arm(ours),
}
"""By name, in the order in which the cells of a seed are measured."""

cells_of = Grid(ARMS, range(SEEDS), f"ARM.SEED with seeds below {SEEDS}").chosen


def measured(place: Place, arm: Arm, test: realdata.Pair) -> dict[str, Any]:
    """One cell."""
    start = time.process_time()
    found = arm.prune(place)
    seconds = {"search": time.process_time() - start - found.seconds_again}
    cost = ps.count(found.model, place.bench.search[0][:1])
    loss, before = judged(found.model, *place.bench.unseen)
    start = time.process_time()
    teacher = place.bench.network.model if arm.taught else None
    trained = train(
        found.model, ps.Data(train=place.bench.train), recipe=arm.recipe, teacher=teacher, seed=place.seed
    ).last
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
        "epochs": arm.recipe.epochs,
        "recipe": repr(arm.recipe),
        "evaluations": found.evaluations,
        "structure": None if found.structure is None else list(found.structure),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def run(bench: Bench, test: realdata.Pair, limit: ps.Budget, cells: Sequence[str], out: Path) -> None:
    """Measure all cells that are empty.

    Raises:
        SystemExit: A cell that is there is of another network or limit.
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
        **conditions(**peers.versions()),
    }

    def measure(arm: str, seed: int) -> tuple[dict[str, Any], str]:
        row = measured(Place(bench, limit, macs, seed), ARMS[arm], test)
        says = f"{row['before']['accuracy']:.1%} before, {row['test']['accuracy']:.2%} on test images, {row['seconds']}"
        return {"seed": seed, "row": row}, says

    fill(cells, out, facts, ("network", "limit"), measure)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--network", default=NETWORKS[0], choices=NETWORKS)
    parser.add_argument("--weights", type=Path, required=True, help="of the adapted network, by adapt.py")
    parser.add_argument("--share", type=int, default=50, help="per cent of the MACs; default: 50")
    parser.add_argument("--cells", nargs="*", default=list(ARMS), help="arms, or single cells as ARM.SEED")
    parser.add_argument("--out", type=Path, help="folder of the cells; default: results/recovery_NETWORK_SHARE")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    cells = cells_of(arguments.cells)
    torch.set_num_threads(1)
    model = ps.make_model(arguments.network)
    ps.load_weights(model, arguments.weights)
    cifar = realdata.cifar10(arguments.data_root, arguments.cache)
    test = realdata.normalised(cifar.test[0]), cifar.test[1]
    out = arguments.out or RESULTS / f"recovery_{arguments.network}_{arguments.share}"
    run(bench_of(model, cifar), test, ps.Budget(macs=f"{arguments.share}%"), cells, out)


if __name__ == "__main__":
    main()
