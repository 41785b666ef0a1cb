"""Detectors and segmenters on real images: what a search is worth beside simpler ways to the same limit.

    pip install 'prunesearch[ultralytics]' torch-pruning
    python benchmarks/detectors.py --data-root DATA [--cells yolo-base.0 yolo-50-ours unet-50-sibling.1]

A YOLOv8n of ultralytics on blood cells (BCCD, 160 pixels), and the U-Net of `unet.py` on streets (CamVid, 144 x 192),
are trained from random weights, brought to 70, 50 and 30 % of their multiply-accumulates by each arm, trained on, and
judged on test images that nothing was chosen by: by mAP50-95 and mIoU, each time after the last epoch.

- `base` is the unpruned network. All arms and shares of a seed start with the same one, which is kept in `--cache`. If
  it is lost it is trained again: to the same bits by the same versions on the same kind of machine. If it comes out
  otherwise, a share of a seed that was begun is refused; the others go on.
- `ours` (the default searcher), `uniform` and `l1-global` differ by the structure and which channels stay; each gets
  refitted weights. `torch-pruning` is one ranking of all channels by that library. It fails on the blocks of the YOLO
  as they come, so they are rewritten before, as in the library's own example; where it still fails, the cell says so.
  `resolution` is the unpruned network on fewer pixels. All of them are trained for a third or a quarter of the epochs
  of `base`, by one recipe.
- `sibling` is a narrower network of the same family, and `scratch` the structure of `ours`, both from random weights.
  They are trained for as many epochs as `base` and the epochs after pruning together, by the recipe of `base`.
- YOLOs are trained by ultralytics' own trainer, which has no teacher. Of the U-Nets, the four that were pruned have the
  unpruned one as their teacher, as `ps.prune` does; the others have none.

CPU-seconds are of one thread: of the search (with tracing and building), and of the training; judging is left out. Each
cell is a file of its own in `results/detectors_yolo` or `results/detectors_unet`; run again to go on. The cells of a
seed are measured share by share, 50 % first. A `base` takes three to six CPU-minutes, one share of a seed 10 to 22,
most of it `sibling` and `scratch`.

Registered before the first cell was measured; of means over the three seeds, in points of mAP50-95 or mIoU. At each
share and of both networks, `ours` is the best arm or at most 0.5 points below it. At 50 % it is above `sibling` and
above `scratch` by at least one point, of both networks. At 30 % it is above `uniform` by at least one point; at 70 %
the two are within one point. `resolution` is below `ours` everywhere, at 70 % of the U-Net by less than two points. A
difference counts if it is larger than its standard error over the seeds.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cells
import realdata
import torch
from places import NETWORKS, Place, Start

import prunesearch as ps
from prunesearch.evaluators.channels import make_criterion
from prunesearch.models.fingerprint import model_fingerprint
from prunesearch.training.scratch import drawn_anew

RESULTS = Path(__file__).parent / "results"
SEEDS, SHARES = (0, 1, 2), (50, 70, 30)
SEARCHED: Mapping[str, tuple[str, ps.Scoring]] = {
    "ours": ("surrogate", ps.Scoring()),
    "uniform": ("uniform", ps.Scoring()),
    "l1-global": ("global", ps.Scoring(criterion="l1")),
}
"""Arms that are searches: the searcher, and what scores."""
WAYS = (*SEARCHED, "torch-pruning", "resolution", "sibling", "scratch")
STEPS = 64
"""In how many steps siblings become narrower."""


# --- arms -------------------------------------------------------------------------------------------------------------


def searched(place: Place, share: int, *, way: str) -> Start:
    """The winner of a search, with refitted weights."""
    searcher, scoring = SEARCHED[way]
    found = ps.search(
        traced(place), place.data, budget=f"macs={share}%", searcher=searcher, scoring=scoring, seed=place.seed,
        n_trials=place.effort.trials, build_with="reconstructed",
    )  # fmt: skip
    return Start(found.best.build(), place.size, "pruned", found.best.structure)


def by_torch_pruning(place: Place, share: int) -> Start:
    """Narrowed step by step, by one ranking of all channels, until it costs so little."""
    package, image = importlib.import_module("torch_pruning"), one(place)
    model = place.without_chunks(place.unpruned()[0])
    limit = ps.count(model, image).macs * share / 100
    model.train()  # of a detector, so that its answer is plain tensors
    steps = 50
    pruner = package.pruner.MetaPruner(
        model, image, importance=package.importance.MagnitudeImportance(p=1), global_pruning=True, pruning_ratio=0.95,
        iterative_steps=steps, ignored_layers=place.last_layers(model),
    )  # fmt: skip
    for _ in range(steps):
        pruner.step()
        if ps.count(model.eval(), image).macs <= limit:
            return Start(model, place.size, "pruned")
        model.train()
    raise RuntimeError(f"Torch-Pruning does not come to {share} % of the multiply-accumulates.")


def at_lower_resolution(place: Place, share: int) -> Start:
    """The unpruned network on as many pixels as the share allows."""
    _, multiple = place.multiple
    height, width = (multiple * max(1, int(side * (share / 100) ** 0.5 / multiple)) for side in place.size)
    return Start(place.unpruned()[0], (height, width), "unpruned")


def sibling(place: Place, share: int) -> Start:
    """The widest network of the family that costs so little."""
    image = one(place)
    limit = ps.count(place.unpruned()[0], image).macs * share / 100
    for step in range(STEPS):
        model = place.narrower(1 - step / STEPS)
        if ps.count(model.eval(), image).macs <= limit:
            return Start(model, place.size, "random")
    raise RuntimeError(f"No network of the family costs {share} % of the multiply-accumulates.")


def from_scratch(place: Place, structure: Sequence[int]) -> Start:
    """A structure, with the random weights that layers of its widths begin with."""
    network = traced(place)
    small = ps.slim(network, tuple(structure), make_criterion("l1").rank(network))
    return Start(drawn_anew(small, place.seed), place.size, "random", structure)


ARMS: Mapping[str, Callable[[Place, int], Start]] = {
    **{way: functools.partial(searched, way=way) for way in SEARCHED},
    "torch-pruning": by_torch_pruning,
    "resolution": at_lower_resolution,
    "sibling": sibling,
}
"""All that need no cell of another arm."""


def traced(place: Place) -> ps.Network:
    """The unpruned network."""
    return ps.trace(place.unpruned()[0], torch.rand(2, 3, *place.size), round_to=place.multiple[0])


def one(place: Place) -> torch.Tensor:
    """An image by which costs are counted."""
    return torch.zeros(1, 3, *place.size)


# --- cells ------------------------------------------------------------------------------------------------------------


def arms_of(name: str) -> list[str]:
    """Arms of a network, in the order in which the cells of a seed are measured."""
    return [f"{name}-base", *(f"{name}-{share}-{way}" for share in SHARES for way in WAYS)]


def measure(place: Place, arm: str, out: Path) -> tuple[dict[str, Any], str]:
    """One cell: what is reached on the test images, or why nothing is.

    Raises:
        SystemExit: Other cells of the same share and seed are of another unpruned network, or the structure that
            `scratch` trains is not there yet.
    """
    model, seconds = place.unpruned()
    row: dict[str, Any] = {"network": model_fingerprint(model)}
    full = ps.count(model, one(place)).macs
    if arm.endswith("-base"):
        reached = place.judged(model, place.size)
        row |= {"reached": reached, "macs": full, "full macs": full, "epochs": place.effort.first}
        row["seconds"] = {"search": 0.0, "training": round(seconds, 1)}
        return {"seed": place.seed, "row": row}, f"{place.metric} {reached:.3f}, {seconds:.0f} s"
    _, share, way = arm.split("-", 2)
    check_network(out, arm.removesuffix(f"-{way}"), place.seed, row["network"])
    started = time.process_time()
    try:
        if way == "scratch":
            start = from_scratch(place, _structure(out, arm, place.seed))
        else:
            start = ARMS[way](place, int(share))
        searching = time.process_time() - started
        macs = ps.count(start.model, torch.zeros(1, 3, *start.size)).macs
        started = time.process_time()
        trained = place.trained(start)
        training = time.process_time() - started
        reached = place.judged(trained, start.size)
    except Exception as error:
        if way != "torch-pruning":
            raise
        failure = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"seed": place.seed, "row": {**row, "failure": failure}}, f"failed: {failure}"
    row |= {"reached": reached, "macs": macs, "full macs": full, "epochs": place.effort.epochs(start)}
    row["seconds"] = {"search": round(searching, 1), "training": round(training, 1)}
    row["structure"] = None if start.structure is None else list(start.structure)
    return {"seed": place.seed, "row": row}, f"{place.metric} {reached:.3f}, {row['seconds']}"


def check_network(out: Path, begun: str, seed: int, network: str) -> None:
    """Make sure that all cells of a share and a seed are of one unpruned network.

    Raises:
        SystemExit: They are not.
    """
    for file in sorted(out.glob(f"{begun}-*.{seed}.json")):
        if json.loads(file.read_text())["row"]["network"] != network:
            raise SystemExit(
                f"{file.name} was measured with another unpruned network, which is lost. Move the cells of {begun} "
                f"with seed {seed} away."
            )


def _structure(out: Path, arm: str, seed: int) -> list[int]:
    ours = out / f"{arm.removesuffix('scratch')}ours.{seed}.json"
    if not ours.exists():
        raise SystemExit(f"Expected {ours.name}, whose structure this trains. Measure {ours.stem} first.")
    structure: list[int] = json.loads(ours.read_text())["row"]["structure"]
    return structure


def fill(name: str, chosen: Sequence[str], options: argparse.Namespace) -> None:
    """Measure all cells of a network that are empty."""
    kind, effort = NETWORKS[name]

    @functools.lru_cache(1)
    def make(seed: int) -> Place:
        return kind(options.data_root, options.cache, effort, seed)

    out = options.results / f"detectors_{name}"
    others = {package: version(package) for package in kind.packages}
    facts = {"metric": kind.metric, "size": kind.size, **asdict(effort), **cells.conditions(**others)}
    cells.fill(chosen, out, facts, list(asdict(effort)), lambda arm, seed: measure(make(seed), arm, out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    arms = [arm for name in NETWORKS for arm in arms_of(name)]
    parser.add_argument("--cells", nargs="+", default=arms, help="arms, or cells such as yolo-50-ours.0; default: all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = cells.Grid(arms, SEEDS, "ARM.SEED such as yolo-50-ours.0").chosen(options.cells)
    for name in NETWORKS:
        fill(name, [cell for cell in chosen if cell.startswith(f"{name}-")], options)


if __name__ == "__main__":
    main()
