"""ONNX Runtime as a backend; on the CPU or through any of its execution providers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import onnxruntime
import torch
from torch import Tensor, nn

from prunesearch.evaluators.latency.timing import Call


class OnnxRuntime:
    """Runs networks as ONNX files, all of the runtime's optimisations on.

    Args:
        device: Not looked at: the provider says where.
        threads: Of one operator; operators run one after the other.
        provider: Name of an execution provider; empty is the CPU's.

    Raises:
        ValueError: The installed onnxruntime has no such provider.
    """

    points = 8

    def __init__(self, device: str, threads: int, provider: str = "") -> None:
        self._provider = provider or "CPUExecutionProvider"
        known = onnxruntime.get_available_providers()
        if self._provider not in known:
            raise ValueError(f"This onnxruntime has no provider {self._provider!r}; it has {', '.join(known)}.")
        self.device = "cpu" if self._provider == "CPUExecutionProvider" else self._provider
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3

    def prepare(self, module: nn.Module, inputs: Sequence[Tensor]) -> Call:
        """Export and load."""
        session = onnxruntime.InferenceSession(to_onnx(module, inputs), self._options, providers=[self._provider])
        feeds = {given.name: x.numpy() for given, x in zip(session.get_inputs(), inputs, strict=True)}
        return lambda: session.run(None, feeds)

    def versions(self) -> dict[str, str]:
        """Of the runtime, and of torch, which exports."""
        return {"onnxruntime": str(onnxruntime.__version__), "torch": str(torch.__version__)}


def to_onnx(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """A module as an ONNX file of fixed shapes.

    By torch's older exporter: it takes 10 ms for a layer where the newer one takes a second, and a table has thousands.
    Both give the runtime the same operators after its own optimisations.
    """
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # it says that it is the older one
        torch.onnx.export(module, tuple(inputs), file, dynamo=False)  # type: ignore[arg-type]  # this one writes to it
    return file.getvalue()
