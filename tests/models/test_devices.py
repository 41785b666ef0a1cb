"""The GPU is chosen where there is one, and said; what was asked for counts; nothing that is not there is used."""

from __future__ import annotations

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from prunesearch.models import devices
from prunesearch.models.devices import Devices, devices_here, random_apart
from tests.models_state import generators

NONE = Devices()
TWO = Devices(("NVIDIA H200", "NVIDIA L4"))
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("devices", "asked", "given", "chosen"),
    [
        (NONE, None, CPU, "cpu"),
        (TWO, None, CPU, "cuda:0"),
        (TWO, None, torch.device("cuda", 1), "cuda:1"),
        (TWO, "cpu", torch.device("cuda", 1), "cpu"),
        (TWO, "cuda", CPU, "cuda:0"),
        (TWO, "cuda:1", CPU, "cuda:1"),
    ],
)
def test_what_was_asked_for_counts_then_where_the_network_was_put_then_the_gpu(
    devices: Devices, asked: str | None, given: torch.device, chosen: str
) -> None:
    assert str(devices.chosen(asked, given)) == chosen


@pytest.mark.parametrize(
    ("devices", "asked", "said"),
    [
        (NONE, "cuda", "there is no GPU"),
        (TWO, "cuda:2", r"there is cuda:0 \(NVIDIA H200\), cuda:1 \(NVIDIA L4\)"),
        (NONE, "gpu", r"got 'gpu': torch knows no such kind; a GPU is cuda\.$"),
        (NONE, "hpu", "got 'hpu'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(devices: Devices, asked: str, said: str) -> None:
    with pytest.raises(ValueError, match=rf"Expected device as one that torch has here.*{said}"):
        devices.chosen(asked)


@pytest.mark.parametrize("seed", [None, 3])
def test_draws_apart_leave_every_generator_where_it_was(seed: int | None) -> None:
    before = generators()
    drawn = []
    for _ in range(2):
        with random_apart(CPU, seed=seed):
            drawn.append((float(torch.rand(1)), random.random(), float(np.random.random())))  # noqa: NPY002
    assert generators() == before
    assert drawn[0] == drawn[1]


def test_a_gpu_that_is_used_is_named_and_one_that_is_idle_is_said() -> None:
    assert TWO.told(torch.device("cuda", 1)) == "Running on cuda:1 (NVIDIA L4)."
    assert TWO.told(CPU) is None
    assert TWO.idle_beside(CPU, None) == "cuda:0 (NVIDIA H200) was idle: the work was done on the CPU."
    assert TWO.idle_beside(CPU, "cpu") is None
    assert NONE.idle_beside(CPU, None) is None


@pytest.mark.parametrize(
    ("devices", "device", "asked", "visible", "expected"),
    [
        (TWO, "cuda:0", None, None, ("0", "1")),
        (TWO, "cuda:0", "cuda", "4,GPU-8,2", ("4", "GPU-8")),
        (TWO, "cuda:0", "cuda:0", None, ()),
        (TWO, "cuda:1", None, None, ()),
        (TWO, "cpu", "cpu", None, ()),
        (Devices(("NVIDIA L4",)), "cuda:0", None, None, ()),
    ],
)
def test_gpus_are_shared_out_unless_somebody_chose_one(
    monkeypatch: pytest.MonkeyPatch,
    devices: Devices,
    device: str,
    asked: str | None,
    visible: str | None,
    expected: tuple[str, ...],
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.shared_out(torch.device(device), asked) == expected


def test_a_gpu_is_known_by_its_name_and_asked_for_16_bits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, bool]] = []

    def supported(**given: bool) -> bool:
        asked.append(given)
        return True

    monkeypatch.setattr(devices, "current", nullcontext)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA of {device.index}")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert devices.kind_of_device(torch.device("cuda", 1)) == "NVIDIA of 1"
    assert devices.kind_of_device(CPU) == "cpu"
    assert devices.has_bfloat16(torch.device("cuda", 1))
    assert asked == [{"including_emulation": False}]


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_without_a_gpu_there_is_none() -> None:
    assert devices_here() == NONE
