"""What is a search worth on images that it did not see, and how many CPU-seconds does it take?

    python benchmarks/racing.py --data-root D [--cells uniform surrogate-race.0]
    python benchmarks/racing.py --data-root D --network vgg --share 50

The public ResNet-20, adapted to the JPEG images of CIFAR-10 (`weights.py`), under a limit on MACs; or a network of
`networks.py` with a share of its MACs. A cell is an arm and a seed, `surrogate-race.0`. An arm searches on the 2,048
search images (`realdata.py`); its winner keeps its inherited weights, gets BatchNorm statistics of those images, and is
judged once by its loss on the 2,048 unseen ones; so are the structures that were the best earlier in the same search,
as more structures should never end worse. CPU-seconds are those of the search, in one thread. Each cell is a file of
its own in `results/racing`, or in `results/racing_NETWORK_SHARE`; run again to go on.

Registered before the first cell with `--network` was measured: with each network, share and seed, the winner of 100
structures of `surrogate-race` has a lower loss on the unseen images than `uniform-filled`, and than `random-race` with
as many structures as take the same CPU-seconds or more. After 400 structures its loss is nowhere more than 0.02 above
that after 100.

Another search takes part by one line in `ARMS`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import realdata
import tasks
import torch
import torch.nn.functional as F
from cells import Grid, check_recipe, conditions, fill
from networks import NETWORKS
from rivals import FilledUniform
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.study.events import Event
from prunesearch.trial import Trial

RESULTS = Path(__file__).parent / "results" / "racing"
WEIGHTS = tasks.TRAINED / "resnet20.safetensors"
LIMIT = "19.91M"
"""MACs, of 40.55 million."""

SEEDS, BATCH = 5, 256


@dataclass(frozen=True)
class Arm:
    """A search.

    Attributes:
        settings: Arguments of `ps.search`.
        counts: Numbers of structures after which the best so far is judged; a search that goes on has the same history.
    """

    settings: Mapping[str, Any]
    counts: tuple[int, ...]


L1, FIXED = ps.Scoring(criterion="l1"), ps.Scoring(images=64, race=False)

ARMS: Mapping[str, Arm] = {
    "uniform": Arm({"searcher": "uniform"}, (1,)),
    "surrogate-race": Arm({"searcher": "surrogate"}, (100, 200, 400)),
    "uniform-filled": Arm({"searcher": FilledUniform}, (1,)),
    "uniform-l1": Arm({"searcher": "uniform", "scoring": L1}, (1,)),
    "surrogate-race-l1": Arm({"searcher": "surrogate", "scoring": L1}, (100, 200)),
    "random-race": Arm({"searcher": "random"}, (100, 200, 400)),
    "evolution-race": Arm({"searcher": "evolution"}, (100, 200)),
    "surrogate-64": Arm({"searcher": "surrogate", "scoring": FIXED}, (200, 600)),
    "surrogate-512": Arm({"searcher": "surrogate", "scoring": replace(FIXED, images=512)}, (200,)),
    "surrogate-race-long": Arm({"searcher": "surrogate"}, (800,)),
}
"""By name: the searcher; `race` (few images first, more for what may be the best) or the images that score each; and
the channel criterion, where it is not the default."""

TOLD = ("uniform-filled", "surrogate-race", "random-race")
"""Arms that are measured of other networks, unless others are named."""

cells_of = Grid(ARMS, range(SEEDS), f"ARM.SEED with seeds below {SEEDS}").chosen


@dataclass(frozen=True)
class Bench:
    """What all cells share.

    Attributes:
        network: Traced, with its trained weights.
        search: Images and labels that searches see.
        train: Images and labels to train on, for searches that do.
        unseen: Images and labels that judge winners.
    """

    network: ps.Network
    search: realdata.Pair
    train: realdata.Pair
    unseen: realdata.Pair

    @property
    def data(self) -> ps.Data:
        """As an arm gets it."""
        return ps.Data(train=self.train, calibrate_on=self.search, calibration=len(self.search[0]))


def bench_of(model: nn.Module, parts: realdata.Parts) -> Bench:
    """Of a data set and a network for it."""
    search, train, unseen = (parts.normalised(part) for part in (parts.search, parts.train, parts.unseen))
    return Bench(ps.trace(model.eval(), search[0][:2]), search, train, unseen)


def bench_of_adapted(weights: Path, root: Path, cache: Path) -> Bench:
    """Of the public ResNet-20 with the weights that weights.py made."""
    model = ps.make_model("resnet20")
    ps.load_weights(model, weights)
    return bench_of(model, realdata.cifar10(root, cache))


def bench_of_trained(name: str, weights: Path | None, parts: realdata.Parts) -> Bench:
    """Of a network of `NETWORKS`, with the weights that weights.py made or others, and its images."""
    subject, file = NETWORKS[name], weights or tasks.TRAINED / f"{name}.safetensors"
    model = subject.make()
    check_recipe(file, subject.recipe)
    ps.load_weights(model, file)
    return bench_of(model, parts)


def measured(bench: Bench, arm: Arm, seed: int, limit: ps.Budget) -> list[dict[str, Any]]:
    """One cell: what the best structure is worth after each number of structures."""
    start, wall = time.process_time(), time.perf_counter()
    marks: list[tuple[Trial, dict[str, float]]] = []

    def mark(event: Event) -> None:
        if event.trial.number + 1 in arm.counts and event.best is not None:
            seconds = {"cpu": time.process_time() - start, "wall": time.perf_counter() - wall}
            marks.append((event.best, {name: round(value, 2) for name, value in seconds.items()}))

    result = ps.search(
        bench.network,
        bench.data,
        budget=limit,
        seed=seed,
        n_trials=max(arm.counts),
        running=ps.Running(callbacks=[mark]),
        **arm.settings,
    )
    unpruned, _ = judged(bench.network.model, *bench.unseen)
    rows = []
    for count, (trial, seconds) in zip(arm.counts, marks, strict=True):
        loss, accuracy = judged(replace(result.best, trial=trial).build(), *bench.unseen)
        rows.append(
            {
                "evaluations": count,
                "images scored": sum(each.images or 0 for each in result.trials[:count]),
                "loss": loss,
                "accuracy": accuracy,
                "score": trial.score,
                "unpruned loss": unpruned,
                "macs": trial.cost.macs,
                "params": trial.cost.params,
                "structure": list(trial.structure),
                "seconds": seconds,
            }
        )
    return rows


def judged(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in eval mode."""
    with torch.inference_mode():
        logits = torch.cat([model(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
    return float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())


def facts(bench: Bench, limit: ps.Budget) -> dict[str, Any]:
    """What a cell was measured on and with. Cells of one table have the same, but for machine and versions."""
    return {
        "network": bench.network.fingerprint(),
        "limit": str(limit),
        "full macs": bench.network.space.cost(bench.network.space.full).macs,
        "search images": len(bench.search[0]),
        "unseen images": len(bench.unseen[0]),
        **conditions(),
    }


def run(bench: Bench, cells: Sequence[str], out: Path, limit: ps.Budget) -> None:
    """Measure all cells that are empty.

    Raises:
        SystemExit: A cell that is there is of another network or limit.
    """

    def measure(arm: str, seed: int) -> tuple[dict[str, Any], str]:
        found = measured(bench, ARMS[arm], seed, limit)
        told = (f"{row['evaluations']}: {row['loss']:.3f}, {row['seconds']['cpu']:.0f} CPU-seconds" for row in found)
        return {"seed": seed, "rows": found}, f"loss on unseen images after {'; '.join(told)}"

    fill(cells, out, facts(bench, limit), ("network", "limit", "search images", "unseen images"), measure)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--network", choices=NETWORKS, help=f"default: resnet20 with {LIMIT} MACs")
    parser.add_argument("--share", type=int, default=50, help="per cent of the MACs, with --network; default: 50")
    parser.add_argument("--weights", type=Path, help="of the trained network; default: those of weights.py")
    told = f"arms, or single cells as ARM.SEED; default: all, with --network {', '.join(TOLD)}"
    parser.add_argument("--cells", nargs="*", help=told)
    parser.add_argument("--out", type=Path, help="folder of the cells; default: results/racing[_NETWORK_SHARE]")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    root, cache, name = arguments.data_root, arguments.cache, arguments.network
    torch.set_num_threads(1)
    if name is None:
        bench, out = bench_of_adapted(arguments.weights or WEIGHTS, root, cache), RESULTS
        told, limit = list(ARMS), ps.Budget(macs=LIMIT)
    else:
        bench = bench_of_trained(name, arguments.weights, NETWORKS[name].data(root, cache))
        out = RESULTS.with_name(f"{RESULTS.name}_{name}_{arguments.share}")
        told, limit = list(TOLD), ps.Budget(macs=f"{arguments.share}%")
    run(bench, cells_of(arguments.cells or told), arguments.out or out, limit)


if __name__ == "__main__":
    main()
