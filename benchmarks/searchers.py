"""Which searcher finds good structures with the fewest evaluations?

    python benchmarks/searchers.py [--tables resnet8] [--budgets 50%] [--seeds 20] [--data cifar10 --data-root D]

Two kinds of landscapes whose best structure is known. *Tables*: every structure of a small space over a trained
network, scored once by the real evaluator and kept in results/searchers-NETWORK.json. *Synthetic* ones, with
interactions between groups, enumerated. Each searcher is asked and told as a study does it; what it needs of the
network before the first proposal (curves of single groups) counts as evaluations. Regret is the gap to the best
structure within the budget, relative to the gap between that one and the median structure within it. A row is written
per landscape, searcher and seed; run again to go on.

Beside them, whole *searches* of a trained network with all its widths, at 50% of the MACs: the loss of the winner on
images that the search did not see, by searcher and by number of images that score.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tasks
import torch

import prunesearch as ps
from prunesearch.evaluators import EVIDENCE, gather
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.evaluators.curves import curve_structures, interpolated
from prunesearch.models.network import Network
from prunesearch.models.weights import InheritedWeights
from prunesearch.search import SEARCHERS, evidence_needed, make_searcher
from prunesearch.structure import FloatArray, Group, IntArray, Space, Structure, Term, Width
from prunesearch.tasks.classify import labelled
from prunesearch.trial import Trial

RESULTS = Path(__file__).parent / "results"
CHECKPOINTS = (50, 100, 200)
IN_A_STUDY = 64  # structures that a study asks for at once
CHUNK = 256
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "convex": {},
    "convex-linear": {"form": "linear", "strengths": (20.0,)},
    "convex-gradient": {"form": "gradient"},
}
"""Searchers under other settings than their own; the name before the dash is the searcher's."""


class Scored(Protocol):
    """A space whose structures have scores."""

    @property
    def space(self) -> Space:
        """The space."""

    def score(self, structure: Structure) -> float:
        """Higher is better."""


@dataclass(frozen=True)
class Landscape:
    """A space, a limit, and the score of everything in it.

    Attributes:
        space: The space.
        budget: What proposals must meet.
        scores: Of every structure, in the order of `itertools.product` over the widths.
        evidence: What can be known of the network besides the curves, which follow from the scores.
    """

    space: Space
    budget: ps.Budget
    scores: FloatArray
    evidence: Mapping[str, Any]

    def score(self, structure: Structure) -> float:
        """Look a structure up."""
        return float(self.scores[np.ravel_multi_index(tuple(self.space.indices([structure])[0]), self.space.choices)])

    @cached_property
    def feasible(self) -> FloatArray:
        """Scores of all structures within the budget, ascending."""
        inside = self.budget.check(self.space).contains(every_structure(self.space))
        return np.sort(self.scores[inside])

    def regret(self, score: float) -> float:
        """The gap to the best, relative to the median's."""
        best, middle = self.feasible[-1], np.median(self.feasible)
        return float((best - score) / (best - middle))

    def describe(self) -> dict[str, Any]:
        """How many structures, and the regret of the last one that counts as top."""
        return {
            "structures": len(self.scores),
            "within the budget": len(self.feasible),
            "top 0.5%": self.regret(self.feasible[-max(1, len(self.feasible) // 200)]),
        }

    def evidence_for(self, name: str) -> tuple[dict[str, Any], int]:
        """Constructor arguments of a searcher, and how many evaluations they take."""
        needs = evidence_needed(name)
        known = {need: self.evidence[need] for need in needs if need != "curves"}
        if "curves" not in needs:
            return known, 0
        structures = curve_structures(self.space)
        curves = interpolated(self.space, {structure: self.score(structure) for structure in structures})
        return {**known, "curves": curves}, len(structures)


def every_structure(space: Space) -> IntArray:
    grid = np.indices(space.choices.tolist()).reshape(len(space.groups), -1).T
    return space.from_indices(grid)


def narrowed_space(space: Space, choices: int) -> Space:
    """The same network with `choices` evenly spread widths per group."""

    def few(group: Group) -> Group:
        at = np.unique(np.linspace(0, len(group.widths) - 1, choices + 1).round().astype(int)[1:])
        return dataclasses.replace(group, widths=tuple(group.widths[i] for i in at))

    return dataclasses.replace(space, groups=tuple(few(group) for group in space.groups))


def table(name: str, task: tasks.Task, arguments: argparse.Namespace) -> tuple[Space, FloatArray, dict[str, Any]]:
    """Space, scores and evidence of a trained network; scored a chunk at a time, resumable."""
    model = tasks.trained(name, task, epochs=arguments.epochs)
    traced = ps.trace(model, task.test[0][:2])
    choices = arguments.choices or (5 if len(traced.space.groups) <= 6 else 3)
    network: Network = dataclasses.replace(traced, space=narrowed_space(traced.space, choices))
    space = network.space
    weights = InheritedWeights(network, make_criterion("l1").rank(network))
    images, labels = task.data(calibration=arguments.images).calibration_set()
    evaluator = AccuracyEvaluator(weights, labelled(images, labels))
    file = RESULTS / f"searchers-{name}.json"
    stored: dict[str, Any] = (
        json.loads(file.read_text()) if file.exists() else {"space": space.fingerprint, "scores": []}
    )
    if stored["space"] != space.fingerprint:
        raise SystemExit(f"{file} is of another space; remove it, or give the arguments it was made with.")
    structures = list(itertools.product(*(group.widths for group in space.groups)))
    scores: list[float] = stored["scores"]
    start = time.perf_counter()
    while len(scores) < len(structures):
        chunk = structures[len(scores) : len(scores) + CHUNK]
        scores += [round(score, 5) for score in evaluator.score(chunk)]
        if len(scores) % (16 * CHUNK) == 0 or len(scores) == len(structures):
            tasks.save(stored, file, indent=None)
            print(f"{name}: {len(scores)} of {len(structures)}, {time.perf_counter() - start:.0f} s", flush=True)
    if "evidence" not in stored:
        gathered = {need: gather(need, weights, evaluator, images) for need in EVIDENCE if need != "curves"}
        stored["evidence"] = {need: [np.round(part, 6).tolist() for part in value] for need, value in gathered.items()}
        tasks.save(stored, file, indent=None)
    return (
        space,
        np.array(scores),
        {need: [np.array(part) for part in value] for need, value in stored["evidence"].items()},
    )


def synthetic_space(groups: int = 7, choices: int = 6) -> Space:
    """A chain of convolutions, each a group, later ones wider on smaller images."""
    full = [24 * (1 + g // 3) for g in range(groups)]
    made = tuple(
        Group(f"conv{g}", width, 1, tuple(width * (k + 1) // choices for k in range(choices)), (f"conv{g}",))
        for g, width in enumerate(full)
    )
    widths = [Width(3), *(Width(0, ((g, 1),)) for g in range(groups)), Width(10)]
    pairs = list(itertools.pairwise(widths))
    macs = tuple(Term(f"conv{g}", 9 * (256 >> 2 * (g // 3)), *pair) for g, pair in enumerate(pairs))
    return Space(made, macs, tuple(Term(f"conv{g}.weight", 9, *pair) for g, pair in enumerate(pairs)))


def bottleneck(kept: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Each layer passes on a saturating share of what it is given, so that the narrowest spoils the rest."""
    need = rng.uniform(0.1, 0.6, kept.shape[1])
    return np.log1p(-np.exp(-3 * kept / need)).sum(axis=1)


def interacting(kept: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A bowl at random fractions with interactions between all pairs of groups."""
    mixing = rng.normal(size=(kept.shape[1], kept.shape[1]))
    gaps = (kept - rng.uniform(0.3, 0.9, kept.shape[1])) * rng.uniform(0.5, 2.0, kept.shape[1])
    return -(gaps**2).sum(axis=1) - 0.3 * ((gaps @ mixing) ** 2).mean(axis=1)


def rugged(kept: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The bottleneck with noise that belongs to the structure, a twentieth of its spread."""
    smooth = bottleneck(kept, rng)
    return smooth + 0.05 * smooth.std() * rng.normal(size=len(kept))


SYNTHETIC: Mapping[str, Callable[[FloatArray, np.random.Generator], FloatArray]] = {
    "bottleneck": bottleneck,
    "interacting": interacting,
    "rugged": rugged,
}


def play(landscape: Landscape, name: str, seed: int) -> dict[str, Any]:
    """Ask and tell one searcher until the last checkpoint; regrets there, and its own seconds per proposal."""
    searcher_name = name.partition("-")[0]
    evidence, taken = landscape.evidence_for(searcher_name)
    start = time.perf_counter()
    searcher = make_searcher(
        searcher_name, landscape.space, landscape.budget, seed=seed, **evidence, **OPTIONS.get(name, {})
    )
    own = time.perf_counter() - start
    best: list[float] = []
    while taken + len(best) < CHECKPOINTS[-1]:
        start = time.perf_counter()
        asked = searcher.ask(min(IN_A_STUDY, CHECKPOINTS[-1] - taken - len(best)))
        own += time.perf_counter() - start
        if not asked:
            break
        trials = [trial(len(best) + i, structure, landscape) for i, structure in enumerate(asked)]
        for done in trials:
            assert done.score is not None
            best.append(max(done.score, best[-1] if best else -np.inf))
        start = time.perf_counter()
        searcher.tell(trials)
        own += time.perf_counter() - start
    top = landscape.feasible[-max(1, len(landscape.feasible) // 200)]
    regrets = [landscape.regret(best[min(n - taken, len(best)) - 1]) if n > taken else None for n in CHECKPOINTS]
    reached = [taken + 1 + i for i, score in enumerate(best) if score >= top]
    return {
        "regret": regrets,
        "evaluations": taken + len(best),
        "top after": reached[0] if reached else None,
        "seconds per proposal": own / max(len(best), 1),
    }


def trial(number: int, structure: Structure, landscape: Scored) -> Trial:
    cost = landscape.space.cost(structure)
    return Trial(number, structure, cost, landscape.score(structure), None, 0.0, "benchmark", "table", "here")


def landscapes(arguments: argparse.Namespace) -> dict[str, Landscape]:
    found = {}
    for name in arguments.tables:
        task = tasks.load(arguments.data, arguments.data_root, arguments.train_images)
        space, scores, evidence = table(name, task, arguments)
        for budget in arguments.budgets:
            found[f"{name} at {budget}"] = Landscape(space, ps.Budget(macs=budget), scores, evidence)
    for name in arguments.synthetic:
        space = synthetic_space()
        kept = every_structure(space) / np.array(space.full)
        scores = SYNTHETIC[name](kept, np.random.default_rng([0, 21]))
        found[name] = Landscape(space, ps.Budget(macs="40%"), scores, {})
    return found


def searched(name: str, seed: int, images: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Search a whole network; score the winner on images that had no part in it."""
    task = tasks.load(arguments.data, arguments.data_root, arguments.train_images)
    half = len(task.train[0]) // 2
    network = ps.trace(tasks.trained(arguments.search, task, epochs=arguments.epochs), task.test[0][:2])
    data = ps.Data(train=(task.train[0][:half], task.train[1][:half]))
    start = time.perf_counter()
    result = ps.search(
        network,
        data,
        budget=ps.Budget(macs="50%"),
        searcher=name,
        n_trials=arguments.search_trials,
        scoring=ps.Scoring(criterion="l1", images=images, race=False),  # as the tables of scores have it
        seed=seed,
    )
    seconds = time.perf_counter() - start
    unseen = slice(half, half + 2048)
    judge = AccuracyEvaluator(result.best.weights, labelled(task.train[0][unseen], task.train[1][unseen]))
    return {
        "loss": -judge.score([result.best.structure])[0],
        "seconds": seconds,
        "evaluations": len(result.trials),
        "seen loss": -(result.best.trial.score or 0.0),
    }


def main() -> None:
    names = [*SEARCHERS, *(name for name in OPTIONS if name not in SEARCHERS)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.add_argument("--tables", nargs="*", default=["resnet8", "resnet14"], choices=tasks.NETWORKS)
    parser.add_argument("--budgets", nargs="*", default=["50%", "30%"], help="shares of the MACs")
    parser.add_argument("--synthetic", nargs="*", default=list(SYNTHETIC), choices=SYNTHETIC)
    parser.add_argument("--searchers", nargs="*", default=names, choices=names)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--choices", type=int, default=0, help="widths per group of the tables; 0: 5 for up to 6 groups, else 3"
    )
    parser.add_argument("--search", choices=tasks.NETWORKS, default="resnet20", help="network of the whole searches")
    parser.add_argument("--search-seeds", type=int, default=4)
    parser.add_argument("--search-trials", type=int, default=200)
    parser.add_argument("--search-images", nargs="*", type=int, default=[64, 128, 256, 1024])
    parser.add_argument("--images", type=int, default=256, help="that score structures")
    parser.add_argument("--epochs", type=int, default=4, help="of training the networks")
    parser.add_argument("--out", type=Path, default=RESULTS / "searchers.json")
    arguments = parser.parse_args()
    stored: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": {}}
    stored["facts"] = {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "prunesearch": ps.__version__,
        "data": arguments.data,
        "train_images": arguments.train_images,
        "epochs": arguments.epochs,
        "images": arguments.images,
    }
    for place, landscape in landscapes(arguments).items():
        row = stored["rows"].setdefault(place, {"landscape": landscape.describe(), "searchers": {}})
        for name in arguments.searchers:
            if not set(evidence_needed(name.partition("-")[0])) <= {*landscape.evidence, "curves"}:
                continue
            done = row["searchers"].setdefault(name, [])
            for seed in range(len(done), arguments.seeds):
                done.append(play(landscape, name, seed))
            tasks.save(stored, arguments.out, indent=None)
            summary = np.array([[np.nan if r is None else r for r in cell["regret"]] for cell in done])
            hits = sum(cell["top after"] is not None and cell["top after"] <= 100 for cell in done)
            seconds = np.median([cell["seconds per proposal"] for cell in done])
            print(
                place,
                name,
                np.median(summary, axis=0).round(3),
                f"top in 100: {hits}",
                f"{1e3 * seconds:.1f} ms",
                flush=True,
            )
    whole = stored.setdefault("searches", {}).setdefault(arguments.search, {})
    cells = [(name, 256) for name in arguments.searchers if name in SEARCHERS]
    cells += [("surrogate", images) for images in arguments.search_images if images != 256]
    for seed in range(arguments.search_seeds):
        for name, images in cells:
            done = whole.setdefault(f"{name}, {images} images", [])
            if len(done) == seed:
                done.append(searched(name, seed, images, arguments))
                tasks.save(stored, arguments.out, indent=None)
                print(name, images, seed, done[-1], flush=True)


if __name__ == "__main__":
    main()
