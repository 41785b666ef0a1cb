"""The command about generated weights: `pruningnet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prunesearch.cli import completion
from prunesearch.cli.arguments import width_rules
from prunesearch.cli.checks import check_data, check_named, check_network, check_network_file, check_task
from prunesearch.cli.console import print_json, say
from prunesearch.cli.options import (
    TRAINING,
    BatchSizeOption,
    CalibrationOption,
    ConfigOption,
    DataOption,
    DataRootOption,
    DataWorkersOption,
    DownloadOption,
    EpochsOption,
    IgnoreOption,
    ImageSizeOption,
    JsonOption,
    LearningRateOption,
    MinChannelsOption,
    ModelOption,
    RoundToOption,
    SeedOption,
    TaskOption,
    WeightsOption,
    one_of,
    option,
    writes,
)
from prunesearch.cli.running import first_interrupt_waits, interruptible, shown
from prunesearch.evaluators.channels import CRITERION
from prunesearch.registry import check_name

if TYPE_CHECKING:
    from prunesearch.training.reports import StepReport


def pruningnet(
    model: ModelOption,
    data: DataOption,
    out: Annotated[Path, writes("Where the PruningNet goes.")],
    weights: WeightsOption = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
    data_root: DataRootOption = None,
    image_size: ImageSizeOption = None,
    download: DownloadOption = False,
    calibration: CalibrationOption = None,
    data_workers: DataWorkersOption = None,
    task: TaskOption = None,
    form: Annotated[
        str,
        option(
            "--form",
            help="compact, published, or supernet (the baseline).",
            panel=TRAINING,
            metavar="NAME",
            autocompletion=completion.one_of(completion.FORMS),
        ),
    ] = "compact",
    start: Annotated[
        str,
        option(
            "--start",
            help="From trained weights, or from scratch.",
            panel=TRAINING,
            metavar="NAME",
            autocompletion=completion.one_of(completion.STARTS),
        ),
    ] = "trained",
    hidden: Annotated[int, option("--hidden", help="Units of the generators.", panel=TRAINING, metavar="N")] = 32,
    rank: Annotated[int, option("--rank", help="Of the compact form.", panel=TRAINING, metavar="N")] = 8,
    criterion: Annotated[
        str | None,
        option(
            "--criterion",
            help=f"Which channels structures take: {one_of(CRITERION)}.",
            panel=TRAINING,
            metavar="NAME",
            autocompletion=completion.criteria,
            show_default="l1; from scratch the first ones",
        ),
    ] = None,
    epochs: EpochsOption = 10,
    batch_size: BatchSizeOption = 128,
    lr: LearningRateOption = 0.05,
    sampling: Annotated[
        str,
        option(
            "--sampling",
            help="Structures per step: random or sandwich.",
            panel=TRAINING,
            metavar="NAME",
            autocompletion=completion.one_of(completion.SAMPLINGS),
        ),
    ] = "random",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Train a PruningNet, which gives every structure weights of its own. Run the same command again to continue.

    Then search with it: `prunesearch search ... --searcher evolution --weight-source generated:FILE`.

    Example: `prunesearch pruningnet --model zoo:resnet20 --weights w.pt --data digits --out net.safetensors`
    """
    from prunesearch.evaluators.channels import make_criterion
    from prunesearch.training.settings import PruningNetRecipe

    recipe = PruningNetRecipe(epochs=epochs, batch_size=batch_size, lr=lr, sampling=sampling)  # type: ignore[arg-type]
    rules = width_rules(round_to, min_channels, ignore)
    check_name(completion.FORMS, form, "form")
    check_name(completion.STARTS, start, "start")
    if criterion is not None:
        check_named(CRITERION, criterion)
    check_network(model, weights=weights)
    check_data(data)
    check_task(task)
    check_network_file(out)
    from prunesearch.models.hypernet import PruningNet
    from prunesearch.models.trace import trace
    from prunesearch.sources import load_data, load_model_for
    from prunesearch.training.pruningnet import train_pruningnet

    source = load_data(
        data,
        data_root=data_root,
        image_size=image_size,
        download=download,
        calibration=calibration,
        data_workers=data_workers,
        task=task,
    )
    module = load_model_for(model, weights, source)
    network = trace(module, source.examples(), **rules)
    if criterion is None and start == "trained":
        criterion = "l1"
    ranking = None
    if criterion is not None:
        ranking = make_criterion(criterion, seed=seed).rank(network, source.examples_of(source.calibration_set()))
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
    say(f"{form} form: {net.size:,} parameters, {net.size / full:.1f} times the network's.", aside=as_json)
    with (
        interruptible("Every step is kept"),
        first_interrupt_waits() as stop_if_asked,
        shown("training", "steps") as bar,
    ):
        steps: list[int] = []

        def on_step(report: StepReport) -> None:
            steps.append(report.step)
            bar.update(report.step, report.steps, f"loss {report.loss:.4f}")
            stop_if_asked()

        train_pruningnet(net, source, recipe=recipe, seed=seed, file=out, on_step=on_step)
    if as_json:
        facts = {"out": str(out), "form": form, "parameters": net.size, "network_parameters": full}
        print_json({**facts, "was_finished": not steps})
    else:
        done = "Trained" if steps else "Nothing to do, it is trained"
        say(f"{done}: {out}. Search with --weight-source generated:{out}")
