"""The command about generated weights: `pruningnet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunesearch.cli.console import (
    IgnoreOption,
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

if TYPE_CHECKING:
    from prunesearch.training.reports import StepReport


def pruningnet(
    model: ModelOption,
    data: Annotated[str, typer.Option(help="digits, or path/to/file.py:function returning Data.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Where the PruningNet goes.", show_default=False)],
    weights: WeightsOption = None,
    form: Annotated[str, typer.Option(help="compact, published, or supernet (the baseline).")] = "compact",
    start: Annotated[str, typer.Option(help="From trained weights, or from scratch.")] = "trained",
    hidden: Annotated[int, typer.Option(help="Units of the generators.")] = 32,
    rank: Annotated[int, typer.Option(help="Of the compact form.")] = 8,
    criterion: Annotated[
        str | None, typer.Option(help="Which channels structures take.", show_default="l1; from scratch the first ones")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 128,
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = 0.05,
    sampling: Annotated[str, typer.Option(help="Structures per step: random or sandwich.")] = "random",
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
) -> None:
    """Train a PruningNet, which gives every structure weights of its own. Run the same command again to continue.

    Then search with it: `prunesearch search ... --searcher evolution --weight-source generated:FILE`.

    Example: `prunesearch pruningnet --model zoo:resnet20 --weights w.pt --data digits --out net.safetensors`
    """
    from prunesearch.evaluators.channels import make_criterion
    from prunesearch.models.hypernet import PruningNet
    from prunesearch.models.trace import trace
    from prunesearch.sources import load_data, load_model_for
    from prunesearch.training.pruningnet import PruningNetRecipe, train_pruningnet

    recipe = PruningNetRecipe(epochs=epochs, batch_size=batch_size, lr=lr, sampling=sampling)  # type: ignore[arg-type]
    source = load_data(data)
    examples, labels = source.calibration_set()
    module = load_model_for(model, weights, examples, labels)
    network = trace(module, examples[:2], **width_rules(round_to, min_channels, ignore))
    if criterion is None and start == "trained":
        criterion = "l1"
    ranking = None if criterion is None else make_criterion(criterion, seed=seed).rank(network, examples, labels)
    net = PruningNet(
        network,
        form=form,  # type: ignore[arg-type]  # it checks that
        start=start,  # type: ignore[arg-type]
        hidden=hidden,
        rank=rank,
        ranking=ranking,
        seed=seed,
    )
    full = network.space.cost(network.space.full).params
    stdout.print(f"{form} form: {net.size:,} parameters, {net.size / full:.1f} times the network's.", highlight=False)
    with interruptible("Every step is kept"), first_interrupt_waits() as stop_if_asked, progress() as bar:
        task = bar.add_task("training", total=None)

        def on_step(report: StepReport) -> None:
            bar.update(task, total=report.steps, completed=report.step, description=f"loss {report.loss:.4f}")
            stop_if_asked()

        train_pruningnet(net, source, recipe=recipe, seed=seed, file=out, on_step=on_step)
    stdout.print(f"Trained: {out}. Search with --weight-source generated:{out}", highlight=False)
