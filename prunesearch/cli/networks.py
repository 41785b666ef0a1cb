"""Commands about one network: `explain`, `verify`, `export`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prunesearch.cli.checks import check_writable
from prunesearch.cli.console import fail, print_json, say
from prunesearch.cli.flags import Group
from prunesearch.cli.records import export_study
from prunesearch.cli.values import (
    DEFAULT_INPUT,
    NETWORK,
    OUTPUT,
    SEARCH,
    STUDY,
    FoundInOptions,
    Model,
    ModelOptions,
    OptionalModel,
    OptionalStudy,
    PrintingOptions,
    PrunedOptions,
    SeedOptions,
    Shape,
    ShapeOptions,
    TableOptions,
    WidthOptions,
)

if TYPE_CHECKING:
    from prunesearch.models.network import Network


@dataclass(frozen=True, kw_only=True)
class Structures:
    """How much is proved.

    Attributes:
        n: Random structures to build.
    """

    n: int = 10


@dataclass(frozen=True, kw_only=True)
class OptionalPruned(OptionalModel):
    """A network, if one is named, or what it was pruned to.

    Attributes:
        pruned: What `search --out` or prunesearch.save wrote for this model.
        input: Shape of a batch.
        num_classes: Classes of a zoo, torchvision or timm network.
    """

    pruned: Path | None = None
    input: str | None = None
    num_classes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExportOutput:
    """Where something is exported to.

    Attributes:
        out: The network's file: NAME.onnx, or NAME.pt2 for torch.export.
        optuna: Optuna's database for the study: sqlite:///optuna.db.
        csv: The study's trials: NAME.csv.
        parquet: The study's trials: NAME.parquet.
    """

    out: Path | None = None
    optuna: str | None = None
    csv: Path | None = None
    parquet: Path | None = None

    @property
    def tables(self) -> list[Path]:
        """Files for trials.

        Raises:
            ValueError: One has another ending than its option says.
        """
        named = {name: path for name, path in (("csv", self.csv), ("parquet", self.parquet)) if path is not None}
        for name, path in named.items():
            if path.suffix != f".{name}":
                raise ValueError(f"Expected --{name} as NAME.{name}, got {str(path)!r}.")
        return list(named.values())


def explain(model: ModelOptions, shape: ShapeOptions, widths: WidthOptions, printing: PrintingOptions) -> None:
    """Show what can be pruned, what cannot and why, and what it would save.

    Example: `prunesearch explain --model torchvision:resnet18 --input 1x3x224x224 --round-to 8`
    """
    explanation = traced(model, shape, widths.rules).explain()
    if printing.json:
        print_json(explanation.as_dict())
    else:
        say(str(explanation))


def verify(
    model: PrunedOptions,
    shape: ShapeOptions,
    widths: WidthOptions,
    structures: Annotated[Structures, Group(SEARCH)],
    seed: SeedOptions,
    measured: TableOptions,
    found_in: FoundInOptions,
    printing: PrintingOptions,
) -> None:
    """Build random pruned networks; compare each with the full one without the same channels, and count its cost.

    Ends with status 1 if any differs by more than 1e-5 of the largest output, or has another cost. With --pruned, shows
    predicted and measured costs of that network: MACs, parameters, peak memory and latency. With --study they are
    recorded in the study that found it.

    Example: `prunesearch verify --model torchvision:resnet18 --input 1x3x64x64 --n 5`
    """
    rules = widths.rules
    if measured.table is not None and model.pruned is None:
        raise ValueError("--table is compared with a finished network; name it with --pruned.")
    found_in.check(model.pruned)
    network = traced(model, shape, rules)
    if model.pruned is not None:
        costs = _verify_pruned(network, model.pruned, measured.table, printing.json)
        follow_up = found_in.follow_up(network)
        if follow_up is not None:
            follow_up.record("measured", costs)
        return
    found = network.verify(structures.n, seed.seed)
    relative = found.largest_difference / found.scale if found.scale else found.largest_difference
    if printing.json:
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


def _verify_pruned(network: Network, pruned: Path, file: Path | None, as_json: bool) -> dict[str, Any]:
    """Say what it was predicted to cost and what it costs; the same as facts for a study."""
    from prunesearch.evaluators.built_costs import measure_costs
    from prunesearch.latency_table import LatencyTable
    from prunesearch.models.copying import copied
    from prunesearch.models.saving import load

    table = None if file is None else LatencyTable.load(file)
    found = measure_costs(network, load(pruned, copied(network.model)), table)
    if as_json:
        print_json(asdict(found))
    else:
        say(str(found))
    if not found.exact:
        fail("MACs or parameters are not what they should be. Please report this network.", status=1)
    costs = {row.cost: {"predicted": row.predicted, "measured": row.measured} for row in found.comparisons}
    return {"structure": list(found.structure), "file": pruned.name, "costs": costs}


def export(
    network: Annotated[
        OptionalPruned, Group(NETWORK, unset={"input": "as the file of --pruned or --weights remembers"})
    ],
    exported: Annotated[OptionalStudy, Group(STUDY)],
    output: Annotated[ExportOutput, Group(OUTPUT)],
    printing: PrintingOptions,
) -> None:
    """Write a network, or a study, for other programs. Networks take any batch size.

    Example: `prunesearch export --model zoo:resnet20 --pruned small.safetensors --out small.onnx`

    Example: `prunesearch export --study sqlite:///search.db --optuna sqlite:///optuna.db --csv trials.csv`
    """
    out, optuna, tables = output.out, output.optuna, output.tables
    if exported.study is not None:
        if out is not None:
            raise ValueError("--out is for a network; a study goes to --optuna URL, --csv FILE or --parquet FILE.")
        if optuna is not None and "://" not in optuna:
            raise ValueError(f"Expected --optuna as a URL such as sqlite:///optuna.db, got {optuna!r}.")
        export_study(exported.study, exported.study_name, optuna=optuna, tables=tables, as_json=printing.json)
        return
    if optuna is not None or tables:
        raise ValueError("--optuna, --csv and --parquet are for a study; name its database with --study.")
    if network.model is None or out is None:
        raise ValueError("Expected --model and --out to export a network, or --study to export a study.")
    _export_network(network, network.model, out)
    if printing.json:
        print_json({"out": str(out), "bytes": out.stat().st_size})
    else:
        say(f"Wrote {out}.")


def _export_network(given: OptionalPruned, model: str, out: Path) -> None:
    if out.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"Expected --out as NAME.onnx or NAME.pt2, got {str(out)!r}.")
    check_writable(out)
    inputs = _inputs_of(given.input, given.pruned, given.weights)
    from prunesearch.models.export import export_onnx, write_program
    from prunesearch.models.nested import tensors_in
    from prunesearch.models.saving import load
    from prunesearch.sources import in_the_type_of, load_model

    shape = next((tuple(each.shape) for each in tensors_in(inputs)), ())
    network = load_model(model, given.weights, num_classes=given.num_classes, input_shape=shape)
    if given.pruned is not None:
        network = load(given.pruned, network)
    if given.pruned is None or given.input is not None:
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

        return example_inputs(shape)
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


def traced(model: Model, made_for: Shape, rules: dict[str, Any]) -> Network:
    """The network that options of the command line name."""
    from prunesearch.errors import CheckpointError, TraceError
    from prunesearch.source_names import parse_shape

    shape = parse_shape(made_for.input)
    from prunesearch.models.trace import trace
    from prunesearch.sources import example_inputs, load_model

    try:
        module = load_model(model.model, model.weights, num_classes=made_for.num_classes, input_shape=shape)
        return trace(module, example_inputs(shape), **rules)
    except (TraceError, CheckpointError) as error:
        if made_for.input != DEFAULT_INPUT:
            raise
        said = f"{str(error).rstrip('.')}. Are your images 3x224x224? If not, give the shape of a batch with --input."
        raise type(error)(said) from error
