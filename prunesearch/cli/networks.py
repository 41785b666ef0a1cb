"""Commands about one network: `explain`, `verify`, `export`."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prunesearch.cli.arguments import width_rules
from prunesearch.cli.checks import check_network, check_study_name, check_writable
from prunesearch.cli.console import fail, print_json, say
from prunesearch.cli.options import (
    DEFAULT_INPUT,
    NAME_OF_STUDY,
    NETWORK,
    OUTPUT,
    SEARCH,
    ClassesOption,
    ConfigOption,
    IgnoreOption,
    InputOption,
    JsonOption,
    LatencyTableOption,
    MinChannelsOption,
    ModelOption,
    OptionalModelOption,
    OptionalStudyOption,
    PrunedOption,
    RoundToOption,
    SeedOption,
    StudyNameOption,
    WeightsOption,
    option,
    writes,
)
from prunesearch.cli.records import export_study

if TYPE_CHECKING:
    from prunesearch.models.network import Network


def explain(
    model: ModelOption,
    input_shape: InputOption = DEFAULT_INPUT,
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show what can be pruned, what cannot and why, and what it would save.

    Example: `prunesearch explain --model torchvision:resnet18 --input 1x3x224x224 --round-to 8`
    """
    rules = width_rules(round_to, min_channels, ignore)
    check_network(model, weights=weights)
    explanation = traced(model, input_shape, weights, num_classes, rules).explain()
    if as_json:
        print_json(explanation.as_dict())
    else:
        say(str(explanation))


def verify(
    model: ModelOption,
    input_shape: InputOption = DEFAULT_INPUT,
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
    n: Annotated[int, option("--n", help="Random structures to build.", panel=SEARCH, metavar="N", min=1)] = 10,
    seed: SeedOption = 0,
    pruned: PrunedOption = None,
    latency_table: LatencyTableOption = None,
    study: OptionalStudyOption = None,
    study_name: StudyNameOption = "search",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Build random structures; compare each with the masked network, and its cost with what is counted.

    Ends with status 1 if any differs by more than 1e-5 of the largest output, or has another cost. With --pruned, shows
    predicted and measured costs of that network: MACs, parameters, peak memory and latency. With --study they are
    recorded in the study that found it.

    Example: `prunesearch verify --model torchvision:resnet18 --input 1x3x64x64 --n 5`
    """
    rules = width_rules(round_to, min_channels, ignore)
    if latency_table is not None and pruned is None:
        raise ValueError("--latency-table is compared with a finished network; name it with --pruned.")
    if study is not None:
        if pruned is None:
            raise ValueError("--study is where a pruned network was found; name that network with --pruned.")
        check_study_name(study, study_name)
    check_network(model, weights=weights, pruned=pruned, latency_table=latency_table)
    network = traced(model, input_shape, weights, num_classes, rules)
    if pruned is not None:
        costs = _verify_pruned(network, pruned, latency_table, as_json)
        if study is not None:
            from prunesearch.followup import FollowUp

            FollowUp(study, study_name, network).record("measured", costs)
        return
    found = network.verify(n, seed)
    relative = found.largest_difference / found.scale if found.scale else found.largest_difference
    if as_json:
        print_json(asdict(found))
    else:
        say(
            f"{found.structures} random structures: slimmed and masked networks differ by at most "
            f"{found.largest_difference:.1e} ({relative:.1e} of the largest output), in training mode "
            f"{_in_training(found.training_difference)}; costs are {'exact' if found.costs_exact else 'WRONG'}."
        )
    if not (relative <= 1e-5 and (found.training_difference or 0.0) <= 1e-3 and found.costs_exact):
        fail("The slimmed networks are not what they should be. Please report this network.", status=1)


def _in_training(difference: float | None) -> str:
    return "not compared" if difference is None else f"by {difference:.1e} of it"


def _verify_pruned(network: Network, pruned: Path, latency_table: Path | None, as_json: bool) -> dict[str, Any]:
    """Say what it was predicted to cost and what it costs; the same as facts for a study."""
    from prunesearch.evaluators.built_costs import measure_costs
    from prunesearch.latency_table import LatencyTable
    from prunesearch.models.saving import load

    table = None if latency_table is None else LatencyTable.load(latency_table)
    found = measure_costs(network, load(pruned, copy.deepcopy(network.model)), table)
    if as_json:
        print_json(asdict(found))
    else:
        say(str(found))
    if not found.exact:
        fail("MACs or parameters are not what they should be. Please report this network.", status=1)
    costs = {row.cost: {"predicted": row.predicted, "measured": row.measured} for row in found.comparisons}
    return {"structure": list(found.structure), "file": pruned.name, "costs": costs}


def export(
    model: OptionalModelOption = None,
    weights: WeightsOption = None,
    pruned: PrunedOption = None,
    input_shape: Annotated[
        str | None,
        option(
            "--input",
            help="Shape of a batch.",
            panel=NETWORK,
            metavar="NxCxHxW",
            show_default="as the file of --pruned or --weights remembers",
        ),
    ] = None,
    num_classes: ClassesOption = None,
    out: Annotated[Path | None, writes("The network's file: NAME.onnx, or NAME.pt2 for torch.export.")] = None,
    study: OptionalStudyOption = None,
    study_name: Annotated[str, option("--study-name", **NAME_OF_STUDY)] = "search",
    optuna: Annotated[
        str | None,
        option(
            "--optuna",
            help="Optuna's database for the study: sqlite:///optuna.db.",
            panel=OUTPUT,
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        option("--csv", help="The study's trials: NAME.csv.", panel=OUTPUT, metavar="FILE", show_default=False),
    ] = None,
    parquet: Annotated[
        Path | None,
        option("--parquet", help="The same as NAME.parquet.", panel=OUTPUT, metavar="FILE", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Write a network, or a study, for other programs. Networks take any batch size.

    Example: `prunesearch export --model zoo:resnet20 --pruned small.safetensors --out small.onnx`

    Example: `prunesearch export --study sqlite:///search.db --optuna sqlite:///optuna.db --csv trials.csv`
    """
    if study is not None:
        if out is not None:
            raise ValueError("--out is for a network; a study goes to --optuna URL, --csv FILE or --parquet FILE.")
        for name, path in (("csv", csv), ("parquet", parquet)):
            if path is not None and path.suffix != f".{name}":
                raise ValueError(f"Expected --{name} as NAME.{name}, got {str(path)!r}.")
        if optuna is not None and "://" not in optuna:
            raise ValueError(f"Expected --optuna as a URL such as sqlite:///optuna.db, got {optuna!r}.")
        tables = [path for path in (csv, parquet) if path is not None]
        export_study(study, study_name, optuna=optuna, tables=tables, as_json=as_json)
        return
    if optuna is not None or csv is not None or parquet is not None:
        raise ValueError("--optuna, --csv and --parquet are for a study; name its database with --study.")
    if model is None or out is None:
        raise ValueError("Expected --model and --out to export a network, or --study to export a study.")
    _export_network(model, weights, pruned, input_shape, num_classes, out)
    if as_json:
        print_json({"out": str(out), "bytes": out.stat().st_size})
    else:
        say(f"Wrote {out}.")


def _export_network(
    model: str, weights: Path | None, pruned: Path | None, input_shape: str | None, num_classes: int | None, out: Path
) -> None:
    if out.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"Expected --out as NAME.onnx or NAME.pt2, got {str(out)!r}.")
    check_writable(out)
    check_network(model, weights=weights, pruned=pruned)
    inputs = _inputs_of(input_shape, pruned, weights)
    from prunesearch.models.export import export_onnx, write_program
    from prunesearch.models.saving import load
    from prunesearch.sources import in_the_type_of, load_model

    network = load_model(model, weights, num_classes=num_classes, input_shape=tuple(inputs[0].shape))
    if pruned is not None:
        network = load(pruned, network)
    if pruned is None or input_shape is not None:
        inputs = in_the_type_of(network, inputs)
    write = export_onnx if out.suffix == ".onnx" else write_program
    write(network, out, inputs)


def _inputs_of(input_shape: str | None, pruned: Path | None, weights: Path | None) -> Any:
    """Inputs of the shape that was given, or else as files remember them.

    Raises:
        CheckpointError: The pruned network's file is not there, or none.
        ValueError: Nothing says what they are like.
    """
    from prunesearch.source_names import parse_shape

    if input_shape is not None:
        shape = parse_shape(input_shape)
        from prunesearch.sources import example_inputs

        return (example_inputs(shape),)
    files = [path for path in (pruned, weights) if path is not None]
    remembered: Any = ()
    if files:
        from prunesearch.sources import remembered_inputs

        remembered = remembered_inputs(pruned, weights)
    if not remembered:
        named = [f"{path} does not say it" for path in files]
        raise ValueError(
            f"Expected --input, the shape of a batch of images such as 1x3x224x224{''.join(f'; {s}' for s in named)}."
        )
    return remembered


def traced(
    model: str, input_shape: str, weights: Path | None, num_classes: int | None, rules: dict[str, Any]
) -> Network:
    """The network that options of the command line name."""
    from prunesearch.errors import CheckpointError, TraceError
    from prunesearch.source_names import parse_shape

    shape = parse_shape(input_shape)
    from prunesearch.models.trace import trace
    from prunesearch.sources import example_inputs, load_model

    try:
        module = load_model(model, weights, num_classes=num_classes, input_shape=shape)
        return trace(module, example_inputs(shape), **rules)
    except (TraceError, CheckpointError) as error:
        if input_shape != DEFAULT_INPUT:
            raise
        said = f"{str(error).rstrip('.')}. Are your images 3x224x224? If not, give the shape of a batch with --input."
        raise type(error)(said) from error
