"""Prune a U-Net, which says of every pixel what it shows, to half of its multiply-accumulates, and train it on.

Without --data, images of coloured discs are made up; without --weights, the network is trained on the data first.

    python docs/tutorials/unet_to_half.py --data scenes.npz --weights trained.safetensors
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor, nn

import prunesearch as ps


class UNet(nn.Module):
    """Put your own in its place: nothing here knows of pruning."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.fine, self.coarse = block(3, 16), nn.Sequential(nn.MaxPool2d(2), block(16, 32), block(32, 32))
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.both, self.head = block(32, 16), nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        return self.head(self.both(torch.cat([fine, self.up(self.coarse(fine))], dim=1)))


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def made_up(n: int, size: int) -> tuple[Tensor, Tensor]:
    """A red, green or blue disc in noise, classes 1 to 3; 0 is what is around it."""
    draw, at, colours = torch.Generator().manual_seed(0), torch.arange(size) / size, torch.arange(n) % 3
    images = torch.randn(n, 3, size, size, generator=draw)
    x, y, width = torch.rand(3, n, 1, 1, generator=draw) * 0.4 + 0.3
    discs = torch.hypot(at - x, at[:, None] - y) < width / 2
    images[torch.arange(n), colours] += 2 * discs
    return images, discs * (colours + 1).reshape(n, 1, 1)


def miou(model: nn.Module, images: Tensor, masks: Tensor) -> float:
    metric = ps.tasks.segmentation().metric()
    metric.update(model.eval()(images).detach(), (images, masks))
    return metric.compute()


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="file with images (n, 3, h, w), normalised, and masks (n, h, w), 255: no class")
    parser.add_argument("--weights", help="file of the trained network's")
    parser.add_argument("--smoke", action="store_true", help="few small images, trials and epochs: seconds")
    return parser


def main(options: argparse.Namespace) -> None:
    n_trials, epochs = (4, 3) if options.smoke else (200, 20)
    if options.data is None:
        images, masks = made_up(80, 32) if options.smoke else made_up(500, 64)
    else:
        images, masks = (torch.from_numpy(np.load(options.data)[name]) for name in ("images", "masks"))
    seen = len(images) * 4 // 5  # the others judge
    data = ps.Data((images[:seen], masks[:seen]), (images[seen:], masks[seen:]), task=ps.tasks.segmentation())
    recipe = ps.Recipe(epochs=epochs, batch_size=8, lr=0.02)

    torch.manual_seed(0)
    model: nn.Module = UNet(int(masks[masks != 255].max()) + 1)
    if options.weights is None:
        model = ps.finetune(model, data, recipe=recipe)
    else:
        ps.load_weights(model, options.weights)

    network = ps.trace(model, data.examples(), round_to=4)
    result = ps.search(network, data, budget="macs=50%", n_trials=n_trials, build_with="reconstructed")
    print(result)
    half = result.best.build()  # refitted: each layer reproduces what it gave, of what it is given now
    trained = ps.finetune(half, data, teacher=model, recipe=recipe)
    ps.save(trained, "half.safetensors", example_inputs=images[:1])
    for name, each in {"unpruned": model, "half, refitted": half, "half, trained on": trained}.items():
        print(f"{name}: mIoU {miou(each, *data.test):.1%}, {ps.count(each, images[:1]).macs:,} MACs")


if __name__ == "__main__":
    main(arguments().parse_args())
