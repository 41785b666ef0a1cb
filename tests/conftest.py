"""One small trained network, shared by every test that only reads it."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from prunesearch.models.network import Network
from prunesearch.testing import digits as digits_subject
from prunesearch.training.data import Data
from prunesearch.training.digits import digits


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-out", help="where the fault suite writes what it counted, as JSON")
    parser.addoption("--fuzz", type=int, default=10_000, help="damaged files per reader in the fault suite")


def pytest_collection_finish() -> None:
    """What is there by now (torch, thousands of tests) stays; each collection of garbage would go through all of it.

    Traced networks are many small objects that live for as long as a test: looking for garbage among them every 700
    objects takes a thirtieth of the suite.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def digits_data() -> Data:
    return digits(calibration=256)


@pytest.fixture(scope="session")
def images(digits_data: Data) -> Tensor:
    return digits_data.calibration_set()[0]


@pytest.fixture(scope="session")
def labels(digits_data: Data) -> Tensor:
    return digits_data.calibration_set()[1]


@pytest.fixture(scope="session")
def network() -> Network:
    """A traced ResNet-8 that has learnt the digits; do not change it."""
    return digits_subject().network
