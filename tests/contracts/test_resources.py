"""What every registered resource promises."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest

from prunesearch.evaluators.latency.remote import plan
from prunesearch.latency_table import LatencyTable
from prunesearch.latency_times import Timing
from prunesearch.models.network import Network
from prunesearch.models.trace import trace
from prunesearch.resources import RESOURCES
from prunesearch.resources.energy import EnergyTable
from prunesearch.testing import ResourceContract
from tests.models.networks import SMALL, chain, randomised


@cache
def small() -> Network:
    """Of a few layers, as some resources run it for each structure."""
    return trace(randomised(chain(["residual"])), SMALL)


@cache
def latency_table() -> LatencyTable:
    """Each layer takes as long as it is wide."""
    empty = plan(small(), "toy", points=3)
    layers = []
    for layer in empty.layers:
        shape = [len(axis) for axis in layer.axes]
        times = sum(np.indices(shape), np.ones(shape)).ravel() * 0.1
        layers.append(dataclasses.replace(layer, timings=tuple(Timing(t, t, t) for t in times.tolist())))
    return dataclasses.replace(empty, layers=tuple(layers), networks=())


@cache
def energy_table() -> EnergyTable:
    space = small().space
    rows = [space.minimum, *map(tuple, space.sample(np.random.default_rng(0), 6).tolist()), space.full]
    spent = [1.0 + 2e-6 * space.cost(row).macs for row in rows]
    groups = tuple((group.name, group.width) for group in space.groups)
    return EnergyTable(groups, tuple(rows), tuple(spent), "toy", 1)


TABLES: dict[str, Any] = {"latency_ms": latency_table, "energy_mj": energy_table}


class TestResources(ResourceContract):
    @pytest.fixture(autouse=True, params=RESOURCES)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.resource = request.param
        self.table = TABLES[request.param]() if request.param in TABLES else None

    def network(self) -> Network:
        return small()
