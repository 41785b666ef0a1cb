"""Are weights that were trained for all structures worth their training, where the truth about structures is known?

    python benchmarks/pilot.py --data-root D           # first: which structures are good
    python benchmarks/generated.py --data-root D [--cells rank-supernet 20-supernet.0]

On the network, images and structures of `pilot.py`, at the shares of the MACs at which its truth is reliable; others
are refused. Sources of weights: slices of the trained network's (`inherited`), refitted ones (`reconstructed`), a
supernet, and a PruningNet in its compact form, which are slices and a small generated residual. Supernet and PruningNet
are trained alike: 20,000 steps of 32 images with the sandwich rule and in-place distillation, random structures between
8 and 25 % of the MACs. Channels stand in the order of their L1 norms in all sources.

- `rank-SOURCE.SEED`: the scores of the pilot's structures, minus the loss on 2,048 images that train nothing. Two
  seeds, as there are two trainings of a source.
- `SHARE-SOURCE.SEED`: a search with evolution, and its winner's test accuracy after finetuning from the source's
  weights, and after training from scratch as the pilot does. All have the same CPU-seconds before that: a quarter of
  the longer training, as if one served four budgets, and a minute. Here one serves two; the table has the training in
  full besides. Who trained nothing searches for longer; `inherited-longer` searches for a minute and finetunes for
  longer instead.

Each cell is a file of its own in `results/generated`; run again to go on. Trained networks are in `trained`. A
step takes 0.11 to 0.2 CPU-seconds beside other work, so a training about an hour, and everything about eight hours.

Registered before the first cell was measured: supernet and compact form rank better than slices, by at least 0.1 of
Kendall's tau at each share, and neither better than the other by more than a standard error. After finetuning their
winners are within 0.5 points of `inherited-longer`; after training from scratch no source's winners are better than
`inherited` by two standard errors. If the compact form is not ahead of the supernet by two standard errors anywhere,
the supernet becomes the default form.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pilot
import realdata
import tasks
import torch
from cells import Clock, Grid, check_recipe, conditions, fill
from racing import judged
from tabulated.pilot import RULE, components, truths
from torch import nn

import prunesearch as ps
from prunesearch.evaluators import make_weights
from prunesearch.evaluators.accuracy import AccuracyEvaluator
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.hypernet import Form, PruningNet
from prunesearch.models.hypernet_file import read
from prunesearch.models.ranking import Ranking
from prunesearch.study.events import Event
from prunesearch.tasks.classify import labelled
from prunesearch.training.finetune import train
from prunesearch.training.pruningnet import train_pruningnet
from prunesearch.training.reports import StepReport
from prunesearch.training.settings import PruningNetRecipe

RESULTS = Path(__file__).parent / "results" / "generated"
SEEDS, TRAININGS, BUDGETS = 5, 2, 4
"""Of searches and finetunings; trainings of a source, which seeds have in turn; budgets that share one."""

CROPS = pilot.RECIPE.augmentation
BASE = replace(pilot.RECIPE, epochs=10, from_scratch=False)
FINETUNING = ps.Recipe(epochs=2, batch_size=64, lr=0.02, augmentation=CROPS)
SOURCE = PruningNetRecipe(
    epochs=32, batch_size=32, lr=0.05, label_smoothing=0.0, sampling="sandwich", macs_from=0.08, macs_to=0.25
)
"""Of the unpruned network; of winners; of supernet and PruningNet: 32 times 625 steps."""

CHEAP = ("inherited", "reconstructed")
TRAINED: Mapping[str, Form] = {"supernet": "supernet", "compact": "compact"}
SOURCES = (*CHEAP, *TRAINED)
SEARCHING, MANY = 60.0, 100_000
"""CPU-seconds of a search that had a training; structures that no search gets to."""

ARMS: Mapping[str, tuple[int, str]] = {
    **{f"rank-{source}": (0, source) for source in SOURCES},
    **{f"{share}-{arm}": (share, arm) for share in pilot.SHARES for arm in (*SOURCES, "inherited-longer", "uniform")},
}
"""By name: the share of the MACs of a search, or 0, and where weights come from."""

cells_of = Grid(ARMS, range(SEEDS), f"rank-SOURCE.SEED or SHARE-SOURCE.SEED with seeds below {SEEDS}").chosen


@dataclass(frozen=True)
class Settings:
    """What tests make small.

    Attributes:
        base: Recipe of the unpruned network.
        source: Of supernet and PruningNet.
        finetuning: Of winners.
        scratch: Of winners, too.
        searching: CPU-seconds of a search after a training.
    """

    base: ps.Recipe = BASE
    source: PruningNetRecipe = SOURCE
    finetuning: ps.Recipe = FINETUNING
    scratch: ps.Recipe = pilot.RECIPE
    searching: float = SEARCHING


@dataclass(frozen=True)
class Place:
    """What all cells share.

    Attributes:
        bench: The pilot's images, and the network with trained weights.
        ranking: Which channels stay.
        settings: How things are trained, and for how long is searched.
        truth: By share at which it is reliable, and structure: the mean test accuracy of the pilot.
        folder: Of trained sources.
    """

    bench: pilot.Bench
    ranking: Ranking
    settings: Settings
    truth: Mapping[int, Mapping[str, float]]
    folder: Path

    @property
    def data(self) -> ps.Data:
        """Training images, and those that score."""
        return ps.Data(train=self.bench.train, calibrate_on=self.bench.search, calibration=len(self.bench.search[0]))

    @property
    def steps(self) -> int:
        """Of a training of a source."""
        return self.settings.source.epochs * self.data.steps_per_epoch(self.settings.source.batch_size)

    def trained_source(self, source: str, seed: int) -> tuple[str, float]:
        """A source of weights as a search names it, and the CPU-seconds of its training.

        Raises:
            SystemExit: The file that is there is of another recipe, or nobody knows how long its training took.
        """
        if source not in TRAINED:
            return source, 0.0
        seed %= TRAININGS
        file = self.folder / f"generated-{source}-{seed}.safetensors"
        noted, recipe = file.with_suffix(".seconds"), self.settings.source
        if file.exists():
            check_trained(file, recipe)
        if not (file.exists() and noted.exists()):
            self.folder.mkdir(exist_ok=True)
            net = PruningNet(self.bench.network, form=TRAINED[source], ranking=self.ranking, seed=seed)
            clock = Clock(file.with_suffix(".clock"))

            def tick(report: StepReport) -> None:
                clock.tick()

            train_pruningnet(net, self.data, recipe=recipe, seed=seed, file=file, on_step=tick, progress=False)
            noted.write_text(json.dumps(clock.of_all(self.steps)))
            clock.done()
        return f"generated:{file}", float(json.loads(noted.read_text()))

    def allowance(self, seed: int) -> float:
        """CPU-seconds that each arm has before its winner is trained."""
        longest = max(self.trained_source(source, seed)[1] for source in TRAINED)
        return longest / BUDGETS + self.settings.searching


def check_trained(file: Path, recipe: PruningNetRecipe) -> None:
    """Make sure that a trained PruningNet is of a recipe: its file knows its own.

    Raises:
        SystemExit: It is of another.
    """
    question = read(file).training.get("question", {})
    other = [name for name, value in asdict(recipe).items() if question.get(f"recipe's {name}", value) != value]
    if other:
        raise SystemExit(f"{file.name} was trained with another {' and '.join(other)}. Move it away to train anew.")


def ranked(place: Place, source: str, seed: int) -> dict[str, Any]:
    """Scores of the pilot's structures."""
    named, training = place.trained_source(source, seed)
    images, labels = place.bench.search
    start = time.process_time()
    weights = make_weights(named, place.bench.network, place.ranking, images)
    evaluator = AccuracyEvaluator(weights, labelled(images, labels))
    arms = [arm for known in place.truth.values() for arm in known]
    scores = evaluator.score([pilot.structure_of(place.bench.network.space, arm) for arm in arms])
    seconds = {"training": round(training, 1), "scoring": round(time.process_time() - start, 1)}
    found = dict(zip(arms, scores, strict=True))
    rows = {
        str(share): {"structures": list(known), "truth": list(known.values()), "scores": [found[arm] for arm in known]}
        for share, known in place.truth.items()
    }
    return {"ranked": rows, "seconds": seconds}


def won(place: Place, share: int, arm: str, seed: int) -> dict[str, Any]:
    """What a search ends with."""
    longer = arm == "inherited-longer"
    named, training = place.trained_source("inherited" if longer or arm == "uniform" else arm, seed)
    left = place.settings.searching if longer else place.allowance(seed) - training / BUDGETS
    start = time.process_time()

    def is_over(event: Event) -> bool:
        return time.process_time() - start > left

    result = ps.search(
        place.bench.network,
        place.data,
        budget=ps.Budget(macs=f"{share}%"),
        searcher="uniform" if arm == "uniform" else "evolution",
        scoring=ps.Scoring(criterion=place.ranking, weight_source=named),
        n_trials=MANY,
        seed=seed,
        running=ps.Running(callbacks=is_over),
        progress=False,
    )
    seconds = {"training": training, "search": time.process_time() - start}
    start = time.process_time()
    tuned = train(result.best.build(), ps.Data(train=place.bench.train), recipe=place.settings.finetuning, seed=seed)
    seconds["finetuning"] = time.process_time() - start
    epochs = place.settings.finetuning.epochs
    if longer:
        more = (place.allowance(seed) - place.settings.searching) / (seconds["finetuning"] / epochs)
        epochs += round(more)
        recipe = replace(place.settings.finetuning, epochs=epochs)
        tuned = train(result.best.build(), ps.Data(train=place.bench.train), recipe=recipe, seed=seed)
    fresh = train(result.best.build(), ps.Data(train=place.bench.train), recipe=place.settings.scratch, seed=seed)
    return {
        "share": share,
        "structure": list(result.best.structure),
        "macs": result.best.cost.macs,
        "evaluations": len(result.trials),
        "before": judged(result.best.build(), *place.bench.test)[1],
        "finetuned": judged(tuned.last, *place.bench.test)[1],
        "finetuned for": epochs,
        "scratch": judged(fresh.last, *place.bench.test)[1],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def reliable(folder: Path) -> dict[int, dict[str, float]]:
    """The truth at the shares at which the pilot's rule lets sources be compared: by structure.

    Raises:
        SystemExit: There is none.
    """
    cells = {"cells": {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}}
    found = {share: truths(cells, share, "accuracy") for share in pilot.SHARES}
    every = len(pilot.SHAPES) * pilot.EACH, pilot.SEEDS
    known = {share: components(scores).reliability for share, (_, scores) in found.items() if scores.shape == every}
    shares = [share for share, value in known.items() if value > RULE]
    if not shares:
        says = ", ".join(f"{value:.2f} at {share} %" for share, value in known.items()) or "not known yet"
        raise SystemExit(f"The reliability of the pilot's truth must be above {RULE}; it is {says}. See pilot.py.")
    return {share: dict(zip(found[share][0], found[share][1].mean(1).tolist(), strict=True)) for share in shares}


def place_of(bench: pilot.Bench, truth: Mapping[int, Mapping[str, float]], folder: Path, settings: Settings) -> Place:
    """With the network trained, or as it is in the folder.

    Raises:
        SystemExit: There it is of another recipe.
    """
    model: nn.Module = pilot.thin()
    file = folder / "generated-base.safetensors"
    if file.exists():
        check_recipe(file, settings.base)
    else:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        ps.save(train(pilot.thin(), ps.Data(train=bench.train), recipe=settings.base).last, file)
        tasks.save({"recipe": repr(settings.base)}, file.with_suffix(".json"))
    ps.load_weights(model, file)
    network = ps.trace(model.eval(), bench.test[0][:2])
    return Place(replace(bench, network=network), make_criterion("l1").rank(network), settings, truth, folder)


def run(place: Place, cells: Sequence[str], out: Path) -> None:
    """Measure all cells that are empty.

    Raises:
        SystemExit: A cell that is there is of another network or recipe; or its share has no reliable truth.
    """
    space = place.bench.network.space
    facts = {
        "network": place.bench.network.fingerprint(),
        "settings": repr(place.settings),
        "steps": place.steps,
        "shares": list(place.truth),
        "full macs": space.cost(space.full).macs,
        "unpruned": judged(place.bench.network.model, *place.bench.test)[1],
        "train images": len(place.bench.train[0]),
        "search images": len(place.bench.search[0]),
        "test images": len(place.bench.test[0]),
        **conditions(),
    }

    def measure(arm: str, seed: int) -> tuple[dict[str, Any], str]:
        share, source = ARMS[arm]
        if not share:
            row = ranked(place, source, seed)
            return {"seed": seed, "source": source, **row}, f"{row['seconds']}"
        if share not in place.truth:
            raise SystemExit(f"The truth at {share} % is not reliable enough to compare {source} there. See pilot.py.")
        row = won(place, share, source, seed)
        says = f"finetuned {row['finetuned']:.2%}, from scratch {row['scratch']:.2%}, {row['seconds']}"
        return {"seed": seed, "source": source, **row}, says

    same = ("network", "settings", "train images", "search images", "test images")
    fill(cells, out, facts, same, measure)


def is_due(cell: str, shares: Collection[int]) -> bool:
    """Whether a cell is of a training that there is, or of a share at which the truth is reliable."""
    arm, _, seed = cell.rpartition(".")
    share, _ = ARMS[arm]
    return share in shares if share else int(seed) < TRAININGS


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--cells", nargs="*", default=list(ARMS), help="arms, or single cells as ARM.SEED")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the cells; default: results/generated")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    truth = reliable(pilot.RESULTS)
    cells = [cell for cell in cells_of(arguments.cells) if is_due(cell, truth)]
    torch.set_num_threads(1)
    bench = pilot.bench_of(realdata.cifar10(arguments.data_root, arguments.cache))
    run(place_of(bench, truth, tasks.TRAINED, Settings()), cells, arguments.out)


if __name__ == "__main__":
    main()
