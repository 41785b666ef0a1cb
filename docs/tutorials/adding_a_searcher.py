"""Add a searcher of your own, and compare it with others at equal cost.

`Climber` moves one channel's worth of width at a time from one group to another. It shows what a searcher has to do:
propose structures within the budget, learn from trials, draw from the given generator only. Here it is run by hand; in
prunesearch itself it is one file and one line (CONTRIBUTING.md).

    python docs/tutorials/adding_a_searcher.py --n-trials 200
"""

from __future__ import annotations

import argparse

import numpy as np

import prunesearch as ps
from prunesearch.budget import as_structures
from prunesearch.evaluators import make_evaluator, make_weights
from prunesearch.evaluators.channels import make_criterion
from prunesearch.search import make_searcher
from prunesearch.search.proposals import BatchSearcher, put_random
from prunesearch.search.searcher import Searcher
from prunesearch.search.uniform import uniform_structure
from prunesearch.tasks.classify import labelled
from prunesearch.training.digits import digits
from prunesearch.trial import Trial, best


class Climber(BatchSearcher):
    """Hill climbing: from the best structure so far, one group gets wider, and the budget narrows the others."""

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Put a batch of structures into the queue, which lets nothing in twice; putting none would end the search."""
        if batch == 0:
            self.queue.put([uniform_structure(self.feasible)])
        parents = self.told.best(1)
        if len(parents):
            genes = np.repeat(self.space.indices(parents), 16, axis=0)  # positions among the allowed widths
            group = rng.integers(0, genes.shape[1], len(genes))
            step = rng.integers(-3, 4, len(genes))
            genes[np.arange(len(genes)), group] += step
            moved = self.space.from_indices(np.clip(genes, 0, self.space.choices - 1))
            self.queue.put(as_structures(self.feasible.fit(moved)))  # scaled to the budget
        put_random(self.queue, self.feasible, rng, 8 - len(self.queue))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--macs", default="40%")
    parser.add_argument("--n-trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="few trials and epochs: seconds")
    return parser


def main(options: argparse.Namespace) -> None:
    if options.smoke:
        options.n_trials, options.seeds, options.epochs = 12, 1, 1
    data = digits()
    images, labels = data.calibration_set()
    model = ps.make_model("resnet8", in_channels=1, image_size=8)
    model = ps.finetune(model, data, recipe=ps.Recipe(epochs=options.epochs, lr=0.1))
    network = ps.trace(model, images[:2])
    weights = make_weights("inherited", network, make_criterion("l1").rank(network), images)
    evaluator = make_evaluator("accuracy", weights, labelled(images, labels))
    budget = ps.Budget(macs=options.macs)

    def found(searcher: Searcher) -> float:
        """The loop of a study, without its database: ask, score, tell."""
        trials: list[Trial] = []
        while len(trials) < options.n_trials and (asked := searcher.ask(options.n_trials - len(trials))):
            scores = evaluator.score(asked)
            fresh = [
                Trial(len(trials) + i, structure, network.space.cost(structure), score, None, 0.0, "", "", "")
                for i, (structure, score) in enumerate(zip(asked, scores, strict=True))
            ]
            searcher.tell(fresh)
            trials += fresh
        winner = best(trials)
        assert winner is not None
        assert winner.score is not None
        return winner.score

    for name in ("climber", "random", "surrogate"):
        scores = [
            found(
                Climber(network.space, budget, seed=seed)
                if name == "climber"
                else make_searcher(name, network.space, budget, seed=seed)
            )
            for seed in range(options.seeds)
        ]
        print(f"{name}: best score {np.mean(scores):.4f} (mean of {options.seeds} seeds)")


if __name__ == "__main__":
    main(arguments().parse_args())
