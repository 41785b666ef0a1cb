"""The command `search`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from prunesearch.cli.console import (
    BestSoFar,
    IgnoreOption,
    JsonOption,
    MinChannelsOption,
    ModelOption,
    RoundToOption,
    StudyOption,
    WeightsOption,
    first_interrupt_waits,
    interruptible,
    listeners,
    print_json,
    print_table,
    progress,
    searcher_options,
    stderr,
    stdout,
    width_rules,
)

if TYPE_CHECKING:
    from prunesearch.study.events import Event


def search(
    model: ModelOption,
    data: Annotated[str, typer.Option(help="digits, or path/to/file.py:function returning Data.", show_default=False)],
    budget: Annotated[str, typer.Option(help="Such as macs=50% or latency_ms=4,params=1M.", show_default=False)],
    latency_table: Annotated[
        Path | None, typer.Option(help="What latency_ms is predicted from; the command latency makes it.")
    ] = None,
    weights: WeightsOption = None,
    searcher: Annotated[str, typer.Option(help="Which one; see docs/searchers.md.")] = "surrogate",
    option: Annotated[list[str] | None, typer.Option(help="Of the searcher, such as population=20.")] = None,
    n_trials: Annotated[int, typer.Option(help="Structures to score in all, earlier runs included.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    study: StudyOption = "sqlite:///search.db",
    study_name: Annotated[
        str | None, typer.Option(help="Which study of the database.", show_default="the one of this question")
    ] = None,
    criterion: Annotated[str, typer.Option(help="Which channels stay; see docs/criteria.md.")] = "l1",
    weight_source: Annotated[
        str, typer.Option(help="Weights of structures: inherited, compensated, reconstructed, generated:FILE.")
    ] = "inherited",
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps what is gathered of layers.")] = None,
    evaluator: Annotated[str, typer.Option(help="How: accuracy, adaptive_bn or precise_bn.")] = "accuracy",
    metric: Annotated[str, typer.Option(help="What is scored: loss, accuracy or agreement.")] = "loss",
    images: Annotated[int | None, typer.Option(help="How many of the calibration images score structures.")] = None,
    screen: Annotated[float, typer.Option(help="Share of proposals that survive a cheap score.")] = 1.0,
    workers: Annotated[int, typer.Option(help="How many processes score; the result is the same.")] = 1,
    executor: Annotated[str, typer.Option(help="Where: inline, processes, ray, or auto.")] = "auto",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster: auto, or ray://HEAD:10001.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds that one structure may take.")] = None,
    max_retries: Annotated[int, typer.Option(help="Tries more for a structure whose worker died.")] = 2,
    as_finished: Annotated[
        bool, typer.Option("--as-finished", help="No worker waits; equal seeds no longer give equal results.")
    ] = False,
    timeout: Annotated[float | None, typer.Option(help="Stop in order after so many seconds.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many trials without a better one.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for curves that TensorBoard shows.")] = None,
    round_to: RoundToOption = None,
    min_channels: MinChannelsOption = None,
    ignore: IgnoreOption = None,
    save: Annotated[Path | None, typer.Option(help="Write the best network here, as safetensors.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Search the best structure under a budget. Run the same command again to continue.

    Example: `prunesearch search --model zoo:resnet20 --weights w.pt --data digits --budget macs=50%`
    """
    from prunesearch import api
    from prunesearch.budget import Budget
    from prunesearch.latency_table import LatencyTable
    from prunesearch.models.saving import save as save_network
    from prunesearch.models.trace import trace
    from prunesearch.sources import load_data, load_model_for
    from prunesearch.study.database import show as public
    from prunesearch.study.workers import Workers

    crew = Workers(workers, executor, time_limit, max_retries, address)
    limits = Budget.parse(budget, None if latency_table is None else LatencyTable.load(latency_table))
    source = load_data(data)
    examples, labels = source.calibration_set()
    module = load_model_for(model, weights, examples, labels)
    network = trace(module, examples[:2], **width_rules(round_to, min_channels, ignore))
    with interruptible(), first_interrupt_waits() as stop_if_asked, progress() as bar:
        show = BestSoFar(bar)

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
            options=searcher_options(option),
            criterion=criterion,
            weight_source=weight_source,
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
        stderr.print(f"note: {note}", markup=False, highlight=False)
    if save is not None:
        save_network(result.best.build(), save)
    if as_json:
        print_json(
            {
                "study": public(study),
                "name": result.name,
                "trials": len(result.trials),
                "best": asdict(result.best.trial),
            }
        )
        return
    stdout.print(str(result), highlight=False)
    table = Table("group", "width", "kept")
    for group, width in zip(network.space.groups, result.best.structure, strict=True):
        table.add_row(group.name, str(group.width), str(width))
    print_table(table)
