"""The command `latency`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prunesearch.cli import completion
from prunesearch.cli.checks import check_writable
from prunesearch.cli.console import print_json, say
from prunesearch.cli.flags import Group
from prunesearch.cli.networks import traced
from prunesearch.cli.running import first_interrupt_waits, interruptible, shown
from prunesearch.cli.values import (
    LATENCY,
    OUTPUT,
    ModelOptions,
    PrintingOptions,
    ShapeOptions,
    WidthOptions,
)
from prunesearch.registry import check_name
from prunesearch.source_names import parse_shape

if TYPE_CHECKING:
    from prunesearch.latency_table import LatencyTable
    from prunesearch.models.network import Network

_POINTS = 6


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How layers are timed (`prunesearch.LatencyTable.measure`), or are to be on another device.

    Attributes:
        backend: eager, inductor, onnxruntime or onnxruntime:PROVIDER.
        device: Where torch runs: cpu or cuda.
        threads: Threads that the backend may use.
        points: Widths per axis at which layers are timed.
        remote: Name of another device: nothing is timed; the file says what to time, to be filled in.
    """

    backend: str = "eager"
    device: str = "cpu"
    threads: int = 1
    points: int | None = None
    remote: str | None = None

    def __post_init__(self) -> None:
        check_name(completion.BACKENDS, self.backend.partition(":")[0], "backend")


@dataclass(frozen=True, kw_only=True)
class TableOutput:
    """What is output.

    Attributes:
        out: The table's file; what it has already is not measured again.
        onnx: With --remote: a folder for one ONNX file per timing.
    """

    out: Path
    onnx: Path | None = None

    def __post_init__(self) -> None:
        check_writable(self.out)


def latency(
    model: ModelOptions,
    shape: ShapeOptions,
    widths: WidthOptions,
    timing: Annotated[Timing, Group(LATENCY)],
    output: Annotated[TableOutput, Group(OUTPUT)],
    printing: PrintingOptions,
) -> None:
    """Time every distinct layer of a network over a grid of widths, for budgets in milliseconds. Takes minutes.

    Interrupted, run the same command again to go on. The batch size is the first number of --input.

    Example: `prunesearch latency --model torchvision:resnet50 --input 1x3x224x224 --round-to 8 --out cpu.json`
    """
    rules, batch_size = widths.rules, parse_shape(shape.input)[0]
    if output.onnx is not None and timing.remote is None:
        raise ValueError("--onnx writes what is to be timed on another device; name that with --remote.")
    if timing.remote is not None and output.out.exists():
        raise ValueError(f"{output.out} exists; it may hold times already. Name another file.")
    from prunesearch.latency_table import LatencyTable
    from prunesearch.models.devices import devices_here

    devices_here().chosen(timing.device)  # refuses what is not there
    network = traced(model, shape, rules)
    if timing.remote is not None:
        _plan(network, timing.remote, batch_size, timing.points or _POINTS, output, as_json=printing.json)
        return
    with interruptible(), first_interrupt_waits() as stop_if_asked, shown("timed", "timings") as bar:

        def on_progress(done: int, wanted: int) -> None:
            bar.update(done, wanted)
            stop_if_asked()

        table = LatencyTable.measure(
            network,
            backend=timing.backend,
            device=timing.device,
            batch_size=batch_size,
            threads=timing.threads,
            file=output.out,
            points=timing.points,
            on_progress=on_progress,
            progress=False,
        )
    facts = _facts(table, network, output.out)
    if printing.json:
        print_json(facts)
    else:
        say(_summary(facts))


def _plan(network: Network, device: str, batch_size: int, points: int, output: TableOutput, *, as_json: bool) -> None:
    from prunesearch.evaluators.latency.remote import plan

    out, onnx = output.out, output.onnx
    table = plan(network, device, batch_size=batch_size, points=points, onnx=onnx)
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
