"""Running somebody's network without a trace of it left behind."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def undisturbed(inputs: Sequence[Tensor], seed: int = 0) -> Iterator[tuple[Tensor, ...]]:
    """Yield copies of `inputs`, which a forward may change in place; without gradients.

    Meanwhile the random generators of Python, numpy and torch (on the CPU and on the devices of the inputs) begin at
    `seed`, so that what a forward draws is the same each time. Afterwards they are where they were.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is what others may use
    devices = sorted({x.device.index for x in inputs if x.is_cuda})
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            yield tuple(x.detach().clone() for x in inputs)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
