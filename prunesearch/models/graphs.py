"""CUDA graphs: what a function does on a GPU, launched as one piece.

The kernels of a small network take less time than their launches from Python, one by one. A graph holds them, with the
memory they use, for inputs of the same shapes. Only captured on simulated devices so far.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from prunesearch.models.devices import current
from prunesearch.models.memory import is_out_of_memory
from prunesearch.models.nested import mapped

Work: TypeAlias = Callable[..., Any]
"""From tensors on one device to a nest of tensors there. It waits for nothing, and what else it reads is constant."""

_MOST = 4
"""Graphs that are kept: each has memory of its own, and what comes rarely is not worth it."""


def captured(work: Work, inputs: Sequence[Tensor]) -> Work:
    """The same work as a CUDA graph.

    Args:
        work: What is done.
        inputs: An example; later ones have the same shapes.

    Raises:
        RuntimeError: It cannot be captured, as it waits for the GPU or copies from the CPU.
    """
    device = inputs[0].device
    given = [x.clone() for x in inputs]
    kind, graph = device.type, torch.cuda.CUDAGraph()
    side: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # without a cache, or the graph would read 16-bit weights that are gone when autocast ends
    precision = torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )
    with current(device), precision:
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):  # what libraries set up at first cannot be captured
            for _ in range(2):
                work(*given)
        torch.cuda.current_stream(device).wait_stream(side)
        with torch.cuda.graph(graph):
            output = work(*given)

    def replay(*others: Tensor) -> Any:
        for mine, other in zip(given, others, strict=True):
            mine.copy_(other)
        graph.replay()
        return mapped(output, Tensor.clone)  # the next replay writes over it

    return replay


class Graphs:
    """The graphs of one function, by what decides its work beside the values of its inputs.

    Args:
        capture: Makes a graph.

    Attributes:
        trouble: Why something could not be captured; it runs as ever. Empty if all could.
    """

    def __init__(self, capture: Callable[[Work, Sequence[Tensor]], Work] = captured) -> None:
        self._capture = capture
        self._kept: dict[Hashable, Work] = {}
        self.trouble = ""

    def run(self, key: Hashable, work: Work, inputs: Sequence[Tensor]) -> Any:
        """What the work gives, by its graph; the first time of a key it is captured, if there are not too many.

        Args:
            key: Equal for equal work.
            work: What is done.
            inputs: With the same shapes whenever the key is the same, too.

        Raises:
            RuntimeError: The work itself fails, or memory runs out.
        """
        key = (key, tuple((tuple(x.shape), x.dtype) for x in inputs))
        if key not in self._kept and len(self._kept) < _MOST:
            try:
                self._kept[key] = self._capture(work, inputs)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self.trouble = str(error).partition("\n")[0]
                self._kept[key] = work
        return self._kept.get(key, work)(*inputs)

    def forget(self) -> None:
        """Give their memory back."""
        self._kept.clear()
