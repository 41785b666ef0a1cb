"""Prune a U-Net of segmentation_models_pytorch to half of its multiply-accumulates, and train it on.

python docs/tutorials/unet_to_half.py --weights trained.safetensors --data scenes.npz --classes 11
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import prunesearch as ps


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="state dict of the U-Net; without it the weights are random")
    parser.add_argument("--data", type=Path, help="arrays `images` (n, 3, h, w), normalised, and `masks` (n, h, w)")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--macs", default="50%")
    parser.add_argument("--n-trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("unet"))
    parser.add_argument("--smoke", action="store_true", help="made-up images, few trials and epochs: a minute")
    return parser


def main(options: argparse.Namespace) -> None:
    import segmentation_models_pytorch as smp  # pip install 'prunesearch[segmentation]'

    images = torch.randn(48, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    masks = (images.mean(1) > 0).long()
    if options.smoke:
        options.n_trials, options.epochs = 3, 1
    else:
        images, masks = (torch.from_numpy(np.load(options.data)[name]) for name in ("images", "masks"))

    model = smp.Unet("mobilenet_v2", encoder_weights=None, classes=options.classes).eval()
    if options.weights is not None:
        ps.load_weights(model, options.weights)
    task = ps.tasks.segmentation(ignore_index=255)
    data = ps.Data(train=(images, masks), validation=0.2, calibration=min(256, len(images) // 2), task=task)

    options.out.mkdir(parents=True, exist_ok=True)
    study = f"sqlite:///{options.out / 'search.db'}"
    result = ps.search(
        model, data, budget=f"macs={options.macs}", n_trials=options.n_trials, build_with="reconstructed", study=study
    )
    print(result)
    recipe = ps.Recipe(epochs=options.epochs, batch_size=16, optimizer="adamw", lr=1e-3)
    small = ps.finetune(result.best.build(), data, teacher=model, recipe=recipe, study=result)
    ps.save(small, options.out / "small.safetensors", example_inputs=data.examples())


if __name__ == "__main__":
    main(arguments().parse_args())
