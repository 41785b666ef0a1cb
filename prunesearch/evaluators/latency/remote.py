"""Tables for a device that is not at hand: what is to be timed goes out, the times come back in the same file."""

from __future__ import annotations

from pathlib import Path

from prunesearch.evaluators.latency.measuring import build_network, planned
from prunesearch.files import write_bytes
from prunesearch.latency_table import LatencyTable
from prunesearch.latency_times import REMOTE, Conditions, combinations_of
from prunesearch.models.blocks import BlockedNetwork
from prunesearch.models.network import Network


def plan(
    network: Network, device: str, *, batch_size: int = 1, points: int = 6, onnx: str | Path | None = None
) -> LatencyTable:
    """A table in which every time is still missing; `save` it, fill the file in, `LatencyTable.load` it.

    Args:
        network: A traced network.
        device: Its name, for the record.
        batch_size: Images per forward.
        points: Widths per axis of the grid; the number of timings grows with its square.
        onnx: A folder, made if it is not there, for what is to be timed: `layer-LAYER-WIDTHS.onnx` and
            `network-NUMBER.onnx`, numbered and named as in the table. None writes nothing.

    Raises:
        ValueError: A number is out of range.
        TraceError: The network cannot be cut into layers.
    """
    if batch_size < 1 or points < 2:
        raise ValueError(f"Expected batch_size >= 1 and points >= 2, got {batch_size} and {points}.")
    blocked = BlockedNetwork(network, batch_size)
    table, asked = planned(blocked, Conditions(REMOTE, device, device, 1, batch_size, ()), points)
    if onnx is not None:
        from prunesearch.evaluators.latency.onnx_runtime import to_onnx  # needs an extra that the table does not

        folder = Path(onnx)
        folder.mkdir(parents=True, exist_ok=True)
        for (layer, position), demand in asked.demands.items():
            structure = tuple(demand.get(g, group.widths[0]) for g, group in enumerate(network.space.groups))
            widths = "x".join(map(str, combinations_of(table.layers[layer].axes)[position])) or "fixed"
            piece = to_onnx(*blocked.build(asked.blocks[layer], structure))
            write_bytes(folder / f"layer-{layer}-{widths}.onnx", piece)
        for number, built in enumerate(table.networks):
            whole = to_onnx(*build_network(network, built.structure, batch_size))
            write_bytes(folder / f"network-{number}.onnx", whole)
    return table
