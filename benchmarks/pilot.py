"""Does it show at all which structure is best? A pilot on CIFAR-10, before anything is said about who finds it.

    python benchmarks/pilot.py --data-root D [--shares 20 10] [--cells 20-even-1 20-front-3.2]

The network is MobileNet V1 up to its seventh block of 13, half as wide. A cell is a structure and a seed: trained
from scratch, and judged by its loss and accuracy on the 10,000 test images. There are 30 structures for each share of
the MACs: five of each of six `SHAPES`, all as wide as the limit allows. The truth about a structure is its mean over
the seeds. Its *reliability* is the share of the variance of these means that is not due to the seeds: ICC(1,k) of a
one-way model with random effects (`tabulated/pilot.py`). To make hundreds of trainings affordable, images are averaged
over 2x2 pixels, so they have 16x16, and a training sees 20,000 images twice: a short training, and the truth is about
such ones. Each cell is a file of its own in `results/pilot`; run again to go on.

Registered before the cells were measured (one structure had been trained once, to see how long it takes):

- The rule: sources of weights are compared (`generated.py`) at those shares where the reliability of the test
  accuracy is above 0.6, and at no others. The loss stands beside it and decides nothing.
- The expectation: at 20 % the standard deviation between structures is about 1.5 points of accuracy and that between
  seeds 1 point, so that the reliability of the mean of three seeds is about 0.85; at 10 % it is not lower, as shapes
  differ more where every channel counts. Structures that are narrow in front are worst.

Registered a second time, after three seeds of each structure had given 0.55 at 20 % and 0.58 at 10 %, and before any of
the others:

- Three more seeds of all structures are trained, so the truth is the mean of six. The rule stays, and is asked of these
  means. Should it still not be met, there are no further seeds.
- The expectation, by the formula of Spearman and Brown: 0.71 at 20 % and 0.73 at 10 %.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import realdata
import torch
import torch.nn.functional as F
from cells import Grid, conditions, fill
from racing import judged
from torch import nn

import prunesearch as ps
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.zoo.mobilenet import DepthwiseSeparable, conv_bn
from prunesearch.structure import FloatArray, Structure
from prunesearch.training.finetune import train

RESULTS = Path(__file__).parent / "results" / "pilot"
STEM, BLOCKS = 16, ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1))
"""Channels of the first convolution; channels and strides of the blocks. MobileNet V1's, half as wide."""

POOL = 2
"""So many pixels, in height and width, become one."""

SHARES = (20, 10)
"""Per cent of the MACs."""

SEEDS, EACH, TRAIN = 6, 5, 20_000
"""From-scratch trainings of a structure; structures of a shape; images that train them."""

RECIPE = ps.Recipe(epochs=2, batch_size=64, lr=0.1, augmentation=ps.Augmentation(flip=True, crop=2), from_scratch=True)

Shape = Callable[[FloatArray, int], FloatArray]
"""Of the depth of each group in [0, 1] and the number of the structure in [0, EACH): logarithms of shares of widths."""


def even(depth: FloatArray, number: int) -> FloatArray:
    """The uniform structure, then ones that differ from it at random by about 15 per cent in each group."""
    return 0.15 * min(number, 1) * np.random.default_rng([0, 61, number]).standard_normal(len(depth))


def walk(depth: FloatArray, number: int) -> FloatArray:
    """A random walk from group to group."""
    return np.cumsum(0.35 * np.random.default_rng([0, 62, number]).standard_normal(len(depth)))


def strength(number: int) -> float:
    """How many times e the widest share is of the narrowest, as a logarithm: 0.4 to 2."""
    return 0.4 * (number + 1)


SHAPES: Mapping[str, Shape] = {
    "even": even,
    "front": lambda depth, number: -strength(number) * depth,
    "back": lambda depth, number: strength(number) * depth,
    "waist": lambda depth, number: strength(number) * abs(2 * depth - 1),
    "belly": lambda depth, number: -strength(number) * abs(2 * depth - 1),
    "walk": walk,
}
"""By name: about as wide everywhere, wide in front, wide behind, narrow in the middle, wide in the middle, at random.

All but the first and the last have five strengths: the widest share is 1.5, 2.2, 3.3, 5 and 7.4 times the narrowest.
"""

ARMS: Mapping[str, tuple[int, str, int]] = {
    f"{share}-{shape}-{number}": (share, shape, number)
    for share in SHARES for shape in SHAPES for number in range(EACH)
}  # fmt: skip
"""By name: the share of the MACs, the shape and which of its structures."""

cells_of = Grid(ARMS, range(SEEDS), f"SHARE-SHAPE-NUMBER.SEED with seeds below {SEEDS}").chosen


@dataclass(frozen=True)
class Bench:
    """What all cells share.

    Attributes:
        network: Traced, with random weights.
        train: Normalised images and labels that train.
        search: Those by which structures are scored; the pilot does not use them.
        test: Those that judge.
    """

    network: ps.Network
    train: realdata.Pair
    search: realdata.Pair
    test: realdata.Pair


def pooled(part: realdata.Pair) -> realdata.Pair:
    """Normalised and averaged over pixels."""
    return F.avg_pool2d(realdata.normalised(part[0]), POOL), part[1]


def thin() -> nn.Module:
    """The network, with random weights: (n, 3, h, w) -> (n, 10)."""
    layers, channels = conv_bn(3, STEM, 3, 1), STEM
    for wider, stride in BLOCKS:
        layers.append(DepthwiseSeparable(channels, wider, stride))
        channels = wider
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def bench_of(cifar: realdata.Parts) -> Bench:
    """Of CIFAR-10."""
    train, search, test = (pooled(part) for part in (cifar.train, cifar.search, cifar.test))
    torch.manual_seed(0)
    return Bench(ps.trace(thin().eval(), test[0][:2]), (train[0][:TRAIN], train[1][:TRAIN]), search, test)


def structure_of(space: ps.Space, arm: str) -> Structure:
    """As wide as its share of the MACs allows."""
    share, shape, number = ARMS[arm]
    logarithms = SHAPES[shape](np.linspace(0.0, 1.0, len(space.groups)), number)
    shares = np.exp(logarithms - logarithms.max())
    minimum, full = np.array(space.minimum), np.array(space.full)
    wanted = space.from_indices(space.indices((minimum + (full - minimum) * shares)[None]))
    return space.check(ps.Budget(macs=f"{share}%").check(space).fit(wanted)[0].tolist())


def measured(bench: Bench, arm: str, seed: int, recipe: ps.Recipe = RECIPE) -> dict[str, Any]:
    """One cell."""
    structure = structure_of(bench.network.space, arm)
    cost = bench.network.space.cost(structure)
    small = ps.slim(bench.network, structure, make_criterion("l1").rank(bench.network))
    start = time.process_time()
    trained = train(small, ps.Data(train=bench.train), recipe=recipe, seed=seed)
    seconds = time.process_time() - start
    loss, accuracy = judged(trained.last, *bench.test)
    return {
        "structure": list(structure),
        "macs": cost.macs,
        "params": cost.params,
        "loss": loss,
        "accuracy": accuracy,
        "training loss": trained.reports[-1].loss,
        "seconds": round(seconds, 2),
    }


def run(bench: Bench, cells: Sequence[str], out: Path, recipe: ps.Recipe = RECIPE) -> None:
    """Measure all cells that are empty.

    Raises:
        SystemExit: A cell that is there is of another network or recipe.
    """
    facts = {
        "network": bench.network.space.fingerprint,
        "recipe": repr(recipe),
        "pixels": bench.test[0].shape[2],
        "full macs": bench.network.space.cost(bench.network.space.full).macs,
        "train images": len(bench.train[0]),
        "test images": len(bench.test[0]),
        **conditions(),
    }

    def measure(arm: str, seed: int) -> tuple[dict[str, Any], str]:
        row = measured(bench, arm, seed, recipe)
        share, shape, _ = ARMS[arm]
        says = f"{row['accuracy']:.2%}, loss {row['loss']:.4f}, {row['seconds']} CPU-seconds"
        return {"seed": seed, "share": share, "shape": shape, **row}, says

    fill(cells, out, facts, ("network", "recipe", "pixels", "train images"), measure)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--shares", nargs="*", type=int, default=list(SHARES), choices=SHARES)
    parser.add_argument("--cells", nargs="*", help="structures, or single cells as STRUCTURE.SEED; default: all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the cells; default: results/pilot")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    torch.set_num_threads(1)
    bench = bench_of(realdata.cifar10(arguments.data_root, arguments.cache))
    for share in arguments.shares:
        names = arguments.cells or [arm for arm, (of, _, _) in ARMS.items() if of == share]
        run(bench, [cell for cell in cells_of(names) if cell.startswith(f"{share}-")], arguments.out)


if __name__ == "__main__":
    main()
