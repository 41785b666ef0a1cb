"""The command `latency`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunesearch.cli.console import (
    ClassesOption,
    IgnoreOption,
    InputOption,
    MinChannelsOption,
    ModelOption,
    RoundToOption,
    WeightsOption,
    first_interrupt_waits,
    interruptible,
    progress,
    stdout,
    width_rules,
)
from prunesearch.cli.networks import traced

if TYPE_CHECKING:
    from prunesearch.latency_table import LatencyTable
    from prunesearch.models.network import Network


def latency(
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="The table's file; what it has already is not measured again.")],
    input_shape: InputOption = "1x3x224x224",
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
    backend: Annotated[str, typer.Option(help="eager, inductor, onnxruntime or onnxruntime:PROVIDER.")] = "eager",
    device: Annotated[str, typer.Option(help="Where torch runs: cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="That the backend may use.")] = 1,
    points: Annotated[
        int | None, typer.Option(help="Widths per axis at which layers are timed.", show_default="the backend's")
    ] = None,
    elsewhere: Annotated[
        str | None,
        typer.Option(help="Name of another device: nothing is timed; the file says what to time, to be filled in."),
    ] = None,
    onnx: Annotated[Path | None, typer.Option(help="With --elsewhere: a folder for one ONNX file per timing.")] = None,
) -> None:
    """Time every distinct layer of a network over a grid of widths, for budgets in milliseconds. Takes minutes.

    Interrupted, run the same command again to go on. The batch size is the first number of --input.

    Example: `prunesearch latency --model torchvision:resnet50 --input 1x3x224x224 --round-to 8 --out cpu.json`
    """
    from prunesearch.latency_table import LatencyTable
    from prunesearch.sources import parse_shape

    batch_size = parse_shape(input_shape)[0]
    network = traced(model, input_shape, weights, num_classes, width_rules(round_to, min_channels, ignore))
    if elsewhere is not None:
        _plan(network, elsewhere, batch_size, points, out, onnx)
        return
    if onnx is not None:
        raise ValueError("--onnx writes what is to be timed on another device; name that with --elsewhere.")
    with interruptible(), first_interrupt_waits() as stop_if_asked, progress() as bar:
        task = bar.add_task("timing", total=None)

        def on_progress(done: int, wanted: int) -> None:
            bar.update(task, completed=done, total=wanted)
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
    stdout.print(_summary(table, network, out), markup=False, highlight=False)


def _plan(network: Network, device: str, batch_size: int, points: int | None, out: Path, onnx: Path | None) -> None:
    from prunesearch.evaluators.latency.elsewhere import plan

    if out.exists():
        raise ValueError(f"{out} exists; it may hold times already. Name another file.")
    table = plan(network, device, batch_size=batch_size, points=points or 6, onnx=onnx)
    table.save(out)
    stdout.print(
        f"Wrote {out}: {table.missing} times to fill in{'' if onnx is None else f', one per file in {onnx}'}.",
        highlight=False,
    )


def _summary(table: LatencyTable, network: Network, out: Path) -> str:
    from prunesearch.latency_model import LatencyModel

    model = LatencyModel(table, network.space)
    narrowest, full = model.predict([network.space.minimum, network.space.full]).tolist()
    conditions = table.conditions
    lines = [
        f"Wrote {out}: {sum(len(layer.timings) for layer in table.layers)} timings of {len(table.layers)} distinct "
        f"layers; {conditions.backend} on {conditions.processor}, threads {conditions.threads}, batch size "
        f"{conditions.batch_size}.",
        f"From {narrowest:.3g} ms (narrowest structure) to {full:.3g} ms (unpruned) per forward; expect errors of "
        f"{model.relative_error:.1%} (one standard deviation, from {len(table.networks)} whole networks).",
    ]
    if table.drift is not None:
        slow, fast = table.drift[2], table.drift[0]
        lines.append(f"The machine's speed varied between {1 / slow:.2f} and {1 / fast:.2f} of its median meanwhile.")
    return "\n".join(lines)
