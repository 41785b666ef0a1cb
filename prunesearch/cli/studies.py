"""Commands about studies: `search`, `status`, `report`."""

from __future__ import annotations

from contextlib import closing
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
    print_json,
    print_table,
    progress,
    searcher_options,
    stderr,
    stdout,
    width_rules,
)

if TYPE_CHECKING:
    from prunesearch.trial import Trial


def search(
    model: ModelOption,
    data: Annotated[str, typer.Option(help="digits, or path/to/file.py:function returning Data.", show_default=False)],
    budget: Annotated[str, typer.Option(help="Such as macs=50% or macs=20M,params=1M.", show_default=False)],
    weights: WeightsOption = None,
    searcher: Annotated[str, typer.Option(help="Which one; see docs/searchers.md.")] = "surrogate",
    option: Annotated[list[str] | None, typer.Option(help="Of the searcher, such as population=20.")] = None,
    n_trials: Annotated[int, typer.Option(help="Structures to score in all, earlier runs included.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    study: StudyOption = "sqlite:///search.db",
    study_name: Annotated[str, typer.Option(help="Which study of the database.")] = "search",
    criterion: Annotated[str, typer.Option(help="Which channels stay; see docs/criteria.md.")] = "l1",
    weight_source: Annotated[
        str, typer.Option(help="Weights of structures: inherited, compensated, reconstructed.")
    ] = "inherited",
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps what is gathered of layers.")] = None,
    evaluator: Annotated[str, typer.Option(help="How: accuracy, adaptive_bn or precise_bn.")] = "accuracy",
    metric: Annotated[str, typer.Option(help="What is scored: loss, accuracy or agreement.")] = "loss",
    images: Annotated[int | None, typer.Option(help="How many of the calibration images score structures.")] = None,
    screen: Annotated[float, typer.Option(help="Share of proposals that survive a cheap score.")] = 1.0,
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
    from prunesearch.models.saving import save as save_network
    from prunesearch.models.trace import trace
    from prunesearch.sources import load_data, load_model

    limits = Budget.parse(budget)
    source = load_data(data)
    examples, labels = source.calibration_set()
    module = load_model(model, weights, num_classes=int(labels.max()) + 1, input_shape=tuple(examples.shape))
    network = trace(module, examples[:2], **width_rules(round_to, min_channels, ignore))
    with interruptible(), first_interrupt_waits() as stop_if_asked, progress() as bar:
        show = BestSoFar(bar, n_trials)

        def on_trial(trial: Trial) -> None:
            show(trial)
            stop_if_asked()

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
            on_trial=on_trial,
        )
    for note in result.notes:
        stderr.print(f"note: {note}", markup=False, highlight=False)
    if save is not None:
        save_network(result.best.build(), save)
    if as_json:
        print_json(
            {"study": study, "name": study_name, "trials": len(result.trials), "best": asdict(result.best.trial)}
        )
        return
    stdout.print(str(result), highlight=False)
    table = Table("group", "width", "kept")
    for group, width in zip(network.space.groups, result.best.structure, strict=True):
        table.add_row(group.name, str(group.width), str(width))
    print_table(table)


def status(study: StudyOption, as_json: JsonOption = False) -> None:
    """Show the studies of a database: how far each is, and its best structure. Reads only.

    Example: `prunesearch status --study sqlite:///search.db`
    """
    from prunesearch.study.store import Store
    from prunesearch.trial import best

    with closing(Store(study, create=False)) as store:
        contents = [(name, store.question(name) or {}, store.trials(name)) for name in store.studies()]
    table = Table("study", "searcher", "budget", "trials", "failed", "best score", "MACs", "parameters")
    lines = []
    for name, question, trials in contents:
        winner = best(trials)
        failed = sum(trial.score is None and not trial.is_screened_out for trial in trials)
        lines.append(
            {
                "study": name,
                "searcher": question.get("searcher"),
                "budget": question.get("budget"),
                "trials": len(trials),
                "failed": failed,
                "best": None if winner is None else asdict(winner),
            }
        )
        shown = ("-", "-", "-")
        if winner is not None:
            shown = (f"{winner.score:.4f}", f"{winner.cost.macs:,}", f"{winner.cost.params:,}")
        table.add_row(
            name, str(question.get("searcher")), str(question.get("budget")), str(len(trials)), str(failed), *shown
        )
    if as_json:
        print_json(lines)
    else:
        print_table(table)


def report(
    study: StudyOption,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page about every study of a database.

    Example: `prunesearch report --study sqlite:///search.db --out report.html`
    """
    from prunesearch.report import write_report

    stdout.print(f"Wrote {write_report(study, out)}.")
