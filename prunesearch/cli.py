"""The command line: `prunesearch demo | explain | search | status | report`. The only module that prints."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from prunesearch.errors import EvaluationFailed, PruneSearchError

if TYPE_CHECKING:
    from prunesearch.demo import Demo
    from prunesearch.trial import Trial

# Heavy imports (torch, plotly) wait inside the commands, so that --help answers at once.

app = typer.Typer(
    help="Search the structure of pruned convolutional networks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
_out = Console(soft_wrap=True)
_err = Console(stderr=True, soft_wrap=True)

ModelOption = Annotated[
    str, typer.Option("--model", help="zoo:NAME, torchvision:NAME, or path/to/file.py:function.", show_default=False)
]
StudyOption = Annotated[str, typer.Option("--study", help="Database, such as sqlite:///search.db.", show_default=False)]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="A safetensors file or torch state dict.", show_default=False)
]
RoundToOption = Annotated[int, typer.Option(help="Kept widths are multiples of this.")]
MinChannelsOption = Annotated[
    str, typer.Option(help="Narrowest width of a group: a count (4) or a fraction of its width (0.1).")
]
IgnoreOption = Annotated[
    list[str] | None, typer.Option("--ignore", help="Module name or glob that keeps its channels; may be repeated.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the study, the report and the results.")] = Path("demo"),
    n_trials: Annotated[int, typer.Option(help="Structures each searcher may score.")] = 128,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
) -> None:
    """Run the main job on real data: train, trace, search, prune, finetune, report. About a minute on two cores.

    Example: `prunesearch demo --out demo`
    """
    from prunesearch.demo import run_demo
    from prunesearch.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    with _interruptible():
        found = run_demo(out, n_trials=n_trials, seed=seed, say=_out.print)
    _replace(out / "demo.json", json.dumps(found.as_dict(), indent=1) + "\n")
    page = write_report(found.study, out / "report.html")
    _print_table(_demo_table(found))
    took = "Resumed from an earlier run" if found.facts["seconds"] is None else f"{found.facts['seconds']} s in all"
    _out.print(f"{took}. Report: {page}. Study: {found.study}.")


@app.command()
def explain(
    model: ModelOption,
    input_shape: Annotated[str, typer.Option("--input", help="Shape of a batch.")] = "1x3x224x224",
    weights: WeightsOption = None,
    round_to: RoundToOption = 1,
    min_channels: MinChannelsOption = "0.1",
    ignore: IgnoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what can be pruned, what cannot and why, and what it would save.

    Example: `prunesearch explain --model torchvision:resnet18 --input 1x3x224x224 --round-to 8`
    """
    from prunesearch.models.trace import trace
    from prunesearch.sources import example_inputs, load_model, parse_shape

    shape = parse_shape(input_shape)
    module = load_model(model, weights, num_classes=None, input_shape=shape)
    network = trace(
        module,
        example_inputs(shape),
        round_to=round_to,
        min_channels=_channels(min_channels),
        ignored_layers=ignore or (),
    )
    explanation = network.explain()
    if as_json:
        _print_json(explanation.as_dict())
    else:
        _out.print(str(explanation), markup=False, highlight=False)


@app.command()
def search(
    model: ModelOption,
    data: Annotated[str, typer.Option(help="digits, or path/to/file.py:function returning Data.", show_default=False)],
    budget: Annotated[str, typer.Option(help="Such as macs=50% or macs=20M,params=1M.", show_default=False)],
    weights: WeightsOption = None,
    searcher: Annotated[str, typer.Option(help="uniform, random or evolution.")] = "evolution",
    n_trials: Annotated[int, typer.Option(help="Structures to score in all, earlier runs included.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    study: StudyOption = "sqlite:///search.db",
    study_name: Annotated[str, typer.Option(help="Which study of the database.")] = "search",
    criterion: Annotated[str, typer.Option(help="Which channels stay: l1 or random.")] = "l1",
    metric: Annotated[str, typer.Option(help="What is scored: loss, accuracy or agreement.")] = "loss",
    round_to: RoundToOption = 1,
    min_channels: MinChannelsOption = "0.1",
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
    images, labels = source.calibration_set()
    module = load_model(model, weights, num_classes=int(labels.max()) + 1, input_shape=tuple(images.shape))
    network = trace(
        module, images[:2], round_to=round_to, min_channels=_channels(min_channels), ignored_layers=ignore or ()
    )
    with _interruptible(), _first_interrupt_waits() as stop_if_asked, _progress() as progress:
        show = _BestSoFar(progress, n_trials)

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
            criterion=criterion,
            metric=metric,  # type: ignore[arg-type]  # the evaluator checks it
            study=study,
            study_name=study_name,
            on_trial=on_trial,
        )
    if save is not None:
        save_network(result.best.build(), save)
    if as_json:
        _print_json(
            {"study": study, "name": study_name, "trials": len(result.trials), "best": asdict(result.best.trial)}
        )
        return
    _out.print(str(result), highlight=False)
    table = Table("group", "width", "kept")
    for group, width in zip(network.space.groups, result.best.structure, strict=True):
        table.add_row(group.name, str(group.width), str(width))
    _print_table(table)


@app.command()
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
        failed = sum(trial.score is None for trial in trials)
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
        _print_json(lines)
    else:
        _print_table(table)


@app.command()
def report(
    study: StudyOption,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page about every study of a database.

    Example: `prunesearch report --study sqlite:///search.db --out report.html`
    """
    from prunesearch.report import write_report

    _out.print(f"Wrote {write_report(study, out)}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what the caller did wrong becomes a sentence on stderr and exit status 2."""
    try:
        app(args=list(arguments) if arguments is not None else None, standalone_mode=True)
    except EvaluationFailed as error:
        _fail(str(error), status=1)
    except (PruneSearchError, ValueError, TypeError, OSError) as error:
        if os.environ.get("PRUNESEARCH_DEBUG"):
            raise
        _fail(str(error), status=2)


@contextmanager
def _interruptible() -> Iterator[None]:
    """An interrupt ends with a sentence: what a study has recorded is already on disk."""
    try:
        yield
    except KeyboardInterrupt:
        _fail("Interrupted. Everything scored is kept; run the same command again to continue.", status=130)


@contextmanager
def _first_interrupt_waits() -> Iterator[Callable[[], None]]:
    """Give a function that raises KeyboardInterrupt if one was asked for since; the second interrupt does not wait.

    An exception that a signal throws into arbitrary code can get lost there (in a destructor, in a callback from C).
    """
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop_if_asked
    finally:
        signal.signal(signal.SIGINT, before)


def _fail(sentence: str, *, status: int) -> NoReturn:
    _err.print(f"error: {sentence}", markup=False, highlight=False, style="red")
    sys.exit(status)


def _channels(text: str) -> int | float:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise ValueError(f"Expected --min-channels as a count (4) or a fraction (0.1), got {text!r}.") from None


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")  # rich would add colours where they are forced


def _print_table(table: Table) -> None:
    """A table is never squeezed to fit: a narrow terminal wraps its lines, a pipe gets them whole."""
    Console(width=max(_out.width, 110), soft_wrap=True).print(table)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=_err
    )


class _BestSoFar:
    """Moves a progress bar on with every new trial, and shows the best score and the rate."""

    def __init__(self, progress: Progress, n_trials: int) -> None:
        self._progress = progress
        self._task = progress.add_task("scoring", total=n_trials)
        self._start = time.monotonic()
        self._fresh = 0
        self._best: float | None = None

    def __call__(self, trial: Trial) -> None:
        self._fresh += 1
        if trial.score is not None and (self._best is None or trial.score > self._best):
            self._best = trial.score
        rate = self._fresh / (time.monotonic() - self._start)
        best = "none yet" if self._best is None else f"{self._best:.4f}"
        self._progress.update(self._task, completed=trial.number + 1, description=f"best {best}, {rate:.1f}/s")


def _demo_table(found: Demo) -> Table:
    full = found.rows[0]
    table = Table(title=f"{found.facts['model']}, {found.facts['budget']}, test accuracy")
    for heading in ("searcher", "evaluations", "MACs", "parameters", "before", "finetuned", "search s", "ms/image"):
        table.add_column(heading, justify="left" if heading == "searcher" else "right", no_wrap=True)
    for row in found.rows:
        table.add_row(
            row.searcher,
            str(row.evaluations),
            f"{row.macs:,} ({row.macs / full.macs:.1%})",
            f"{row.params:,} ({row.params / full.params:.1%})",
            f"{row.accuracy_before:.2%}",
            "" if row.accuracy_after is None else f"{row.accuracy_after:.2%}",
            f"{row.search_seconds:.1f}",
            f"{row.ms_per_image:.3f}",
        )
    return table
