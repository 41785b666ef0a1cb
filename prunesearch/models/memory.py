"""How much memory is free, so that what cannot fit is said before it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from prunesearch.errors import NotEnoughMemory

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device; None where nothing says so (as on the CPU of macOS or Windows).

    On the CPU what Linux calls available, or what the container has left, whichever is less.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_limits(), default=None) if device.type == "cpu" else None


def require(needed: int, device: torch.device, what: str, advice: str) -> None:
    """Refuse what would not fit.

    Args:
        needed: Bytes.
        device: Where.
        what: Subject of the sentence, such as "The published form for ResNet, 774 M parameters,".
        advice: What to do instead.

    Raises:
        NotEnoughMemory: Fewer bytes are free.
    """
    free = free_bytes(device)
    if free is not None and needed > free:
        raise NotEnoughMemory(
            f"{what} needs {needed / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free on {device}. {advice}",
            needed=needed,
            free=free,
        )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there was not enough memory; that of torch on CPUs has no class of its own."""
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    has_class = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return has_class or "out of memory" in said or "can't allocate memory" in said


def _limits() -> Iterator[int]:
    if _MEMINFO.exists():
        yield 1024 * _entry(_MEMINFO, "MemAvailable:")
    limit = _CGROUP / "memory.max"  # of the container, if there is one
    if limit.exists() and limit.read_text().strip().isdigit():  # else "max"
        used = int((_CGROUP / "memory.current").read_text())
        yield int(limit.read_text()) - used + _entry(_CGROUP / "memory.stat", "inactive_file")  # which can be given up


def _entry(file: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(name))
