"""Running somebody's network without a trace of it left behind."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def undisturbed(inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Yield copies of `inputs`, which a forward may change in place; without gradients.

    Afterwards the random generators of Python, numpy and torch (on the CPU and on the devices of the inputs) are where
    they were: some forwards draw from them even in eval mode.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is what others may use
    devices = sorted({x.device.index for x in inputs if x.is_cuda})
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield tuple(x.detach().clone() for x in inputs)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
