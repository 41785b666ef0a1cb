"""What runs a network: each backend turns a module and its inputs into a call to be timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from prunesearch.evaluators.latency.timing import Call
from prunesearch.models.copying import copied
from prunesearch.models.nested import Batch, Nest, called, tensors_in
from prunesearch.registry import resolve

BACKENDS: Mapping[str, str] = {
    "eager": "prunesearch.evaluators.latency.backends:Eager",
    "inductor": "prunesearch.evaluators.latency.backends:Inductor",
    "onnxruntime": "prunesearch.evaluators.latency.onnx_runtime:OnnxRuntime",
}


class Backend(Protocol):
    """Runs networks on one device.

    Constructors take `(device, threads, provider)`, where the provider is what follows a colon in the backend's name.
    """

    points: int
    """Widths per axis for which making a layer ready takes bearable time."""
    device: str
    """Where it runs, as the table has it."""

    def prepare(self, module: nn.Module, inputs: Sequence[Tensor]) -> Call:
        """Make a module ready to run on these inputs; the call returns when the result is there.

        The module, in eval mode, is the caller's and is not changed.
        """

    def versions(self) -> dict[str, str]:
        """Versions of what decides about the speed."""


def make_backend(name: str, device: str, threads: int) -> Backend:
    """Return a backend by name, such as `eager` or `onnxruntime:CUDAExecutionProvider`.

    Raises:
        ValueError: There is none of this name, or it does not know the provider.
        ImportError: Its package is not installed.
    """
    kind, _, provider = name.partition(":")
    backend: Backend = resolve(BACKENDS, kind, "backend")(device, threads, provider)
    return backend


def positional(module: nn.Module, example: Batch, n: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A module as backends run it, on tensors by position, and n times the first image of an example of its inputs."""
    tensors = tuple(x[:1].expand(n, *x.shape[1:]).contiguous() for x in tensors_in(example))
    if isinstance(example, Tensor) or (isinstance(example, tuple) and all(isinstance(x, Tensor) for x in example)):
        return module, tensors
    return _Positional(module, Nest(example)), tensors


class _Positional(nn.Module):
    """A module that takes the tensors of its inputs by position, whatever they are nested in."""

    def __init__(self, module: nn.Module, nest: Nest) -> None:
        super().__init__()
        self.module = module
        self._nest = nest

    def forward(self, *tensors: Tensor) -> object:
        return called(self.module, self._nest(*tensors))


class Eager:
    """Torch as it is, operator by operator.

    Args:
        device: A torch device.
        threads: Have been set already.
        provider: Must be empty.
    """

    points = 8

    def __init__(self, device: str, threads: int, provider: str = "") -> None:
        if provider:
            raise ValueError(f"Only onnxruntime has providers, got {provider!r}.")
        self.device = str(torch.device(device))

    def prepare(self, module: nn.Module, inputs: Sequence[Tensor]) -> Call:
        """Move copies to the device."""
        model = copied(module).to(self.device)
        placed = tuple(x.detach().to(self.device) for x in inputs)
        synchronize = torch.cuda.synchronize if torch.device(self.device).type == "cuda" else None

        def call() -> None:
            with torch.inference_mode():
                model(*placed)
            if synchronize is not None:
                synchronize()

        return call

    def versions(self) -> dict[str, str]:
        """Torch's."""
        return {"torch": str(torch.__version__)}


class Inductor(Eager):
    """`torch.compile`: operators are fused and compiled, which takes seconds per layer and width.

    Args:
        device: A torch device.
        threads: Have been set already.
        provider: Must be empty.
    """

    points = 4

    def prepare(self, module: nn.Module, inputs: Sequence[Tensor]) -> Call:
        """Compile for these shapes alone."""
        torch._dynamo.reset()  # what was compiled before stays compiled; its guards need not be kept
        call = super().prepare(_Compiled(copied(module)), inputs)
        call()
        return call


class _Compiled(nn.Module):
    """A module that compiles what it holds, wherever it is moved, when it is first called."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._run: Callable[..., object] | None = None

    def forward(self, *inputs: Tensor) -> object:
        if self._run is None:
            self._run = torch.compile(self.module, dynamic=False)
        return self._run(*inputs)
