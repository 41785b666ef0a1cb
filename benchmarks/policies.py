"""What is one policy for several shares of a budget worth, against a search for each share?

    python benchmarks/policies.py [--landscapes bottleneck] [--methods conditional random] [--seeds 6]

`conditional` learns one policy for the `SEEN` shares of a budget and answers the `UNSEEN` ones between them. It gets as
many evaluations in all as the other methods: a search that answers one budget has a quarter of them for each seen
share. For an unseen share such a search may look through the trials that it has, which takes no further evaluation, or
be run anew. `nsga2` answers all shares with one study, as `conditional` does. The landscapes are the synthetic ones of
searchers.py, drawn anew for each seed, so that the best structure within any share is known. Regret is the gap to it,
relative to the gap between it and the median structure within the share. Run again to go on.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tasks
import torch
from searchers import RESULTS, SYNTHETIC, Landscape, Scored, every_structure, synthetic_space, trial

import prunesearch as ps
from prunesearch.search import make_searcher
from prunesearch.search.conditional import ConditionalSearcher
from prunesearch.search.searcher import Searcher
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import FloatArray, Structure
from prunesearch.trial import Trial

BUDGET, SEEN, UNSEEN = "40%", (1.0, 0.8, 0.6, 0.4), (0.9, 0.7, 0.5)
TOTALS = (200, 400)
"""Evaluations for all seen shares together."""

FIRST_SEED, STREAM = 300, 33  # no setting was chosen on these landscapes
Regrets = dict[str, list[float]]
"""By share, one per number of evaluations in `TOTALS`."""


def drawn(
    name: str, seed: int, kinds: Mapping[str, Callable[[FloatArray, np.random.Generator], FloatArray]] = SYNTHETIC
) -> Landscape:
    """The landscape of a kind that belongs to a seed."""
    space = synthetic_space()
    kept = every_structure(space) / np.array(space.full)
    return Landscape(space, ps.Budget(macs=BUDGET), kinds[name](kept, np.random.default_rng([seed, STREAM])), {})


def within(landscape: Landscape, share: float) -> Landscape:
    """The same landscape under a share of its budget."""
    ((_, limit),) = landscape.budget.check(landscape.space).limits
    return Landscape(landscape.space, ps.Budget(macs=int(limit * share)), landscape.scores, landscape.evidence)


def play(searcher: Searcher, landscape: Scored, trials: list[Trial], total: int) -> None:
    """Ask and tell until there are so many trials."""
    while len(trials) < total and (asked := searcher.ask(total - len(trials))):
        fresh = [trial(len(trials) + i, structure, landscape) for i, structure in enumerate(asked)]
        searcher.tell(fresh)
        trials += fresh


def best_within(landscape: Landscape, trials: Sequence[Trial]) -> float:
    """The lowest regret of the trials that meet the landscape's budget; of the narrowest structure if none does."""
    structures = [found.structure for found in trials]
    inside = landscape.budget.check(landscape.space).contains(structures)
    scores = [landscape.score(structure) for structure, is_in in zip(structures, inside, strict=True) if is_in]
    return landscape.regret(max(scores, default=landscape.score(landscape.space.minimum)))


def regret_of(landscape: Landscape, structure: Structure) -> float:
    return landscape.regret(landscape.score(structure))


def one_policy(whole: Landscape, seed: int) -> dict[str, Regrets]:
    """`conditional`: what its policy answers, and the best of its trials, for every share."""
    searcher = ConditionalSearcher(whole.space, whole.budget, seed=seed, shares=SEEN)
    trials: list[Trial] = []
    answers: Regrets = {str(share): [] for share in (*SEEN, *UNSEEN)}
    best: Regrets = {str(share): [] for share in (*SEEN, *UNSEEN)}
    parts = {share: within(whole, share) for share in (*SEEN, *UNSEEN)}
    for total in TOTALS:
        play(searcher, whole, trials, total)
        for share, part in parts.items():
            answers[str(share)].append(regret_of(part, searcher.policy(share)))
            best[str(share)].append(best_within(part, trials))
    return {"policy": answers, "best trial": best}


def one_study(whole: Landscape, seed: int, name: str) -> dict[str, Regrets]:
    """A searcher that spreads over costs: the best of its trials within every share."""
    searcher = make_searcher(name, whole.space, whole.budget, seed=seed)
    trials: list[Trial] = []
    best: Regrets = {str(share): [] for share in (*SEEN, *UNSEEN)}
    for total in TOTALS:
        play(searcher, whole, trials, total)
        for share in (*SEEN, *UNSEEN):
            best[str(share)].append(best_within(within(whole, share), trials))
    return {"best trial": best}


def a_search_each(whole: Landscape, seed: int, name: str) -> dict[str, Regrets]:
    """A search per share: seen ones share the evaluations; unseen ones get as many again, or the trials there are."""
    found: dict[float, list[Trial]] = {}
    for share in (*SEEN, *UNSEEN):
        part = within(whole, share)
        play(make_searcher(name, part.space, part.budget, seed=seed), part, found.setdefault(share, []), most())
    each = [total // len(SEEN) for total in TOTALS]
    searched = {
        str(share): [best_within(within(whole, share), trials[:n]) for n in each] for share, trials in found.items()
    }
    known = [[one for share in SEEN for one in found[share][:n]] for n in each]
    reused = {str(share): [best_within(within(whole, share), trials) for trials in known] for share in UNSEEN}
    return {"searched": searched, "best trial": reused}


def most() -> int:
    """Evaluations of a search for one share, at most."""
    return max(TOTALS) // len(SEEN)


def even(whole: Landscape, seed: int) -> dict[str, Regrets]:
    """The uniform structure of every share."""
    del seed  # it has nothing random
    parts = {share: within(whole, share) for share in (*SEEN, *UNSEEN)}
    found = {share: regret_of(part, uniform_structure(part.budget.check(part.space))) for share, part in parts.items()}
    return {"searched": {str(share): [regret] * len(TOTALS) for share, regret in found.items()}}


METHODS: Mapping[str, Callable[[Landscape, int], dict[str, Regrets]]] = {
    "conditional": one_policy,
    "nsga2": partial(one_study, name="nsga2"),
    "random": partial(a_search_each, name="random"),
    "evolution": partial(a_search_each, name="evolution"),
    "surrogate": partial(a_search_each, name="surrogate"),
    "uniform": even,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscapes", nargs="*", default=list(SYNTHETIC), choices=SYNTHETIC)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS / "policies.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"cells": {}}
    stored["facts"] = {
        "machine": platform.machine(),
        "prunesearch": ps.__version__,
        "budget": BUDGET,
        "seen": SEEN,
        "unseen": UNSEEN,
        "totals": TOTALS,
    }
    for kind in arguments.landscapes:
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            missing = [method for method in arguments.methods if f"{kind}.{method}.{seed}" not in stored["cells"]]
            landscape = drawn(kind, seed) if missing else None
            for method in missing:
                assert landscape is not None  # drawn for what is missing
                found = METHODS[method](landscape, seed)
                cell = {"landscape": kind, "method": method, "seed": seed, **rounded(found)}
                stored["cells"][f"{kind}.{method}.{seed}"] = cell
                tasks.save(stored, arguments.out, indent=None)
                print(kind, method, seed, flush=True)


def rounded(found: Mapping[str, Regrets]) -> dict[str, Regrets]:
    return {
        answer: {share: [round(regret, 4) for regret in values] for share, values in regrets.items()}
        for answer, regrets in found.items()
    }


if __name__ == "__main__":
    main()
