"""Commands about one network: `explain`, `verify`, `export`."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunesearch.cli.console import (
    ClassesOption,
    IgnoreOption,
    InputOption,
    JsonOption,
    MinChannelsOption,
    ModelOption,
    RoundToOption,
    WeightsOption,
    fail,
    print_json,
    stdout,
    width_rules,
)
from prunesearch.cli.records import export_study

if TYPE_CHECKING:
    from prunesearch.models.network import Network


def explain(
    model: ModelOption,
    input_shape: InputOption = "1x3x224x224",
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what can be pruned, what cannot and why, and what it would save.

    Example: `prunesearch explain --model torchvision:resnet18 --input 1x3x224x224 --round-to 8`
    """
    rules = width_rules(round_to, min_channels, ignore)
    explanation = traced(model, input_shape, weights, num_classes, rules).explain()
    if as_json:
        print_json(explanation.as_dict())
    else:
        stdout.print(str(explanation), markup=False, highlight=False)


def verify(
    model: ModelOption,
    input_shape: InputOption = "1x3x224x224",
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
    n: Annotated[int, typer.Option(help="Random structures to build.")] = 10,
    seed: Annotated[int, typer.Option(help="Decides which.")] = 0,
    pruned: Annotated[
        Path | None, typer.Option(help="Instead: a network that `search --save` or prunesearch.save wrote.")
    ] = None,
    latency_table: Annotated[Path | None, typer.Option(help="With --pruned: predict and measure latency, too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Build random structures; compare each with the masked network, and its cost with what is counted.

    Ends with status 1 if any differs by more than 1e-5 of the largest output, or has another cost. With --pruned, shows
    predicted and measured costs of that network: MACs, parameters, peak memory and latency.

    Example: `prunesearch verify --model torchvision:resnet18 --input 1x3x64x64 --n 5`
    """
    rules = width_rules(round_to, min_channels, ignore)
    network = traced(model, input_shape, weights, num_classes, rules)
    if pruned is not None:
        _verify_pruned(network, pruned, latency_table, as_json)
        return
    if latency_table is not None:
        raise ValueError("--latency-table is compared with a finished network; name it with --pruned.")
    found = network.verify(n, seed)
    relative = found.largest_difference / found.scale if found.scale else found.largest_difference
    if as_json:
        print_json(asdict(found))
    else:
        stdout.print(
            f"{found.structures} random structures: slimmed and masked networks differ by at most "
            f"{found.largest_difference:.1e} ({relative:.1e} of the largest output); costs are "
            f"{'exact' if found.costs_exact else 'WRONG'}."
        )
    if not (relative <= 1e-5 and found.costs_exact):
        fail("The slimmed networks are not what they should be. Please report this network.", status=1)


def _verify_pruned(network: Network, pruned: Path, latency_table: Path | None, as_json: bool) -> None:
    from prunesearch.evaluators.finished import measure_costs
    from prunesearch.latency_table import LatencyTable
    from prunesearch.models.saving import load

    table = None if latency_table is None else LatencyTable.load(latency_table)
    found = measure_costs(network, load(pruned, copy.deepcopy(network.model)), table)
    if as_json:
        print_json(asdict(found))
    else:
        stdout.print(str(found), markup=False, highlight=False)
    if not found.exact:
        fail("MACs or parameters are not what they should be. Please report this network.", status=1)


def export(
    model: Annotated[
        str | None, typer.Option("--model", help="A network, named as for `search`.", show_default=False)
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="The network's file: NAME.onnx, or NAME.pt2 for torch.export.")
    ] = None,
    pruned: Annotated[
        Path | None, typer.Option(help="What `search --save` or prunesearch.save wrote for this model.")
    ] = None,
    input_shape: Annotated[str, typer.Option("--input", help="Shape of a batch of at least 2.")] = "2x3x224x224",
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    study: Annotated[str | None, typer.Option("--study", help="A database, instead of a network.")] = None,
    study_name: Annotated[str, typer.Option(help="Which study of the database.")] = "search",
    optuna: Annotated[str | None, typer.Option(help="Optuna's database for the study: sqlite:///optuna.db.")] = None,
    csv: Annotated[Path | None, typer.Option(help="A table of the study's trials: NAME.csv.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="The same as NAME.parquet.")] = None,
) -> None:
    """Write a network, or a study, for other programs. Networks take any batch size.

    Example: `prunesearch export --model zoo:resnet20 --pruned small.safetensors --input 2x3x32x32 --out small.onnx`

    Example: `prunesearch export --study sqlite:///search.db --optuna sqlite:///optuna.db --csv trials.csv`
    """
    if study is not None:
        tables = [path for path in (csv, parquet) if path is not None]
        export_study(study, study_name, optuna=optuna, tables=tables)
        return
    if model is None or to is None:
        raise ValueError("Expected --model and --out to export a network, or --study to export a study.")
    from prunesearch.models.export import export_onnx, write_program
    from prunesearch.models.saving import load
    from prunesearch.sources import example_inputs, load_model, parse_shape

    if to.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"Expected --out as NAME.onnx or NAME.pt2, got {str(to)!r}.")
    shape = parse_shape(input_shape)
    network = load_model(model, weights, num_classes=num_classes, input_shape=shape)
    if pruned is not None:
        network = load(pruned, network)
    write = export_onnx if to.suffix == ".onnx" else write_program
    write(network, to, example_inputs(shape))
    stdout.print(f"Wrote {to}.")


def traced(
    model: str, input_shape: str, weights: Path | None, num_classes: int | None, rules: dict[str, Any]
) -> Network:
    """The network that options of the command line name."""
    from prunesearch.models.trace import trace
    from prunesearch.sources import example_inputs, load_model, parse_shape

    shape = parse_shape(input_shape)
    module = load_model(model, weights, num_classes=num_classes, input_shape=shape)
    return trace(module, example_inputs(shape), **rules)
