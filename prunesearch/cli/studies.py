"""The command `search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prunesearch.cli import completion
from prunesearch.cli.arguments import ends, named_options, width_rules
from prunesearch.cli.checks import (
    budget_of,
    check_data,
    check_folders,
    check_metric,
    check_network,
    check_network_file,
    check_policy_share,
    check_scoring,
    check_study,
    check_task,
    check_weight_source,
)
from prunesearch.cli.console import Table, print_json, print_table, say
from prunesearch.cli.options import (
    DEFAULT_STUDY,
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
    ImplicitStudyOption,
    JsonOption,
    LatencyTableOption,
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
from prunesearch.cli.policies import Answer, answer, check_can_be_met
from prunesearch.cli.running import BestSoFar, first_interrupt_waits, interruptible, shown
from prunesearch.evaluators import EVALUATOR, WEIGHT_SOURCE
from prunesearch.evaluators.channels import CRITERION
from prunesearch.search import SEARCHER

if TYPE_CHECKING:
    from prunesearch.models.network import Network
    from prunesearch.result import SearchResult
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
    task: TaskOption = None,
    searcher: Annotated[
        str,
        option(
            "--searcher",
            help=f"{one_of(SEARCHER)}; see docs/searchers.md.",
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
    policy_share: Annotated[
        float | None,
        option(
            "--policy-share",
            help="Ask the policy that conditional learnt for this share of the budget; --out is its network then.",
            panel=SEARCH,
            metavar="SHARE",
            show_default=False,
        ),
    ] = None,
    n_trials: Annotated[
        int,
        option(
            "--n-trials", help="Structures to score in all, earlier runs included.", panel=SEARCH, metavar="N", min=1
        ),
    ] = 200,
    study: ImplicitStudyOption = None,
    study_name: Annotated[
        str | None, option("--study-name", **NAME_OF_STUDY, show_default="the one of this question")
    ] = None,
    criterion: Annotated[
        str,
        option(
            "--criterion",
            help=f"Which channels stay: {one_of(CRITERION)}; see docs/criteria.md.",
            panel=SCORING,
            metavar="NAME",
            autocompletion=completion.criteria,
        ),
    ] = "l1",
    weight_source: Annotated[
        str,
        option(
            "--weight-source",
            help=f"Weights of structures: {one_of(WEIGHT_SOURCE, generated='generated:FILE')}.",
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
            help=f"How: {one_of(EVALUATOR)}.",
            panel=SCORING,
            metavar="NAME",
            autocompletion=completion.evaluators,
        ),
    ] = "accuracy",
    metric: Annotated[
        str | None,
        option(
            "--metric",
            help="What is scored: loss, fidelity, agreement or the task's metric, such as accuracy.",
            panel=SCORING,
            metavar="NAME",
            autocompletion=completion.one_of(completion.METRICS),
            show_default="loss; fidelity without labels",
        ),
    ] = None,
    images: Annotated[
        int | None,
        option(
            "--images",
            help="How many of the calibration images score structures.",
            panel=SCORING,
            metavar="N",
            min=1,
            show_default="all; 512 without a race",
        ),
    ] = None,
    race: Annotated[
        bool,
        option(
            "--race/--no-race",
            help="Score on few images first, and on more what may be the best so far.",
            panel=SCORING,
        ),
    ] = True,
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
        int,
        option(
            "--workers",
            help="Processes that score, -1: one per core; the result is the same.",
            panel=RUNNING,
            metavar="N",
        ),
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
        option("--max-retries", help="Further tries for a structure whose worker died.", panel=RUNNING, metavar="N"),
    ] = 2,
    as_finished: Annotated[
        bool,
        option("--as-finished", help="No worker waits; equal seeds no longer give equal results.", panel=RUNNING),
    ] = False,
    timeout: Annotated[
        float | None,
        option(
            "--timeout",
            help="Stop after so many seconds.",
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
            min=1,
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
    from prunesearch.study.workers import Workers

    url = study or DEFAULT_STUDY
    options, rules = named_options(entries), width_rules(round_to, min_channels, ignore)
    limits = budget_of(budget, latency_table)
    check_network(model, weights=weights)
    check_data(data)
    check_task(task)
    check_metric(metric, task, data)
    check_scoring(searcher, options, criterion, evaluator)
    check_policy_share(searcher, policy_share)
    check_weight_source("--weight-source", weight_source)
    check_weight_source("--build-with", build_with)
    check_network_file(out)
    check_folders(cache=cache, tensorboard=tensorboard)
    check_study(url)
    crew = Workers(workers, executor, time_limit, max_retries, address)
    callbacks = ends(timeout, patience)
    from prunesearch import api
    from prunesearch.models.saving import save as save_network
    from prunesearch.models.trace import trace
    from prunesearch.running import Running
    from prunesearch.scoring import Scoring
    from prunesearch.sources import load_data, load_model_for
    from prunesearch.study.tensorboard import TensorBoardLogger

    scoring = Scoring(
        criterion=criterion, weights=weight_source, evaluator=evaluator, metric=metric, images=images, race=race
    )
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
    if policy_share is not None:
        check_can_be_met(limits, network.space, policy_share)
    if tensorboard is not None:
        callbacks.append(TensorBoardLogger(tensorboard))
    with interruptible(), first_interrupt_waits() as stop_if_asked, shown("scored", "trials") as bar:
        show = BestSoFar(bar, network.space.cost(network.space.full).macs)

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
            options=options,
            scoring=scoring,
            build_with=build_with,
            study=url,
            study_name=study_name,
            running=Running(
                workers=crew,
                in_order=not as_finished,
                callbacks=[*callbacks, on_event],
                cache=cache,
                open_another=study is None,
            ),
        )
    if not show.has_news:
        say(f"Nothing to do: study {result.name!r} has its {len(result.trials)} trials.", aside=True)
    for note in result.notes:
        say(f"note: {note}", aside=True)
    answered = None if policy_share is None else answer(result, limits, policy_share)
    if out is not None:
        built = result.best.build() if answered is None else result.build(answered.structure)
        save_network(built, out, example_inputs=source.examples())
        kept = result.best.structure if answered is None else answered.structure
        result.record("file", {"file": out.name, "structure": list(kept)})
    _tell(result, network, url, out, answered, as_json=as_json)


def _tell(
    result: SearchResult, network: Network, url: str, out: Path | None, answered: Answer | None, *, as_json: bool
) -> None:
    """Say what was found, to people or to a program."""
    from prunesearch.study.database import show as public

    if as_json:
        print_json(
            {
                "study": public(url),
                "name": result.name,
                "trials": len(result.trials),
                "best": result.best.trial.facts(),
                "unpruned": network.space.cost(network.space.full).amounts,
                "front": [winner.trial.facts() for winner in result.front()],
                "policy": None if answered is None else answered.as_json(),
                "notes": list(result.notes),
                "out": None if out is None else str(out),
            }
        )
        return
    say(str(result))
    say(f"Study {result.name!r} in {public(url)}.")
    if answered is not None:
        say(str(answered))
    if out is not None:
        say(f"Wrote {out}{'' if answered is None else ', the network of the policy'}.")
    kept = {"kept": result.best.structure, **({} if answered is None else {"policy": answered.structure})}
    table = Table("group", "width", *kept)
    for group, *widths in zip(network.space.groups, *kept.values(), strict=True):
        table.add_row(group.name, str(group.width), *map(str, widths))
    print_table(table)
