"""PAAM, ManiDP and the GA that goes layer by layer, beside a search and finetuning: trained networks on CIFAR-10.

    python benchmarks/methods_cifar10.py --data-root D --network resnet20 [--weights FILE] [--cells manidp-manidp.0]

Networks and weights are those of `networks.py` and `weights.py`. Every arm goes on with the trained network for eight
epochs of 5,000 training images, `paam-scratch` with random weights for eighteen. Budgets are the papers': ManiDP 37.6 %
of the MACs, PAAM 47.7 % of the parameters, the GA a third of the MACs; the part of an arm's name before the dash says
whose. A search is the default one with 200 structures; its winner is finetuned with the unpruned network as teacher, as
the GA's is. `longer` arms have as many epochs as the GA has in all, of which one comes after each layer. Searches and
the GA score on 1,024 images that train nothing; the accuracy is of all test images. Each cell is an arm and a seed, and
a file of its own in `results/methods_NETWORK`; run again to go on.

Registered before the first cell was measured: at ManiDP's budget the search is ahead of ManiDP, and halfway to it
followed by ManiDP lies between the two. At PAAM's budget the search is ahead of PAAM from trained weights by less than
a point, and both are ahead of PAAM from scratch. The GA layer by layer is within half a point of the search that is
finetuned as long; the one-shot GA is behind both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import realdata
import tasks
import torch
from cells import Grid, conditions, fill
from networks import CHANGED_AT_RANDOM, NETWORKS

import prunesearch as ps

RESULTS = Path(__file__).parent / "results"
SEEDS, TRAIN, SCORING, TRIALS = 3, 5_000, 1_024, 200
FINETUNING = ps.Recipe(epochs=8, lr=0.02, augmentation=CHANGED_AT_RANDOM)
SCRATCH = replace(FINETUNING, epochs=18, lr=0.1, from_scratch=True)

BUDGETS: Mapping[str, ps.Budget] = {
    "manidp": ps.Budget(macs="37.6%"),
    "paam": ps.Budget(params="47.7%"),
    "ga": ps.Budget(macs="33%"),
}
"""Of the papers, by the first part of an arm's name."""


@dataclass(frozen=True)
class Job:
    """What an arm is given.

    Attributes:
        network: Trained.
        data: What trains it and what scores.
        test: Normalised images and labels that tell the accuracy.
        budget: What it may cost.
        seed: Decides everything random.
        finetuning: Of trained weights.
        scratch: Of random ones.
        trials: Structures of a search.
    """

    network: ps.Network
    data: ps.Data
    test: realdata.Pair
    budget: ps.Budget
    seed: int
    finetuning: ps.Recipe = FINETUNING
    scratch: ps.Recipe = SCRATCH
    trials: int = TRIALS

    @property
    def longer(self) -> ps.Recipe:
        """As long as the GA trains in all, which is an epoch more for each layer but the last."""
        return replace(self.finetuning, epochs=self.finetuning.epochs + len(self.network.space.groups) - 1)

    def judged(self, model: torch.nn.Module, macs: float, **more: Any) -> dict[str, Any]:
        """What is kept of a finished network."""
        counted = ps.count(model, self.test[0][:1])
        return {"accuracy": ps.top1(model, *self.test), "macs": macs, "params": counted.params, **more}


def unpruned(job: Job) -> dict[str, Any]:
    """The network itself, finetuned as long."""
    tuned = ps.finetune(job.network.model, job.data, recipe=job.finetuning, seed=job.seed)
    return job.judged(tuned, job.network.space.cost(job.network.space.full).macs)


def searched(
    job: Job, *, searcher: str = "surrogate", criterion: str | None = None, long: bool = False
) -> dict[str, Any]:
    """A search, and its winner finetuned with the unpruned network as teacher."""
    scoring = ps.Scoring() if criterion is None else ps.Scoring(criterion=criterion)
    found = ps.search(
        job.network,
        job.data,
        budget=job.budget,
        searcher=searcher,
        n_trials=job.trials,
        seed=job.seed,
        scoring=scoring,
        progress=False,
    ).best
    recipe = job.longer if long else job.finetuning
    tuned = ps.finetune(found.build(), job.data, recipe=recipe, teacher=job.network.model, seed=job.seed)
    return job.judged(tuned, found.cost.macs, epochs=recipe.epochs, structure=list(found.structure))


def paam(job: Job, *, scratch: bool = False) -> dict[str, Any]:
    """PAAM from the trained weights, or in one stage from random ones, as in the paper."""
    recipe = job.scratch if scratch else job.finetuning
    found = ps.paam(job.network, job.data, budget=job.budget, recipe=recipe, seed=job.seed)
    macs = job.network.space.cost(found.structure).macs
    return job.judged(found.model, macs, epochs=recipe.epochs, structure=list(found.structure))


def manidp(job: Job, *, halfway: bool = False) -> dict[str, Any]:
    """ManiDP, of the network or of what a search found for the geometric mean of its MACs and the budget."""
    start, ((_, limit),) = job.network, job.budget.check(job.network.space).limits
    if halfway:
        full = job.network.space.cost(job.network.space.full).macs
        between = ps.Budget(macs=round((full * limit) ** 0.5))
        trials, seed = job.trials, job.seed
        found = ps.search(job.network, job.data, budget=between, n_trials=trials, seed=seed, progress=False).best
        start = ps.trace(found.build(), job.test[0][:2])
    gated = ps.manidp(start, job.data, budget=ps.Budget(macs=limit), recipe=job.finetuning, seed=job.seed).model
    macs = ps.macs_per_image(gated, job.test[0]).double()
    return job.judged(gated, float(macs.mean()), lowest=float(macs.min()), highest=float(macs.max()))


def layerwise(job: Job) -> dict[str, Any]:
    """A layer after the other by the GA, an epoch in between."""
    found = ps.layerwise(job.network, job.data, budget=job.budget, recipe=job.finetuning, seed=job.seed)
    macs = job.network.space.cost(found.structure).macs
    return job.judged(found.model, macs, epochs=len(found.reports), structure=list(found.structure))


_genetic = partial(searched, searcher="genetic", criterion="genetic")
ARMS: Mapping[str, Callable[[Job], dict[str, Any]]] = {
    "unpruned": unpruned,
    "manidp-search": searched,
    "manidp-manidp": manidp,
    "manidp-both": partial(manidp, halfway=True),
    "paam-search": searched,
    "paam-paam": paam,
    "paam-scratch": partial(paam, scratch=True),
    "ga-search": searched,
    "ga-longer": partial(searched, long=True),
    "ga-genetic": _genetic,
    "ga-genetic-longer": partial(_genetic, long=True),
    "ga-layerwise": layerwise,
}
cells_of = Grid(ARMS, range(SEEDS), f"ARM.SEED with seeds below {SEEDS}").chosen


def run(job: Job, cells: Sequence[str], out: Path) -> None:
    """Measure all cells that are empty, each with its own budget and seed.

    Raises:
        SystemExit: A cell that is there is of another network or recipe.
    """
    space = job.network.space
    full = space.cost(space.full)
    facts = {
        "network": job.network.fingerprint(),
        "finetuning": repr(job.finetuning),
        "scratch": repr(job.scratch),
        "trials": job.trials,
        "unpruned": ps.top1(job.network.model, *job.test),
        "full": {"macs": full.macs, "params": full.params},
        "train images": job.data.steps_per_epoch(1),
        "scoring images": job.data.calibration,
        "test images": len(job.test[0]),
        **conditions(),
    }

    def measure(arm: str, seed: int) -> tuple[dict[str, Any], str]:
        budget = BUDGETS.get(arm.partition("-")[0], job.budget)
        start = time.process_time()
        found = ARMS[arm](replace(job, budget=budget, seed=seed))
        seconds = round(time.process_time() - start, 1)
        return {"seed": seed, **found, "seconds": seconds}, f"{found['accuracy']:.2%}, {seconds} CPU-seconds"

    fill(cells, out, facts, ("network", "finetuning", "scratch", "trials", "train images"), measure)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--network", default="resnet20", choices=NETWORKS)
    parser.add_argument("--weights", type=Path, help="of weights.py; default: trained/NETWORK.safetensors")
    parser.add_argument("--cells", nargs="*", default=list(ARMS), help="arms, or single cells as ARM.SEED")
    parser.add_argument("--out", type=Path, help="folder; default: results/methods_NETWORK")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    cells, subject = cells_of(arguments.cells), NETWORKS[arguments.network]
    torch.set_num_threads(1)
    parts = subject.data(arguments.data_root, arguments.cache)
    model = subject.make()
    ps.load_weights(model, arguments.weights or tasks.TRAINED / f"{arguments.network}.safetensors")
    (images, labels), test = parts.normalised(parts.train), parts.normalised(parts.test)
    data = ps.Data(
        train=(images[:TRAIN], labels[:TRAIN]), calibrate_on=parts.normalised(parts.search), calibration=SCORING
    )
    job = Job(ps.trace(model.eval(), test[0][:2]), data, test, ps.Budget(macs="100%"), seed=0)
    run(job, cells, arguments.out or RESULTS / f"methods_{arguments.network}")


if __name__ == "__main__":
    main()
