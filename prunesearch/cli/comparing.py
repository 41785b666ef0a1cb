"""The command `compare`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prunesearch.cli.checks import check_study
from prunesearch.cli.console import Table, print_json, print_table, say
from prunesearch.cli.flags import Group
from prunesearch.cli.networks import traced
from prunesearch.cli.running import say_where
from prunesearch.cli.values import (
    NETWORK,
    STUDY,
    DeviceOptions,
    Model,
    OptionalData,
    OptionalDataOptions,
    OptionalModel,
    PrintingOptions,
    Shape,
    ShapeOptions,
    TableOptions,
)

if TYPE_CHECKING:
    from prunesearch.comparison import Comparison
    from prunesearch.models.network import Network
    from prunesearch.training.data import Data


@dataclass(frozen=True, kw_only=True)
class Compared(OptionalModel):
    """Networks to compare.

    Attributes:
        pruned: A network that was pruned from --model.
    """

    pruned: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Studies:
    """Studies whose winners are compared.

    Attributes:
        study: Database: a file such as search.db, or postgresql://USER@SERVER/NAME.
        study_names: Which studies of the database.
    """

    study: str | None = None
    study_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.study_names and self.study is None:
            raise ValueError("--study-names needs --study, the database it is in.")


def compare(
    networks: Annotated[Compared, Group(NETWORK)],
    shape: ShapeOptions,
    images: OptionalDataOptions,
    predicted: TableOptions,
    studies: Annotated[Studies, Group(STUDY)],
    where: DeviceOptions,
    printing: PrintingOptions,
) -> None:
    """Put pruned networks, and the winners of studies, side by side: costs, scores, accuracy, widths.

    With --data, accuracy is that on the test set. With --table, milliseconds are predicted, and those of networks in
    files measured. --input and --num-classes are asked for only without --data.

    Example: `prunesearch compare --model zoo:resnet20 --weights w.pt --pruned a.st --pruned b.st --data digits`

    Example: `prunesearch compare --study sqlite:///search.db --study-names search`
    """
    if networks.model is None and (networks.pruned or images.data is not None or networks.weights is not None):
        raise ValueError("--pruned, --data and --weights need --model: what the networks were pruned from.")
    if networks.model is None and studies.study is None:
        raise ValueError("Expected --model with --pruned, or --study, or both; got neither.")
    if studies.study is not None:
        check_study(studies.study)
    from prunesearch.latency_table import LatencyTable

    table = None if predicted.table is None else LatencyTable.load(predicted.table)
    from prunesearch.comparison import compare as side_by_side
    from prunesearch.models.saving import load

    if images.data is not None:
        say_where(where.device)
    data = None if images.data is None else _with_test_images(images)
    network = None
    if networks.model is not None:
        network = _network(Model(model=networks.model, weights=networks.weights), data, shape)
    found = side_by_side(
        network,
        None if network is None else {str(path): load(path, network.model) for path in networks.pruned},
        study=studies.study,
        study_names=studies.study_names or None,
        data=data,
        table=table,
        device=where.device,
    )
    if printing.json:
        rows = [{**asdict(row), "cost": row.cost.amounts} for row in found.rows]
        print_json({**asdict(found), "rows": rows})
        return
    print_table(_table(found))
    for note in found.notes:
        say(f"note: {note}")


def _with_test_images(images: OptionalData) -> Data:
    data = images.load()
    if data.test is None:
        raise ValueError(
            f"{images.data} has no test images to compare networks by. Give it some, as Data(test=...), or compare "
            "costs alone: leave --data out and give --input."
        )
    return data


def _network(model: Model, data: Data | None, shape: Shape) -> Network:
    if data is None:
        return traced(model, shape, {})
    from prunesearch.models.trace import trace

    return trace(model.loaded(data), data.examples())


def _table(found: Comparison) -> Table:
    from prunesearch.tasks.metric import as_text

    table = Table("network", "MACs", "parameters")
    columns = {
        "predicted ms": [
            f"{row.cost['latency_ms']:.3f}" if "latency_ms" in row.cost.more else None for row in found.rows
        ],
        "measured ms": [None if row.latency_ms is None else f"{row.latency_ms:.3f}" for row in found.rows],
        "score": [None if row.score is None else f"{row.score:.4f}" for row in found.rows],
        found.metric: [None if row.metric is None else as_text(found.metric, row.metric) for row in found.rows],
        "widths differ by": [None if row.distance is None else f"{row.distance:.1%}" for row in found.rows],
    }
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    for heading in shown:
        table.add_column(heading)
    for place, row in enumerate(found.rows):
        costs = (f"{row.cost.macs:,} ({row.macs_share:.1%})", f"{row.cost.params:,} ({row.params_share:.1%})")
        table.add_row(row.name, *costs, *(cells[place] or "" for cells in shown.values()))
    return table
