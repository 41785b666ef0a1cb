"""How much of what slicing loses do refitted weights bring back, before any finetuning? A U-Net on CamVid.

    python benchmarks/recovery_tasks.py --data-root DATA --weights unet.safetensors [--cells 70-cap.0 50-l1]

The U-Net of `unet.py` (trained first if the file is missing) is brought to a share of its multiply-accumulates, with
the channels that a criterion chooses: to uniform widths (number 0), and to random ones (other numbers are seeds). Each
structure is built with inherited, compensated and reconstructed weights; BatchNorm statistics are re-estimated, and
weights refitted, on training images; test images, which nothing was chosen by, judge. A cell is a file of its own in
`results/recovery_tasks`; run again to go on. A cell takes a CPU-minute or less, the training about eight.

The aim, written down before: at 70 % of the multiply-accumulates, at least 80 % of what slicing loses comes back.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import realdata
import torch
import unet
from cells import Grid, conditions, fill

import prunesearch as ps
from prunesearch.evaluators.accuracy import measured_on
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.compensation import CompensatedWeights
from prunesearch.evaluators.reconstructed import ReconstructedWeights
from prunesearch.models.ranking import Ranking
from prunesearch.models.weights import InheritedWeights, WeightSource
from prunesearch.search.uniform import uniform_structure
from prunesearch.tasks.examples import Examples

OUT = Path(__file__).parent / "results" / "recovery_tasks"
ARMS, NUMBERS = ("70-cap", "70-l1", "50-cap", "50-l1"), range(4)
"""Per cent of the MACs, and the criterion."""
SEEN = 128


@dataclass(frozen=True)
class Bench:
    """A trained network, and the images that refit and judge it.

    Attributes:
        network: Traced.
        rankings: By criterion, which channels stay.
        seen: (n, 3, h, w) images that refit weights and re-estimate statistics.
        test: Images and labels that judge.
    """

    network: ps.Network
    rankings: Mapping[str, Ranking]
    seen: torch.Tensor
    test: Examples


def sources(bench: Bench, criterion: str) -> dict[str, WeightSource]:
    """Where weights come from, by the name in the table."""
    network, ranking = bench.network, bench.rankings[criterion]
    return {
        "inherited": InheritedWeights(network, ranking),
        "compensated": CompensatedWeights(network, ranking, bench.seen),
        "reconstructed": ReconstructedWeights(network, ranking, bench.seen),
    }


def structure_of(space: ps.Space, share: str, number: int) -> ps.Structure:
    """Uniform widths for number 0; else random ones, at a share of the MACs."""
    feasible = ps.Budget(macs=f"{share}%").check(space)
    if number == 0:
        return uniform_structure(feasible)
    (drawn,) = feasible.fit(space.sample(np.random.default_rng([number, int(share)]), 1)).tolist()
    return space.check(drawn)


def measured(bench: Bench, criterion: str, structure: ps.Structure) -> dict[str, Any]:
    """The mIoU on the test images with each kind of weights, and the CPU-seconds that building takes."""
    space, found, seconds = bench.network.space, {}, {}
    for name, weights in sources(bench, criterion).items():
        start = time.process_time()
        small = weights.build(structure)
        ps.recalibrate_bn(small, bench.seen)
        seconds[name] = round(time.process_time() - start, 1)
        found[name] = measured_on(small, bench.test, batch_size=32)
    macs = space.cost(structure).macs / space.cost(space.full).macs
    return {"structure": list(structure), "macs": macs, "mIoU": found, "seconds": seconds}


def run(bench: Bench, cells: list[str], out: Path) -> None:
    """Measure all cells that are empty.

    Raises:
        SystemExit: A cell that is there is of another network or of other images.
    """
    facts = {
        "network": bench.network.fingerprint(),
        "unpruned": measured_on(bench.network.model, bench.test, batch_size=32),
        "seen images": len(bench.seen),
        "test images": len(bench.test),
        **conditions(),
    }

    def measure(arm: str, number: int) -> tuple[dict[str, Any], str]:
        share, criterion = arm.split("-")
        row = measured(bench, criterion, structure_of(bench.network.space, share, number))
        return {"number": number, "row": row}, ", ".join(f"{name} {value:.3f}" for name, value in row["mIoU"].items())

    fill(cells, out, facts, ("network", "seen images", "test images"), measure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--weights", type=Path, required=True, help="file of the U-Net, made if it is not there")
    parser.add_argument("--cells", nargs="+", default=list(ARMS), help="arms, or cells such as 70-cap.0; default: all")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (unet.street_scenes(options.data_root, options.cache, part) for part in ("train", "test"))
    network = ps.trace(unet.trained(train, options.weights), train[0][:2])
    examples = ps.Data(train, task=ps.tasks.segmentation(ignore_index=unet.VOID)).examples_of(test)
    seen = train[0][:SEEN]
    rankings = {name: make_criterion(name).rank(network, Examples(seen, ps.tasks.fidelity())) for name in ("cap", "l1")}
    bench = Bench(network, rankings, seen, examples)
    run(bench, Grid(ARMS, NUMBERS, "ARM.NUMBER such as 70-cap.0").chosen(options.cells), options.out)


if __name__ == "__main__":
    main()
