"""One policy for five budgets, and those in between, against a search for each: a ResNet-20 on CIFAR-10.

    python benchmarks/policies_cifar10.py --data-root D [--cells conditional.0]

What `policies.py` asks on landscapes that are known, asked of the public ResNet-20, adapted to the JPEG images
(`weights.py`), with inherited weights in the order of L1. `conditional` learns one policy for the five `SEEN` shares of
half the MACs. The others search each of them with a fifth of its evaluations, so that all have as many in total; for
the four `UNSEEN` shares they may look through the trials that there are, or search anew with a fifth more. A score is
minus the loss on 256 search images (`realdata.py`). Answers are judged by the loss on 2,048 images that no search saw,
BatchNorm with the statistics of the images at hand both times. `uniform` is filled up to each share. Each cell is a
method and a seed, and a file of its own in `results/policies_cifar10`; run again to go on.

Registered before the first cell was measured: the policy's answers are behind the best of its own trials at seen
shares, and behind a `surrogate` search of each; in between they are within 0.05 of the loss of `random` searched anew,
which takes a fifth more evaluations for each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import realdata
import torch
from cells import Grid, conditions, fill
from policies import play
from racing import WEIGHTS, bench_of_adapted
from rivals import filled_uniform

import prunesearch as ps
from prunesearch.budget import FeasibleSet
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.weights import InheritedWeights
from prunesearch.search import make_searcher
from prunesearch.search.conditional import ConditionalSearcher
from prunesearch.structure import Structure
from prunesearch.tasks.classify import labelled
from prunesearch.trial import Trial

RESULTS = Path(__file__).parent / "results" / "policies_cifar10"
LIMIT, SEEN, UNSEEN = "50%", (1.0, 0.85, 0.7, 0.55, 0.4), (0.925, 0.775, 0.625, 0.475)
TOTAL, IMAGES, SEEDS = 300, 256, 3
"""Evaluations for all seen shares together; images of each."""

Answers = dict[str, dict[float, Structure]]
"""By how they were found, and share."""


@dataclass(frozen=True)
class Measured:
    """Structures of a network, each scored once.

    Attributes:
        space: Where they live.
        scorer: What scores them.
        known: Scores so far.
    """

    space: ps.Space
    scorer: AccuracyEvaluator
    known: dict[Structure, float] = field(default_factory=dict)

    def score(self, structure: Structure) -> float:
        """Minus the loss."""
        if structure not in self.known:
            (self.known[structure],) = self.scorer.score([structure])
        return self.known[structure]

    def within(self, share: float) -> FeasibleSet:
        """What a share of the budget allows."""
        return ps.Budget(macs=LIMIT).check(self.space).tightened(share)

    def best(self, trials: Sequence[Trial], share: float) -> Structure:
        """The best of the trials within a share; the narrowest structure if none is."""
        structures = [trial.structure for trial in trials]
        inside = self.within(share).contains(structures)
        found = [structure for structure, is_in in zip(structures, inside, strict=True) if is_in]
        return max(found, key=self.score, default=self.space.minimum)


def one_policy(measured: Measured, seed: int, total: int) -> Answers:
    """`conditional`: what its policy answers, and the best of its trials."""
    searcher = ConditionalSearcher(measured.space, ps.Budget(macs=LIMIT), seed=seed, shares=SEEN)
    trials: list[Trial] = []
    play(searcher, measured, trials, total)
    return {
        "policy": {share: searcher.policy(share) for share in (*SEEN, *UNSEEN)},
        "best trial": {share: measured.best(trials, share) for share in (*SEEN, *UNSEEN)},
    }


def a_search_each(measured: Measured, seed: int, total: int, *, name: str) -> Answers:
    """A search per share, and for unseen shares the best of the trials for seen ones, too."""
    found: dict[float, list[Trial]] = {share: [] for share in (*SEEN, *UNSEEN)}
    for share, trials in found.items():
        ((_, macs),) = measured.within(share).limits
        searcher = make_searcher(name, measured.space, ps.Budget(macs=int(macs)), seed=seed)
        play(searcher, measured, trials, total // len(SEEN))
    known = [trial for share in SEEN for trial in found[share]]
    return {
        "searched": {share: measured.best(trials, share) for share, trials in found.items()},
        "best trial": {share: measured.best(known, share) for share in UNSEEN},
    }


def even(measured: Measured, seed: int, total: int) -> Answers:
    """Uniform widths for every share, filled up to it."""
    del seed, total  # it has nothing random, and scores nothing
    return {"searched": {share: filled_uniform(measured.within(share)) for share in (*SEEN, *UNSEEN)}}


METHODS: Mapping[str, Callable[[Measured, int, int], Answers]] = {
    "conditional": one_policy,
    "surrogate": partial(a_search_each, name="surrogate"),
    "evolution": partial(a_search_each, name="evolution"),
    "random": partial(a_search_each, name="random"),
    "uniform": even,
}

cells_of = Grid(METHODS, range(SEEDS), f"METHOD.SEED with seeds below {SEEDS}").chosen


def measured_cell(search: Measured, unseen: Measured, method: str, seed: int, total: int) -> dict[str, Any]:
    """What a method answers, and what that is worth."""
    start, before = time.process_time(), len(search.known)
    answers = METHODS[method](search, seed, total)
    seconds = time.process_time() - start
    full = search.space.cost(search.space.full).macs
    return {
        "method": method,
        "seed": seed,
        "answers": {
            kind: {
                f"{share:g}": {
                    "loss": -unseen.score(structure),
                    "structure": list(structure),
                    "macs": search.space.cost(structure).macs / full,
                }
                for share, structure in found.items()
            }
            for kind, found in answers.items()
        },
        "scored": len(search.known) - before,
        "seconds": round(seconds, 1),
    }


def run(
    network: ps.Network,
    parts: tuple[realdata.Pair, realdata.Pair],
    cells: Sequence[str],
    out: Path,
    total: int = TOTAL,
) -> None:
    """Measure all cells that are empty, on images to search with and unseen ones, with so many evaluations.

    Raises:
        SystemExit: A cell that is there is of another network.
    """
    weights = InheritedWeights(network, make_criterion("l1").rank(network))
    search, unseen = (AccuracyEvaluator(weights, labelled(*part)) for part in parts)
    judge = Measured(network.space, unseen)
    facts = {
        "network": network.fingerprint(),
        "limit": LIMIT,
        "seen": SEEN,
        "unseen": UNSEEN,
        "total": total,
        "search images": len(parts[0][0]),
        "unseen images": len(parts[1][0]),
        "unpruned loss": -judge.score(network.space.full),
        **conditions(),
    }

    def measure(method: str, seed: int) -> tuple[dict[str, Any], str]:
        row = measured_cell(Measured(network.space, search), judge, method, seed, total)
        return row, f"{row['scored']} structures, {row['seconds']} CPU-seconds"

    fill(cells, out, facts, ("network", "limit", "total", "search images", "unseen images"), measure)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="of the adapted ResNet-20, by weights.py")
    parser.add_argument("--cells", nargs="*", default=list(METHODS), help="methods, or single cells as METHOD.SEED")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder; default: results/policies_cifar10")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    cells = cells_of(arguments.cells)
    torch.set_num_threads(1)
    bench = bench_of_adapted(arguments.weights, arguments.data_root, arguments.cache)
    images, labels = bench.search
    run(bench.network, ((images[:IMAGES], labels[:IMAGES]), bench.unseen), cells, arguments.out)


if __name__ == "__main__":
    main()
