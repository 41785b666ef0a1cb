"""Scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels that come with the package."""

from __future__ import annotations

import numpy as np
import torch

from prunesearch.training.data import Data


def digits(*, seed: int = 0, test_fraction: float = 0.25, calibration: int = 512) -> Data:
    """The digits as `Data`: (n, 1, 8, 8) images with zero mean and unit variance, split at random.

    Source: the UCI "Optical Recognition of Handwritten Digits" test set, as shipped in scikit-learn.

    Args:
        seed: Decides the split.
        test_fraction: Share kept for testing.
        calibration: Training images that score structures.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = torch.from_numpy(raw.images.astype(np.float32)).unsqueeze(1)
    labels = torch.from_numpy(raw.target.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng([seed, 3]).permutation(len(images)))
    cut = round(len(images) * (1 - test_fraction))
    train, test = order[:cut], order[cut:]
    mean, deviation = images[train].mean(), images[train].std()
    images = (images - mean) / deviation
    return Data(
        train=(images[train], labels[train]),
        test=(images[test], labels[test]),
        calibration=calibration,
        seed=seed,
    )
