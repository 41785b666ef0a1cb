"""Prune a torchvision MobileNetV2 until it takes so many milliseconds on this machine's CPU.

A table of layer times is measured first (minutes; killed, it goes on where it was). The search predicts with it, and
the winner is built and timed; if it is too slow, the search goes on with what was learnt.

    python docs/tutorials/mobilenet_for_a_cpu_latency.py --weights trained.pt --latency 80% --threads 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torchvision import models

import prunesearch as ps


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", type=Path, help="state dict; without it, weights are random and scores mean nothing"
    )
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--num-classes", type=int, default=10)
    parser.add_argument(
        "--latency", default="80%", help="milliseconds of one forward, or a share of the unpruned one's"
    )
    parser.add_argument("--backend", default="eager", help="eager, inductor or onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n-trials", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("mobilenet"))
    parser.add_argument("--smoke", action="store_true", help="a narrow network, small images, few widths: a minute")
    return parser


def made_up(size: int, classes: int) -> ps.Data:
    """Stand-ins: put your own images here, as in the other tutorials."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(128, 3, size, size, generator=generator)
    return ps.Data(train=(images, torch.arange(128) % classes), calibration=64)


def main(options: argparse.Namespace) -> None:
    width, points = 1.0, None
    if options.smoke:
        options.image_size, options.n_trials, options.latency, width, points = 64, 4, "90%", 0.5, 2
    data = made_up(options.image_size, options.num_classes)
    model = models.mobilenet_v2(num_classes=options.num_classes, width_mult=width).eval()
    if options.weights is not None:
        ps.load_weights(model, options.weights)

    network = ps.trace(model, torch.randn(1, 3, options.image_size, options.image_size), round_to=8)
    options.out.mkdir(parents=True, exist_ok=True)
    table = ps.LatencyTable.measure(
        network,
        backend=options.backend,
        threads=options.threads,
        points=points,
        file=options.out / "latency.json",
    )
    limit = options.latency if options.latency.endswith("%") else float(options.latency)
    budget = ps.Budget(latency_ms=limit, table=table)

    result = ps.search(
        network, data, budget=budget, n_trials=options.n_trials, study=f"sqlite:///{options.out / 'search.db'}"
    )
    print(result)
    print(result.latency)  # predicted, measured, and whether the limit holds
    ps.save(result.best.build(), options.out / "small.safetensors", example_inputs=data.examples())


if __name__ == "__main__":
    main(arguments().parse_args())
