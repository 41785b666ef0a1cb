"""How much of what slicing loses do refitted weights bring back, before any finetuning? A segmenter and a detector.

    python benchmarks/recovery_tasks.py --data-root DATA [--cells 70-cap.0 50-l1]
    pip install 'prunesearch[ultralytics]'
    python benchmarks/recovery_tasks.py --data-root DATA --on yolo

The U-Net of CamVid, or the YOLOv8n of blood cells (`places.py`, seed 0; trained first if the cache does not have them),
is brought to a share of its multiply-accumulates, with the channels that a criterion chooses: to uniform widths (number
0), to random ones (other numbers are seeds), or to those that the default search finds (`searched`; numbers are seeds).
Each structure is built with inherited, compensated and reconstructed weights; BatchNorm statistics are re-estimated,
and weights refitted, on training images; test images, which nothing was chosen by, judge. A cell is a file of its own
in `results/recovery_tasks`, or `results/recovery_tasks_yolo`; run again to go on. A cell takes a CPU-minute or less, a
search one more, the training three to eight.

The aim, written down before: at 70 % of the multiply-accumulates, at least 80 % of what slicing loses comes back.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import realdata
import torch
from cells import Grid, conditions, fill
from places import NETWORKS, Place
from torch import nn

import prunesearch as ps
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.compensation import CompensatedWeights
from prunesearch.evaluators.reconstructed import ReconstructedWeights
from prunesearch.models.ranking import Ranking
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.search.uniform import uniform_structure
from prunesearch.tasks.examples import Examples

RESULTS = Path(__file__).parent / "results"
ARMS, NUMBERS = ("70-cap", "70-l1", "50-cap", "50-l1", "70-cap-searched", "50-cap-searched"), range(4)
"""Per cent of the MACs, and the criterion."""
SEEN, TRIALS = 128, 60


@dataclass(frozen=True)
class Bench:
    """A trained network, and the images that refit and judge it.

    Attributes:
        network: Traced.
        rankings: By criterion, which channels stay.
        seen: (n, 3, h, w) images that refit weights and re-estimate statistics.
        data: What a search sees.
        judged: The metric of a network on test images.
        metric: Its name.
    """

    network: ps.Network
    rankings: Mapping[str, Ranking]
    seen: torch.Tensor
    data: ps.Data
    judged: Callable[[nn.Module], float]
    metric: str


def bench_of(place: Place) -> Bench:
    """Of a network and its data."""
    data = place.data
    seen = data.goal.inputs(data.first(SEEN))
    network = ps.trace(place.unpruned()[0], seen[:2], round_to=place.multiple[0])
    rankings = {name: make_criterion(name).rank(network, Examples(seen, ps.tasks.fidelity())) for name in ("cap", "l1")}
    return Bench(network, rankings, seen, data, lambda model: place.judged(model, place.size), place.metric)


def sources(bench: Bench, criterion: str) -> dict[str, WeightSource]:
    """Where weights come from, by the name in the table."""
    network, ranking = bench.network, bench.rankings[criterion]
    return {
        "inherited": InheritedWeights(network, ranking),
        "compensated": CompensatedWeights(network, ranking, bench.seen),
        "reconstructed": ReconstructedWeights(network, ranking, bench.seen),
    }


def structure_of(bench: Bench, share: str, number: int, searched: bool = False) -> ps.Structure:
    """Of a search with a seed; or uniform widths for number 0, else random ones, at a share of the MACs."""
    space, limit = bench.network.space, ps.Budget(macs=f"{share}%")
    if searched:
        return ps.search(bench.network, bench.data, budget=limit, seed=number, n_trials=TRIALS).best.structure
    feasible = limit.check(space)
    if number == 0:
        return uniform_structure(feasible)
    (drawn,) = feasible.fit(space.sample(np.random.default_rng([number, int(share)]), 1)).tolist()
    return space.check(drawn)


def measured(bench: Bench, criterion: str, structure: ps.Structure) -> dict[str, Any]:
    """The metric on the test images with each kind of weights, and the CPU-seconds that building takes."""
    space, found, seconds = bench.network.space, {}, {}
    for name, weights in sources(bench, criterion).items():
        start = time.process_time()
        small = weights.build(structure)
        ps.recalibrate_bn(small, bench.seen)
        seconds[name] = round(time.process_time() - start, 1)
        found[name] = bench.judged(small)
    macs = space.cost(structure).macs / space.cost(space.full).macs
    return {"structure": list(structure), "macs": macs, "reached": found, "seconds": seconds}


def run(bench: Bench, cells: list[str], out: Path) -> None:
    """Measure all cells that are empty.

    Raises:
        SystemExit: A cell that is there is of another network or of other images.
    """
    facts = {
        "network": bench.network.fingerprint(),
        "metric": bench.metric,
        "unpruned": bench.judged(bench.network.model),
        "seen images": len(bench.seen),
        "trials": TRIALS,
        **conditions(),
    }

    def measure(arm: str, number: int) -> tuple[dict[str, Any], str]:
        share, criterion, *kind = arm.split("-")
        row = measured(bench, criterion, structure_of(bench, share, number, kind == ["searched"]))
        told = ", ".join(f"{name} {value:.3f}" for name, value in row["reached"].items())
        return {"number": number, "row": row}, told

    fill(cells, out, facts, ("network", "metric", "seen images", "trials"), measure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--on", choices=NETWORKS, default="unet", help="the network and its data")
    parser.add_argument("--cells", nargs="+", default=list(ARMS), help="arms, or cells such as 70-cap.0; default: all")
    parser.add_argument("--out", type=Path, help="folder of the cells; default: results/recovery_tasks[_yolo]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = Grid(ARMS, NUMBERS, "ARM.NUMBER such as 70-cap.0").chosen(options.cells)
    kind, effort = NETWORKS[options.on]
    out = RESULTS / ("recovery_tasks" if options.on == "unet" else f"recovery_tasks_{options.on}")
    run(bench_of(kind(options.data_root, options.cache, effort, 0)), cells, options.out or out)


if __name__ == "__main__":
    main()
