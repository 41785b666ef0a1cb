"""Data in, trained networks out."""

from __future__ import annotations

from collections.abc import Mapping

DATASETS: Mapping[str, str] = {
    "digits": "prunesearch.training.digits:digits",
    "fashion-mnist": "prunesearch.training.datasets:fashion_mnist",
    "cifar10": "prunesearch.training.datasets:cifar10",
    "cifar100": "prunesearch.training.datasets:cifar100",
    "imagefolder": "prunesearch.training.datasets:image_folder",
}
"""Data sets the command line knows by name; `imagefolder` is followed by `:` and a folder."""
