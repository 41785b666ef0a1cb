"""The command `search`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table

from prunesearch.cli import completion
from prunesearch.cli.arguments import check_folders, check_network_file, listeners, named_options, width_rules
from prunesearch.cli.console import print_json, print_table, say
from prunesearch.cli.options import (
    NAME_OF_STUDY,
    OUTPUT,
    RUNNING,
    SCORING,
    SEARCH,
    BudgetOption,
    CalibrationOption,
    ConfigOption,
    DataOption,
    DataRootOption,
    DataWorkersOption,
    DownloadOption,
    IgnoreOption,
    ImageSizeOption,
    JsonOption,
    LatencyTableOption,
    MinChannelsOption,
    ModelOption,
    RoundToOption,
    SeedOption,
    StudyOption,
    WeightsOption,
    option,
    writes,
)
from prunesearch.cli.running import BestSoFar, first_interrupt_waits, interruptible, shown

if TYPE_CHECKING:
    from prunesearch.study.events import Event


def search(
    model: ModelOption,
    data: DataOption,
    budget: BudgetOption,
    latency_table: LatencyTableOption = None,
    weights: WeightsOption = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
    data_root: DataRootOption = None,
    image_size: ImageSizeOption = None,
    download: DownloadOption = False,
    calibration: CalibrationOption = None,
    data_workers: DataWorkersOption = None,
    searcher: Annotated[
        str,
        option(
            "--searcher",
            help="Which one; see docs/searchers.md.",
            panel=SEARCH,
            metavar="NAME",
            autocompletion=completion.searchers,
        ),
    ] = "surrogate",
    entries: Annotated[
        list[str] | None,
        option(
            "--option", help="Of the searcher, such as population=20; repeatable.", panel=SEARCH, metavar="NAME=VALUE"
        ),
    ] = None,
    n_trials: Annotated[
        int,
        option("--n-trials", help="Structures to score in all, earlier runs included.", panel=SEARCH, metavar="N"),
    ] = 200,
    study: StudyOption = "sqlite:///search.db",
    study_name: Annotated[
        str | None, option("--study-name", **NAME_OF_STUDY, show_default="the one of this question")
    ] = None,
    criterion: Annotated[
        str,
        option(
            "--criterion",
            help="Which channels stay; see docs/criteria.md.",
            panel=SCORING,
            metavar="NAME",
            autocompletion=completion.criteria,
        ),
    ] = "l1",
    weight_source: Annotated[
        str,
        option(
            "--weight-source",
            help="Weights of structures: inherited, compensated, reconstructed, generated:FILE.",
            panel=SCORING,
            metavar="NAME",
            autocompletion=completion.weight_sources,
        ),
    ] = "inherited",
    build_with: Annotated[
        str | None,
        option(
            "--build-with",
            help="Weights of the winner alone, such as reconstructed.",
            panel=SCORING,
            metavar="NAME",
            show_default="those that were scored",
            autocompletion=completion.weight_sources,
        ),
    ] = None,
    evaluator: Annotated[
        str,
        option(
            "--evaluator",
            help="How: accuracy, adaptive_bn or precise_bn.",
            panel=SCORING,
            metavar="NAME",
            autocompletion=completion.evaluators,
        ),
    ] = "accuracy",
    metric: Annotated[
        str,
        option(
            "--metric",
            help="What is scored: loss, accuracy or agreement.",
            panel=SCORING,
            metavar="NAME",
            autocompletion=completion.one_of(completion.METRICS),
        ),
    ] = "loss",
    images: Annotated[
        int | None,
        option(
            "--images",
            help="How many of the calibration images score structures.",
            panel=SCORING,
            metavar="N",
            show_default="64, or one of each class",
        ),
    ] = None,
    screen: Annotated[
        float,
        option("--screen", help="Share of proposals that survive a cheap score.", panel=SCORING, metavar="SHARE"),
    ] = 1.0,
    cache: Annotated[
        Path | None,
        option(
            "--cache",
            help="Folder that keeps what is gathered of layers.",
            panel=SCORING,
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    seed: SeedOption = 0,
    workers: Annotated[
        int, option("--workers", help="How many processes score; the result is the same.", panel=RUNNING, metavar="N")
    ] = 1,
    executor: Annotated[
        str,
        option(
            "--executor",
            help="Where: inline, processes, ray, or auto.",
            panel=RUNNING,
            metavar="NAME",
            autocompletion=completion.one_of(completion.EXECUTORS),
        ),
    ] = "auto",
    address: Annotated[
        str | None,
        option(
            "--address",
            help="Of a Ray cluster: auto, or ray://HEAD:10001.",
            panel=RUNNING,
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        option(
            "--time-limit",
            help="Seconds that one structure may take.",
            panel=RUNNING,
            metavar="SECONDS",
            show_default=False,
        ),
    ] = None,
    max_retries: Annotated[
        int,
        option("--max-retries", help="Tries more for a structure whose worker died.", panel=RUNNING, metavar="N"),
    ] = 2,
    as_finished: Annotated[
        bool,
        option("--as-finished", help="No worker waits; equal seeds no longer give equal results.", panel=RUNNING),
    ] = False,
    timeout: Annotated[
        float | None,
        option(
            "--timeout",
            help="Stop in order after so many seconds.",
            panel=RUNNING,
            metavar="SECONDS",
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        option(
            "--patience",
            help="Stop after so many trials without a better one.",
            panel=RUNNING,
            metavar="N",
            show_default=False,
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        option(
            "--tensorboard",
            help="Folder for curves that TensorBoard shows.",
            panel=OUTPUT,
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, writes("Write the best network here, as safetensors.", "--save")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Search the best structure under a budget. Run the same command again to continue.

    Training images score structures; the test set is not looked at.

    Example: `prunesearch search --model zoo:resnet20 --weights w.pt --data digits --budget macs=50% --out small.st`
    """
    from prunesearch import api
    from prunesearch.budget import Budget
    from prunesearch.latency_table import LatencyTable
    from prunesearch.models.saving import save as save_network
    from prunesearch.models.trace import trace
    from prunesearch.sources import load_data, load_model_for
    from prunesearch.study.database import show as public
    from prunesearch.study.workers import Workers

    check_network_file(out)
    check_folders(cache=cache, tensorboard=tensorboard)
    crew = Workers(workers, executor, time_limit, max_retries, address)
    limits = Budget.parse(budget, None if latency_table is None else LatencyTable.load(latency_table))
    source = load_data(
        data,
        data_root=data_root,
        image_size=image_size,
        download=download,
        calibration=calibration,
        data_workers=data_workers,
    )
    module = load_model_for(model, weights, source)
    network = trace(module, source.examples(), **width_rules(round_to, min_channels, ignore))
    full = network.space.cost(network.space.full)
    with interruptible(), first_interrupt_waits() as stop_if_asked, shown("scored") as bar:
        show = BestSoFar(bar, full.macs)

        def on_event(event: Event) -> bool:
            show(event)
            stop_if_asked()
            return False

        result = api.search(
            network,
            source,
            budget=limits,
            searcher=searcher,
            n_trials=n_trials,
            seed=seed,
            options=named_options(entries),
            criterion=criterion,
            weight_source=weight_source,
            build_with=build_with,
            cache=cache,
            evaluator=evaluator,
            images=images,
            screen=screen,
            metric=metric,  # type: ignore[arg-type]  # the evaluator checks it
            study=study,
            study_name=study_name,
            workers=crew,
            in_order=not as_finished,
            callbacks=[*listeners(timeout, patience, tensorboard), on_event],
        )
    for note in result.notes:
        say(f"note: {note}", aside=True)
    if out is not None:
        save_network(result.best.build(), out, example_inputs=source.examples())
    if as_json:
        print_json(
            {
                "study": public(study),
                "name": result.name,
                "trials": len(result.trials),
                "best": asdict(result.best.trial),
                "unpruned": asdict(full),
                "front": [asdict(winner.trial) for winner in result.front()],
                "notes": list(result.notes),
                "out": None if out is None else str(out),
            }
        )
        return
    say(str(result))
    if out is not None:
        say(f"Wrote {out}.")
    table = Table("group", "width", "kept")
    for group, width in zip(network.space.groups, result.best.structure, strict=True):
        table.add_row(group.name, str(group.width), str(width))
    print_table(table)
