"""Prune a network of your own: a residual sum, a concatenation, and a layer that must stay as it is.

Nothing has to be registered or annotated. Copy `Own`, put your module in its place, and read what `explain` says.

    python docs/tutorials/your_own_network.py --macs 40%
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.training.digits import digits


class Own(nn.Module):
    """Two branches that are concatenated, after a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 24)
        self.block = nn.Sequential(conv(24, 32), conv(32, 24))
        self.left = conv(24, 16)
        self.right = conv(24, 20)
        self.embedding = conv(36, 48)  # say, something else reads it: its 48 channels must stay
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.block(x)  # stem and block get narrower together
        x = torch.cat([self.left(x), self.right(x)], dim=1)  # left and right separately
        return self.head(self.embedding(x).mean((2, 3)))


def conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--macs", default="40%")
    parser.add_argument("--n-trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="few trials and epochs: seconds")
    return parser


def main(options: argparse.Namespace) -> None:
    if options.smoke:
        options.n_trials, options.epochs = 8, 1
    data = digits()
    images, labels = data.test_set()
    model = ps.finetune(Own(), data, recipe=ps.Recipe(epochs=options.epochs, lr=0.1))

    network = ps.trace(model, images[:2], ignored_layers=("embedding",), min_channels={"stem.*": 8, "*": 0.1})
    print(network.explain())  # the residual stream is one group; the embedding is frozen, and the reason stands beside
    check = network.verify(n=5)  # random pruned structures, against the network with channels masked
    print(f"largest difference of {check.structures} pruned networks: {check.largest_difference:.1e}")
    if not check.costs_exact:
        raise SystemExit("Costs are not what they should be: please report this network.")

    result = ps.search(network, data, budget=ps.Budget(macs=options.macs), n_trials=options.n_trials)
    small = ps.finetune(result.best.build(), data, teacher=model, recipe=ps.Recipe(epochs=options.epochs, lr=0.02))
    for group, width in zip(network.space.groups, result.best.structure, strict=True):
        print(f"{group.name}: {width} of {group.width} channels")
    print(f"accuracy {ps.top1(model, images, labels):.1%} -> {ps.top1(small, images, labels):.1%}")
    print("MACs and parameters:", ps.count(model, images[:1]), "->", ps.count(small, images[:1]))
    assert isinstance(small, Own)  # the same class, with fewer channels


if __name__ == "__main__":
    main(arguments().parse_args())
