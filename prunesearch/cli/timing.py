"""The command `latency`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prunesearch.cli import completion
from prunesearch.cli.arguments import width_rules
from prunesearch.cli.checks import check_folders, check_network, check_writable
from prunesearch.cli.console import print_json, say
from prunesearch.cli.networks import traced
from prunesearch.cli.options import (
    DEFAULT_INPUT,
    LATENCY,
    OUTPUT,
    ClassesOption,
    ConfigOption,
    IgnoreOption,
    InputOption,
    JsonOption,
    MinChannelsOption,
    ModelOption,
    RoundToOption,
    WeightsOption,
    option,
    writes,
)
from prunesearch.cli.running import first_interrupt_waits, interruptible, shown
from prunesearch.registry import check_name
from prunesearch.source_names import parse_shape

if TYPE_CHECKING:
    from prunesearch.latency_table import LatencyTable
    from prunesearch.models.network import Network


def latency(
    model: ModelOption,
    out: Annotated[Path, writes("The table's file; what it has already is not measured again.")],
    input_shape: InputOption = DEFAULT_INPUT,
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
    backend: Annotated[
        str,
        option(
            "--backend",
            help="eager, inductor, onnxruntime or onnxruntime:PROVIDER.",
            panel=LATENCY,
            metavar="NAME",
            autocompletion=completion.one_of(completion.BACKENDS),
        ),
    ] = "eager",
    device: Annotated[
        str,
        option(
            "--device",
            help="Where torch runs: cpu or cuda.",
            panel=LATENCY,
            metavar="NAME",
            autocompletion=completion.one_of(completion.DEVICES),
        ),
    ] = "cpu",
    threads: Annotated[int, option("--threads", help="That the backend may use.", panel=LATENCY, metavar="N")] = 1,
    points: Annotated[
        int | None,
        option(
            "--points",
            help="Widths per axis at which layers are timed.",
            panel=LATENCY,
            metavar="N",
            show_default="the backend's",
        ),
    ] = None,
    elsewhere: Annotated[
        str | None,
        option(
            "--elsewhere",
            help="Name of another device: nothing is timed; the file says what to time, to be filled in.",
            panel=LATENCY,
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        option(
            "--onnx",
            help="With --elsewhere: a folder for one ONNX file per timing.",
            panel=OUTPUT,
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Time every distinct layer of a network over a grid of widths, for budgets in milliseconds. Takes minutes.

    Interrupted, run the same command again to go on. The batch size is the first number of --input.

    Example: `prunesearch latency --model torchvision:resnet50 --input 1x3x224x224 --round-to 8 --out cpu.json`
    """
    rules = width_rules(round_to, min_channels, ignore)
    check_network(model, weights=weights)
    batch_size = parse_shape(input_shape)[0]
    check_name(completion.BACKENDS, backend.partition(":")[0], "backend")
    check_writable(out)
    check_folders(onnx=onnx)
    if onnx is not None and elsewhere is None:
        raise ValueError("--onnx writes what is to be timed on another device; name that with --elsewhere.")
    if elsewhere is not None and out.exists():
        raise ValueError(f"{out} exists; it may hold times already. Name another file.")
    from prunesearch.latency_table import LatencyTable
    from prunesearch.sources import check_device

    check_device(device)
    network = traced(model, input_shape, weights, num_classes, rules)
    if elsewhere is not None:
        _plan(network, elsewhere, batch_size, points, out, onnx, as_json=as_json)
        return
    with interruptible(), first_interrupt_waits() as stop_if_asked, shown("timed", "timings") as bar:

        def on_progress(done: int, wanted: int) -> None:
            bar.update(done, wanted)
            stop_if_asked()

        table = LatencyTable.measure(
            network,
            backend=backend,
            device=device,
            batch_size=batch_size,
            threads=threads,
            file=out,
            points=points,
            on_progress=on_progress,
        )
    facts = _facts(table, network, out)
    if as_json:
        print_json(facts)
    else:
        say(_summary(facts))


def _plan(
    network: Network, device: str, batch_size: int, points: int | None, out: Path, onnx: Path | None, *, as_json: bool
) -> None:
    from prunesearch.evaluators.latency.elsewhere import plan

    table = plan(network, device, batch_size=batch_size, points=points or 6, onnx=onnx)
    table.save(out)
    if as_json:
        print_json({"out": str(out), "missing": table.missing, "onnx": None if onnx is None else str(onnx)})
    else:
        say(f"Wrote {out}: {table.missing} times to fill in{'' if onnx is None else f', one per file in {onnx}'}.")


def _facts(table: LatencyTable, network: Network, out: Path) -> dict[str, Any]:
    from prunesearch.latency_model import LatencyModel

    model = LatencyModel(table, network.space)
    narrowest, full = model.predict([network.space.minimum, network.space.full]).tolist()
    return {
        "out": str(out),
        "timings": sum(len(layer.timings) for layer in table.layers),
        "layers": len(table.layers),
        "networks": len(table.networks),
        "backend": table.conditions.backend,
        "processor": table.conditions.processor,
        "threads": table.conditions.threads,
        "batch_size": table.conditions.batch_size,
        "narrowest_ms": narrowest,
        "unpruned_ms": full,
        "relative_error": model.relative_error,
        "slowest": None if table.drift is None else 1 / table.drift[2],
        "fastest": None if table.drift is None else 1 / table.drift[0],
    }


def _summary(facts: dict[str, Any]) -> str:
    lines = [
        f"Wrote {facts['out']}: {facts['timings']} timings of {facts['layers']} distinct layers; {facts['backend']} on "
        f"{facts['processor']}, threads {facts['threads']}, batch size {facts['batch_size']}.",
        f"From {facts['narrowest_ms']:.3g} ms (narrowest structure) to {facts['unpruned_ms']:.3g} ms (unpruned) per "
        f"forward; expect errors of {facts['relative_error']:.1%} (one standard deviation, from {facts['networks']} "
        "whole networks).",
    ]
    if facts["slowest"] is not None:
        lines.append(
            f"The machine's speed varied between {facts['slowest']:.2f} and {facts['fastest']:.2f} of its median "
            "meanwhile."
        )
    return "\n".join(lines)
