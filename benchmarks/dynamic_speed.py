"""What skipping channels per image saves in time, beside what it saves in multiply-accumulates.

    python benchmarks/dynamic_speed.py

Two kinds of networks: one that ManiDP trained on the task of benchmarks/training_methods.py, and torchvision's
ResNet-18 with random weights and random gates that pass half of the channels, other ones for each image, to see what
larger layers make of it. The ungated network, the gates multiplying, and skipping run in turns.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import tasks
import torch
from torch import Tensor, nn
from torchvision import models
from training_methods import MODEL, TUNING, Bench

import prunesearch as ps
from prunesearch.models.gates import gated_layers


def trained(task: tasks.Task) -> tuple[nn.Module, nn.Module]:
    """The pretrained network, and with gates trained into it."""
    bench = Bench(task, "40%", 0)
    network = bench.pretrained()
    result = ps.manidp(network, bench.data, budget=bench.budget, recipe=TUNING, seed=0)
    return network.model.eval(), result.model


def random_gates(model: nn.Module, images: Tensor) -> nn.Module:
    """Gates with random weights, each layer's threshold the median of its saliencies."""
    gated = ps.gated(model, images[:2]).eval()
    torch.manual_seed(0)
    for layer in gated_layers(gated).values():
        nn.init.normal_(layer.gate.excite.weight, std=0.5)
        seen: list[Tensor] = []
        handle = layer.gate.register_forward_hook(lambda gate, inputs, output, seen=seen: seen.append(output))
        with torch.no_grad():
            gated(images)
        handle.remove()
        layer.threshold.copy_(seen[0].flatten().median())
    return gated


def measure(
    name: str, unpruned: nn.Module, gated: nn.Module, images: Tensor, batch: int, rounds: int
) -> dict[str, Any]:
    runs = {"unpruned": unpruned.eval(), "gated": gated.eval(), "skipping": ps.skipping(gated)}
    ms: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            first = turn * batch % (len(images) - batch + 1)
            some = images[first : first + batch]
            for kind, run in runs.items():
                start = time.perf_counter()
                run(some)
                if turn:  # the first warms up
                    ms[kind].append(1e3 * (time.perf_counter() - start) / batch)
    macs = float(ps.macs_per_image(gated, images).double().mean()) / ps.count(unpruned, images[:2]).macs
    return {"network": name, "batch": batch, "macs": macs, "ms": ms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks.add_arguments(parser)
    parser.set_defaults(train_images=4_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dynamic_speed.json")
    arguments = parser.parse_args()
    task = tasks.load(arguments.data, arguments.data_root, arguments.train_images).halved()
    rows = []
    unpruned, gated = trained(task)
    for batch in (1, 64):
        rows.append(measure(f"{MODEL}, trained gates", unpruned, gated, task.test[0][:256], batch, arguments.rounds))
    for size in (64, 224):
        torch.manual_seed(0)
        large = models.resnet18(weights=None).eval()
        images = torch.randn(16, 3, size, size)
        gated = random_gates(large, images)
        for batch in (1, 8):
            name = f"ResNet-18 at {size}x{size}, random gates"
            rows.append(measure(name, large, gated, images, batch, arguments.rounds))
    facts = {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "prunesearch": ps.__version__,
        "torch": torch.__version__,
        "data": arguments.data,
        "rounds": arguments.rounds,
    }
    tasks.save({"facts": facts, "rows": rows}, arguments.out)
    for row in rows:
        print(row["network"], row["batch"], row["macs"], {k: sorted(v)[len(v) // 2] for k, v in row["ms"].items()})


if __name__ == "__main__":
    main()
