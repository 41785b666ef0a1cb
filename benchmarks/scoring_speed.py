"""How long does scoring take on images of real size, beside earlier versions of this package?

    git worktree add ../first 6a1cc10
    python benchmarks/scoring_speed.py --beside ../first [../another ...] [--rounds 3]

Structures at half of the multiply-accumulates of networks of torchvision are scored on 64 images of 224 pixels, by the
loss, one after the other. Every version scores in processes of its own, in turn, so that a busy machine
slows all of them down; and all again with the environment variables that let glibc keep freed memory. What is reported
are seconds of one processor for a structure, the fewest of all rounds. Written to
`benchmarks/results/scoring_speed.json`.

The aim, written down before: a structure of EfficientNet-Lite0 takes at most half of the time of the first version.
That one could not trace this network; those here it could.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import beside

OUT = Path(__file__).parent / "results" / "scoring_speed.json"
NETWORKS = ("mobilenet_v2", "efficientnet_b0", "mnasnet1_0", "resnet18", "resnet50")
IMAGES, PIXELS, STRUCTURES = 64, 224, 3


def scored(names: Sequence[str]) -> dict[str, float]:
    """Processor seconds for a structure of each network, by the package that this process imports."""
    import numpy as np
    import torch
    import torchvision

    import prunesearch as ps
    from prunesearch.evaluators.channels import make_criterion
    from prunesearch.models.weights import InheritedWeights

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for name in names:
        torch.manual_seed(0)
        network = ps.trace(torchvision.models.get_model(name, num_classes=10).eval(), torch.randn(2, 3, PIXELS, PIXELS))
        space = network.space
        drawn = ps.Budget(macs="50%").check(space).fit(space.sample(np.random.default_rng(0), STRUCTURES))
        structures = [space.check(row) for row in drawn.tolist()]
        evaluator = evaluator_of(InheritedWeights(network, make_criterion("l1").rank(network)))
        for structure in structures:  # what is set up once
            evaluator.score([structure])
        start = time.process_time()
        for structure in structures:
            evaluator.score([structure])
        found[name] = (time.process_time() - start) / STRUCTURES
    return found


def evaluator_of(weights: Any) -> Any:
    """Of the version that is imported: the first one took images and labels apart."""
    import torch

    from prunesearch.evaluators import accuracy

    evaluator: Any = accuracy.AccuracyEvaluator
    images, labels = torch.randn(IMAGES, 3, PIXELS, PIXELS), torch.arange(IMAGES) % 10
    try:
        from prunesearch.tasks.examples import Examples
    except ImportError:
        return evaluator(weights, images, labels)
    import prunesearch as ps

    return evaluator(weights, Examples((images, labels), ps.tasks.classification()))


def main() -> None:
    arguments = beside.parsed(__doc__, NETWORKS, OUT)
    if arguments.here:
        sys.stdout.write(json.dumps(scored(arguments.networks)))
        return
    import tasks
    import torch

    asked = arguments.beside, __file__, arguments.networks, arguments.rounds
    found = {"versions": beside.versions(*asked), "kept": beside.versions(*asked, beside.KEPT)}
    facts = {
        "threads": 1, "rounds": arguments.rounds, "torch": torch.__version__, "images": IMAGES, "pixels": PIXELS,
        "structures": STRUCTURES,
    }  # fmt: skip
    tasks.save({"facts": facts, **found}, arguments.out)


if __name__ == "__main__":
    main()
