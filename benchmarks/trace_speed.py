"""How long does tracing take, beside earlier versions of this package?

    git worktree add ../first 6a1cc10
    python benchmarks/trace_speed.py --beside ../first [../another ...] [--rounds 3]

Every version traces the same networks in processes of its own, in turn, so that a busy machine slows all of them down.
What is reported are seconds of one processor, the fewest of all rounds: waiting for others is no part of them. Written
to `benchmarks/results/trace_speed.json`.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import beside

OUT = Path(__file__).parent / "results" / "trace_speed.json"
NETWORKS = (
    "zoo:resnet56", "zoo:mobilenet_v2", "torchvision:resnet18", "torchvision:resnet50", "torchvision:vgg16_bn",
    "torchvision:densenet121", "torchvision:googlenet", "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x1_0", "torchvision:regnet_y_400mf", "torchvision:efficientnet_b0",
    "torchvision:mnasnet1_0", "torchvision:convnext_tiny", "torchvision:swin_t",
)  # fmt: skip
"""Networks that the first version traced as well, of several families."""


def traced(names: Sequence[str]) -> dict[str, float]:
    """Processor seconds of one trace of each network, by the package that this process imports."""
    import packages
    import torch

    import prunesearch as ps

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    ps.trace(*packages.make("zoo:resnet20"))  # what is imported and set up once
    found: dict[str, float] = {}
    for name in names:
        model, inputs = packages.make(name)
        start = time.process_time()
        ps.trace(model, inputs)
        found[name] = time.process_time() - start
    return found


def main() -> None:
    arguments = beside.parsed(__doc__, NETWORKS, OUT)
    if arguments.here:
        sys.stdout.write(json.dumps(traced(arguments.networks)))
        return
    import tasks
    import torch

    found = beside.versions(arguments.beside, __file__, arguments.networks, arguments.rounds)
    facts = {"threads": 1, "rounds": arguments.rounds, "torch": torch.__version__}
    tasks.save({"facts": facts, "versions": found}, arguments.out)


if __name__ == "__main__":
    main()
