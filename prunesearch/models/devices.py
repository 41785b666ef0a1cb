"""On which device work is done: the GPU where there is one, or whatever the caller asks for."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Devices:
    """The GPUs that torch can use.

    Attributes:
        gpus: Their names, in torch's order.
    """

    gpus: tuple[str, ...] = ()

    def chosen(self, asked: str | None, given: torch.device | None = None) -> torch.device:
        """The device to work on.

        Args:
            asked: A device as torch calls it, such as `"cpu"` or `"cuda:1"`; None takes the first GPU, or the CPU where
                there is none.
            given: Where the network is; if that is not the CPU, somebody has put it there, so None stays there.

        Raises:
            ValueError: torch has no such device, or fewer GPUs.
        """
        if asked is None and given is not None and given.type != "cpu":
            return given
        if asked is None:
            return torch.device("cuda", 0) if self.gpus else torch.device("cpu")
        try:
            device = torch.device(asked)
            if device.type != "cuda":
                torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ImportError) as error:  # torch was built for other devices
            said = str(error).partition(". ")[0].rstrip(".")
            is_kind = not said.startswith("Expected one of")  # dozens of kinds, which nobody has
            raise _unusable(asked, said if is_kind else "torch knows no such kind; a GPU is cuda") from error
        if device.type != "cuda":
            return device
        if (device.index or 0) >= len(self.gpus):
            there = ", ".join(f"cuda:{index} ({name})" for index, name in enumerate(self.gpus))
            raise _unusable(asked, f"there is {there or 'no GPU'}")
        return torch.device("cuda", device.index or 0)

    def shared_out(self, device: torch.device, asked: str | None) -> tuple[str, ...]:
        """What `CUDA_VISIBLE_DEVICES` calls each GPU, where every process may have one of its own.

        Args:
            device: The device that was chosen.
            asked: The device that was asked for.

        Returns:
            Nothing where there is one GPU at most, or where somebody chose one of them.
        """
        if len(self.gpus) < 2 or device != torch.device("cuda", 0) or asked not in (None, "cuda"):
            return ()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return tuple(visible.split(",") if visible else map(str, range(len(self.gpus))))[: len(self.gpus)]

    def named(self, device: torch.device) -> str:
        """A device with what it is called, for people."""
        if device.type == "cuda" and (device.index or 0) < len(self.gpus):
            return f"{device} ({self.gpus[device.index or 0]})"
        return str(device)

    def told(self, device: torch.device) -> str | None:
        """What is said before work begins: of a GPU its name; nothing of the CPU, which anybody expects."""
        return None if device.type == "cpu" else f"Running on {self.named(device)}."

    def idle_beside(self, device: torch.device, asked: str | None) -> str | None:
        """What to say of a GPU that is not used, though nobody asked for another device; None if there is none."""
        if device.type != "cpu" or asked is not None or not self.gpus:
            return None
        return f"{self.named(torch.device('cuda', 0))} was idle: the work was done on the CPU."


def devices_here() -> Devices:
    """What this machine has."""
    if not torch.cuda.is_available():
        return Devices()
    return Devices(tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())))


def kind_of_device(device: torch.device) -> str:
    """What is alike for devices that are equally fast at everything: the name of a GPU, else what torch calls them."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device is a GPU that computes in bfloat16 itself, and does not only imitate it."""
    if device.type != "cuda":
        return False
    with current(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def device_of_module(model: nn.Module) -> torch.device | None:
    """Where the first parameter of a module is; None if it has none."""
    return next((parameter.device for parameter in model.parameters()), None)


def placed(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; nobody waits for a copy from ordinary memory to a GPU, which torch has read by then."""
    at_once = x.device.type == "cpu" and device.type != "mps"  # Metal reads it later
    return x.to(device, non_blocking=at_once)


def in_float64(x: Tensor) -> Tensor:
    """A tensor in 64 bits, on the device that has them."""
    return x.to(device_of_float64(x.device)).double()


def device_of_float64(device: torch.device) -> torch.device:
    """Where numbers of a device are computed in 64 bits: there, but the CPU for Metal, which has 32."""
    return torch.device("cpu") if device.type == "mps" else device


def fetched(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one kind and device, on the CPU. A GPU is waited for once, however many they are."""
    if not tensors or tensors[0].device.type == "cpu":
        return list(tensors)
    together = torch.cat([x.reshape(-1) for x in tensors]).cpu()
    parts = torch.split(together, [x.numel() for x in tensors])
    return [part.view(x.shape) for part, x in zip(parts, tensors, strict=True)]


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def random_apart(*devices: torch.device | None, seed: int | None = None) -> Iterator[None]:
    """The random generators of Python, numpy and torch, on the CPU and on GPUs, are afterwards where they were.

    Other GPUs are not asked.

    Args:
        *devices: The GPUs; what is none does not count.
        seed: Where they begin meanwhile; None where they are.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is what others may use
    gpus = [device for device in devices if device is not None and device.type == "cuda"]
    try:
        with torch.random.fork_rng(devices=gpus):
            if seed is not None:
                draw_from(seed, *gpus)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def draw_from(seed: int, *devices: torch.device) -> None:
    """Let the random generators of Python, numpy and torch, on the CPU and on these GPUs, begin at a seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    for device in devices:
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)


def seed_generators(seed: int) -> None:
    """Let the random generators of Python, numpy and torch begin at a seed, torch's on every device."""
    draw_from(seed)
    torch.manual_seed(seed)


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Makes a GPU the one that torch, and libraries on it, take where no index is given."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield


def _unusable(asked: str, why: str) -> ValueError:
    return ValueError(f"Expected device as one that torch has here, such as cpu; got {asked!r}: {why}.")
