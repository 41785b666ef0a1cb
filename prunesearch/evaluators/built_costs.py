"""A finished network, searched, built, perhaps finetuned: what it was predicted to cost, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from prunesearch.evaluators.inputs import example_batch
from prunesearch.evaluators.latency.built import measure_built
from prunesearch.latency_model import LatencyModel
from prunesearch.latency_table import LatencyTable
from prunesearch.models.copying import copied
from prunesearch.models.count import count
from prunesearch.models.network import Network
from prunesearch.models.peak_memory import measured_peak_bytes, predicted_peak_bytes
from prunesearch.models.slim import named_tensors
from prunesearch.models.wrappers import unwrapped
from prunesearch.structure import Structure


@dataclass(frozen=True)
class CostCheck:
    """One cost.

    Attributes:
        cost: What, and its unit.
        predicted: From the structure alone.
        measured: On the network itself.
        low: Lower quartile of the measurement; itself where measuring again gives the same.
        high: Upper quartile.
    """

    cost: str
    predicted: float
    measured: float
    low: float
    high: float


@dataclass(frozen=True)
class BuiltCosts:
    """What `measure_costs` found.

    Attributes:
        structure: Of the network.
        comparisons: MACs and parameters, which must be equal; peak memory of a forward in bytes, of which a lower bound
            is predicted; latency in milliseconds, if there is a table.
        slowdown: How much slower the machine was than when the table was measured; None without.
    """

    structure: Structure
    comparisons: tuple[CostCheck, ...]
    slowdown: float | None

    @property
    def exact(self) -> bool:
        """Whether MACs and parameters are as predicted."""
        return all(row.predicted == row.measured for row in self.comparisons if row.cost in ("MACs", "parameters"))

    def __str__(self) -> str:
        lines = [f"{'':<22}{'predicted':>16}{'measured':>16}{'off by':>9}  quartiles"]
        for row in self.comparisons:
            figures = [f"{v:,.3f}" if "ms" in row.cost else f"{v:,.0f}" for v in (row.predicted, row.measured)]
            spread = f"{row.low:,.3f} to {row.high:,.3f}" if row.low != row.high else ""
            off = row.measured / row.predicted - 1
            lines.append(f"{row.cost:<22}{figures[0]:>16}{figures[1]:>16}{off:>+9.1%}  {spread}".rstrip())
        if any(row.measured > row.predicted for row in self.comparisons if "memory" in row.cost):
            lines.append("Predicted memory is a lower bound: a forward in Python may keep results longer.")
        if self.slowdown is not None:
            lines.append(
                f"Latency is given at the speed the machine had when the table was measured; just now it was "
                f"{self.slowdown:.2f} times as slow."
            )
        return "\n".join(lines)


def measure_costs(network: Network, model: nn.Module, table: LatencyTable | None = None) -> BuiltCosts:
    """Compare what a pruned network was predicted to cost with what it costs.

    Args:
        network: What it was pruned from.
        model: The pruned network, finetuned or not; it is not changed. Of a wrapped or compiled one, the network inside
            is taken.
        table: Predicts latency and says under which conditions it is measured.

    Raises:
        ValueError: The model is no pruned form of the network, or the table cannot be measured against here.
    """
    model = unwrapped(model)
    structure = structure_of(network, model)
    predicted, counted = network.space.cost_as_built(structure), count(model, network.inputs)
    rows = [
        CostCheck("MACs", predicted.macs, counted.macs, counted.macs, counted.macs),
        CostCheck("parameters", predicted.params, counted.params, counted.params, counted.params),
    ]
    still = copied(model).eval()
    taken = measured_peak_bytes(still, network.inputs)
    rows.append(CostCheck("peak memory, bytes", predicted_peak_bytes(still, network.inputs), taken, taken, taken))
    if table is None:
        return BuiltCosts(structure, tuple(rows), None)
    expected = float(LatencyModel(table, network.space).predict([structure])[0])
    found = measure_built(model, example_batch(network), table)
    timing = found.timing
    rows.append(CostCheck("latency, ms", expected, timing.ms, timing.low, timing.high))
    return BuiltCosts(structure, tuple(rows), found.slowdown)


def structure_of(network: Network, model: nn.Module) -> Structure:
    """The structure of a pruned network, from the sizes of its tensors.

    Its widths may be others than the space of the network has: what it was pruned from may have been traced with
    another `min_channels` or `round_to`.

    Raises:
        ValueError: It is no pruned form of this network.
    """
    tensors = named_tensors(unwrapped(model), network.cuts_of)
    groups = network.space.groups
    rows, sizes = [], []
    for cut in network.cuts:
        if cut.tensor not in tensors or cut.dim >= tensors[cut.tensor].dim():
            raise ValueError(f"The model has no tensor {cut.tensor} as the network has; it was not pruned from it.")
        member = network.group_of[cut.units]
        per_unit = np.bincount(member + 1, minlength=len(groups) + 1) / np.array([1, *(g.units for g in groups)])
        rows.append(per_unit[1:])
        sizes.append(tensors[cut.tensor].shape[cut.dim] - per_unit[0])
    units = np.linalg.lstsq(np.array(rows), np.array(sizes), rcond=None)[0].round()
    are_widths = ((units >= 1) & (units <= [group.units for group in groups])).all()
    if not are_widths or not np.array_equal(np.array(rows) @ units, np.array(sizes)):
        raise ValueError(
            "The model's tensors have sizes that no structure of the network gives; it was not pruned from it."
        )
    return tuple(int(n) * group.unit for n, group in zip(units, groups, strict=True))
