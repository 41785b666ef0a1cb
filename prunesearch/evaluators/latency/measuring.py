"""Measuring a latency table: every distinct layer over a grid of widths, and a few whole networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prunesearch.evaluators.inputs import example_batch
from prunesearch.evaluators.latency.backends import Backend, make_backend, positional
from prunesearch.evaluators.latency.grids import grid_of, levels, networks_to_time, packed
from prunesearch.evaluators.latency.timing import Reference, pinned, processor_name, time_calls
from prunesearch.latency_table import LatencyTable, network_fingerprint
from prunesearch.latency_times import Built, Conditions, Layer, Timing, Use, combinations_of
from prunesearch.models.blocks import Block, BlockedNetwork
from prunesearch.models.network import Network
from prunesearch.models.ranking import NestedRanking
from prunesearch.models.slim import slim
from prunesearch.models.traced import check_traced
from prunesearch.progress import Progress, shown
from prunesearch.structure import Space, Structure, Width

_NETWORK_VISITS = 15
_NETWORKS_AT_ONCE = 6


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and where it goes.

    Attributes:
        blocks: One block of the network per distinct layer.
        demands: Per layer and combination of widths, the widths of groups at which it has them.
    """

    blocks: tuple[Block, ...]
    demands: Mapping[tuple[int, int], Mapping[int, int]]


def measure(
    network: Network,
    *,
    backend: str = "eager",
    device: str | None = None,
    batch_size: int = 1,
    threads: int | None = None,
    file: str | Path | None = None,
    points: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    progress: Progress = True,
) -> LatencyTable:
    """See `LatencyTable.measure`."""
    check_traced(network)
    threads = torch.get_num_threads() if threads is None else threads
    if batch_size < 1 or (points is not None and points < 2):
        raise ValueError(f"Expected batch_size >= 1 and points >= 2, got {batch_size} and {points}.")
    with pinned(threads), shown("timed", "timings", progress) as bar:
        runner = make_backend(backend, device or str(network.inputs.tensors[0].device), threads)
        blocked = BlockedNetwork(network, batch_size)
        conditions = Conditions(
            backend=backend,
            device=runner.device,
            processor=processor_name(runner.device if runner.device.startswith("cuda") else "cpu"),
            threads=threads,
            batch_size=batch_size,
            versions=tuple(sorted(runner.versions().items())),
        )
        table, plan = planned(blocked, conditions, points or runner.points)
        if file is not None and Path(file).exists():
            table = _resumed(table, LatencyTable.load(file), str(file))
        for table in _measured(table, plan, blocked, network, runner):  # noqa: B020 - each is the last one and more
            if file is not None:
                table.save(file)
            wanted = sum(len(layer.timings) for layer in table.layers) + len(table.networks)
            bar.update(wanted - table.missing, wanted)
            if on_progress is not None:
                on_progress(wanted - table.missing, wanted)
    return table


def planned(blocked: BlockedNetwork, conditions: Conditions, points: int) -> tuple[LatencyTable, Plan]:
    """The table without times, and the structures at which each time can be had."""
    space = blocked.space
    grids = [grid_of(group.widths, points) for group in space.groups]
    known: dict[tuple[str, tuple[tuple[int, ...], ...]], int] = {}
    uses: list[Use] = []
    blocks: list[Block] = []
    layers: list[Layer] = []
    demands: dict[tuple[int, int], Mapping[int, int]] = {}
    for block in blocked.blocks:
        steps = [_steps(axis, grids, space) for axis in block.axes]
        axes = tuple(tuple(width for width, _ in step) for step in steps)
        key = (f"{block.computes} {[_at_full(axis, space) for axis in block.axes]}", axes)
        if key not in known:
            known[key] = number = len(layers)
            blocks.append(block)
            for position, chosen in enumerate(itertools.product(*steps)):
                demands[number, position] = {g: width for _, widths in chosen for g, width in widths.items()}
            layers.append(Layer(block.computes, axes, (None,) * len(combinations_of(axes))))
        uses.append(Use(block.place, known[key], block.axes))
    table = LatencyTable(
        conditions=conditions,
        groups=tuple((group.name, group.width, group.unit) for group in space.groups),
        network=network_fingerprint(space),
        layers=tuple(layers),
        uses=tuple(uses),
        networks=tuple(Built(structure, None) for structure in networks_to_time(space)),
    )
    return table, Plan(tuple(blocks), demands)


def _steps(axis: Width, grids: Sequence[tuple[int, ...]], space: Space) -> list[tuple[int, dict[int, int]]]:
    """The widths that an axis is measured at, ascending, and the widths of groups that make each."""
    steps = []
    for widths in levels([grids[g] for g, _ in axis.terms]):
        chosen = {g: width for (g, _), width in zip(axis.terms, widths, strict=True)}
        steps.append((sum(chosen[g] // space.groups[g].unit * n for g, n in axis.terms), chosen))
    return steps


def _at_full(axis: Width, space: Space) -> int:
    return sum(space.groups[g].units * n for g, n in axis.terms)


def _resumed(planned: LatencyTable, stored: LatencyTable, where: str) -> LatencyTable:
    """The stored table, if it is the planned one with more times in it.

    Raises:
        ValueError: It is of another network, conditions or grid.
    """
    empty = replace(
        stored,
        layers=tuple(replace(layer, timings=(None,) * len(layer.timings)) for layer in stored.layers),
        networks=tuple(replace(built, timing=None) for built in stored.networks),
        reference_ms=None,
        drift=None,
        correction=1.0,
    )
    for name in ("conditions", "network", "groups", "layers", "uses", "networks"):
        if getattr(empty, name) != getattr(planned, name):
            raise ValueError(
                f"{where} holds times with other {name} ({_short(getattr(empty, name))} instead of "
                f"{_short(getattr(planned, name))}). Name another file, or remove this one."
            )
    return stored


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 300 else f"{text[:300]}..."


def _measured(
    table: LatencyTable, plan: Plan, blocked: BlockedNetwork, network: Network, runner: Backend
) -> Iterator[LatencyTable]:
    """The table with ever more times in it."""
    reference = Reference.at_present() if table.reference_ms is None else Reference(table.reference_ms)
    table = replace(table, reference_ms=reference.baseline_ms)
    waiting = [key for key in plan.demands if table.layers[key[0]].timings[key[1]] is None]
    for structure, met in packed([plan.demands[key] for key in waiting], blocked.space):
        keys = [waiting[position] for position in met]
        calls = [runner.prepare(*blocked.build(plan.blocks[layer], structure)) for layer, _ in keys]
        times = dict(zip(keys, time_calls(calls, reference), strict=True))
        table = replace(_with_times(table, times), drift=reference.drift).rounded()
        yield table
    structures = [built.structure for built in table.networks if built.timing is None]
    for start in range(0, len(structures), _NETWORKS_AT_ONCE):
        some = structures[start : start + _NETWORKS_AT_ONCE]
        timed = dict(zip(some, time_networks(network, some, table.conditions, runner, reference), strict=True))
        built = tuple(replace(b, timing=timed.get(b.structure, b.timing)) for b in table.networks)
        table = replace(table, networks=built, drift=reference.drift)
        last = start + _NETWORKS_AT_ONCE >= len(structures)
        yield (table.rescaled(reference.drift[1]) if last else table).rounded()


def time_networks(
    network: Network, structures: Sequence[Structure], conditions: Conditions, runner: Backend, reference: Reference
) -> list[Timing]:
    """Build networks and time them against each other."""
    calls = [runner.prepare(*build_network(network, structure, conditions.batch_size)) for structure in structures]
    return time_calls(calls, reference, visits=_NETWORK_VISITS)


def build_network(network: Network, structure: Structure, batch_size: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A whole network in eval mode, with whichever channels, and a batch for it."""
    ranking = NestedRanking.by_importance([np.zeros(len(units)) for units in network.units])
    return positional(slim(network, structure, ranking).eval(), example_batch(network), batch_size)


def _with_times(table: LatencyTable, times: Mapping[tuple[int, int], Timing]) -> LatencyTable:
    layers = list(table.layers)
    for number in {layer for layer, _ in times}:
        timings = list(layers[number].timings)
        for (layer, position), timing in times.items():
            if layer == number:
                timings[position] = timing
        layers[number] = replace(layers[number], timings=tuple(timings))
    return replace(table, layers=tuple(layers))
