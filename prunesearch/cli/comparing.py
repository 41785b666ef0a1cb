"""The command `compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prunesearch.cli.checks import check_data, check_network, check_study, check_task
from prunesearch.cli.console import Table, print_json, print_table, say
from prunesearch.cli.options import (
    DEFAULT_INPUT,
    NETWORK,
    ClassesOption,
    ConfigOption,
    DataRootOption,
    DownloadOption,
    ImageSizeOption,
    InputOption,
    JsonOption,
    LatencyTableOption,
    OptionalDataOption,
    OptionalModelOption,
    OptionalStudyOption,
    StudyNamesOption,
    TaskOption,
    WeightsOption,
    option,
)

if TYPE_CHECKING:
    from prunesearch.comparison import Comparison
    from prunesearch.models.network import Network
    from prunesearch.training.data import Data


def compare(
    model: OptionalModelOption = None,
    weights: WeightsOption = None,
    pruned: Annotated[
        list[Path] | None,
        option(
            "--pruned",
            help="A network that was pruned from --model; repeatable.",
            panel=NETWORK,
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    input_shape: InputOption = DEFAULT_INPUT,
    num_classes: ClassesOption = None,
    data: OptionalDataOption = None,
    data_root: DataRootOption = None,
    image_size: ImageSizeOption = None,
    download: DownloadOption = False,
    task: TaskOption = None,
    latency_table: LatencyTableOption = None,
    study: OptionalStudyOption = None,
    study_name: StudyNamesOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Put pruned networks, and the winners of studies, side by side: costs, scores, accuracy, widths.

    With --data, accuracy is that on the test set. With --latency-table, milliseconds are predicted, and those of
    networks in files measured. --input and --num-classes are asked for only without --data.

    Example: `prunesearch compare --model zoo:resnet20 --weights w.pt --pruned a.st --pruned b.st --data digits`

    Example: `prunesearch compare --study sqlite:///search.db --study-name search`
    """
    if model is None and (pruned or data is not None or weights is not None):
        raise ValueError("--pruned, --data and --weights need --model: what the networks were pruned from.")
    if model is None and study is None:
        raise ValueError("Expected --model with --pruned, or --study, or both; got neither.")
    if study_name and study is None:
        raise ValueError("--study-name needs --study, the database it is in.")
    check_network(model, weights=weights, latency_table=latency_table)
    for path in pruned or ():
        check_network(None, pruned=path)
    check_data(data)
    check_task(task)
    if study is not None:
        check_study(study)
    from prunesearch.latency_table import LatencyTable

    table = None if latency_table is None else LatencyTable.load(latency_table)
    from prunesearch.comparison import compare as side_by_side
    from prunesearch.models.saving import load
    from prunesearch.sources import load_data

    source = network = None
    if data is not None:
        source = load_data(data, data_root=data_root, image_size=image_size, download=download, task=task)
        if source.test is None:
            raise ValueError(
                f"{data} has no test images to compare networks by. Give it some, as Data(test=...), or compare "
                "costs alone: leave --data out and give --input."
            )
    if model is not None:
        network = _network(model, weights, source, input_shape, num_classes)
    found = side_by_side(
        network,
        {str(path): load(path, network.model) for path in pruned or ()} if network is not None else None,
        study=study,
        study_names=study_name,
        data=source,
        table=table,
    )
    if as_json:
        rows = [{**asdict(row), "cost": row.cost.amounts} for row in found.rows]
        print_json({**asdict(found), "rows": rows})
        return
    print_table(_table(found))
    for note in found.notes:
        say(f"note: {note}")


def _network(model: str, weights: Path | None, data: Data | None, input_shape: str, num_classes: int | None) -> Network:
    from prunesearch.cli.networks import traced
    from prunesearch.models.trace import trace
    from prunesearch.sources import load_model_for

    if data is None:
        return traced(model, input_shape, weights, num_classes, {})
    return trace(load_model_for(model, weights, data), data.examples())


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
