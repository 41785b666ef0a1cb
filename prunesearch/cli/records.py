"""Commands about what is recorded: `status`, `list`, `show`, `delete`, `report`, and `export` of a study."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.live import Live

from prunesearch.cli.checks import check_writable
from prunesearch.cli.console import Table, print_json, print_table, say, stdout
from prunesearch.cli.flags import Group
from prunesearch.cli.values import (
    OUTPUT,
    STUDY,
    DatabaseOptions,
    NamedStudiesOptions,
    NamedStudyOptions,
    PrintingOptions,
    TableOptions,
)
from prunesearch.ranges import number

if TYPE_CHECKING:
    from prunesearch.study.store import Progress, Store


@dataclass(frozen=True, kw_only=True)
class Watching:
    """How long to look.

    Attributes:
        watch: Look again every so many seconds, until interrupted.
    """

    watch: float | None = None

    def __post_init__(self) -> None:
        if self.watch is not None:
            number("--watch in seconds", self.watch, "(0, 86400]")


@dataclass(frozen=True, kw_only=True)
class Trials:
    """How much to show.

    Attributes:
        trials: How many of the best trials to show.
    """

    trials: int = 10


@dataclass(frozen=True, kw_only=True)
class DeletedTrials:
    """What to delete.

    Attributes:
        study: Database: a file such as search.db, or postgresql://USER@SERVER/NAME.
        study_name: Which study of the database.
        from_trial: Only delete this trial and all later ones.
    """

    study: str
    study_name: str
    from_trial: int = 0


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Whether to ask first.

    Attributes:
        yes: Do not ask.
    """

    yes: bool = False


@dataclass(frozen=True, kw_only=True)
class ReportOutput:
    """The page that is written.

    Attributes:
        out: The page to write.
        title: Of the page.
    """

    out: Path = Path("report.html")
    title: str | None = None


def status(database: DatabaseOptions, watching: Annotated[Watching, Group(OUTPUT)], printing: PrintingOptions) -> None:
    """Show the studies of a database: how far each is, who drives it, and its best structure. Reads only.

    Example: `prunesearch status --study sqlite:///search.db --watch 1`
    """
    from prunesearch.study.store import Store

    study, watch = database.study, watching.watch
    if printing.json and watch is not None:
        raise ValueError("--json prints one answer, and --watch many; expected one of the two.")
    with closing(Store(study, create=False)) as store:
        if printing.json:
            print_json([_as_json(store, study, progress) for progress in _all_progress(store)])
        elif watch is None:
            print_table(_status_table(store, study))
        else:
            _watch(store, study, watch)


def list_studies(database: DatabaseOptions, printing: PrintingOptions) -> None:
    """List the studies of a database with what they answer. Reads only.

    Example: `prunesearch list --study sqlite:///search.db`
    """
    from prunesearch.study.store import Store

    with closing(Store(database.study, create=False)) as store:
        found = _all_progress(store)
    lines = [{"study": p.name, "created": p.created, "trials": p.trials, **_asked(p)} for p in found]
    if printing.json:
        print_json(lines)
        return
    table = Table("study", "created (UTC)", "trials", "searcher", "budget", "seed")
    for line in lines:
        table.add_row(*(str(line[key]) for key in ("study", "created", "trials", "searcher", "budget", "seed")))
    print_table(table)


def show(study: NamedStudyOptions, shown: Annotated[Trials, Group(OUTPUT)], printing: PrintingOptions) -> None:
    """Show one study: its question, its best trials, why others failed, and what to know of its result. Reads only.

    Example: `prunesearch show --study sqlite:///search.db --study-name search`
    """
    from collections import Counter

    from prunesearch.question import in_words
    from prunesearch.study.store import Store
    from prunesearch.study.tables import check_name
    from prunesearch.study.told import told
    from prunesearch.trial import ranked

    name = study.study_name
    with closing(Store(study.study, create=False)) as store:
        check_name(store, name)
        question, recorded = store.question(name) or {}, store.trials(name)
        notes, facts = (store.summary(name) or {}).get("notes", []), store.facts(name)
    top = ranked(recorded)[: shown.trials]
    failures = Counter(t.failure for t in recorded if t.failure is not None)
    if printing.json:
        best = [trial.facts() for trial in top]
        followed = [vars(fact) for fact in facts]
        print_json({"study": name, "question": question, "trials": len(recorded), "best": best,
                    "failures": dict(failures), "notes": notes, "followed": followed})  # fmt: skip
        return
    for field, value in question.items():
        say(f"{field}: {in_words(value)}")
    table = Table("trial", "score", "MACs", "parameters", "seconds", "kept")
    for trial in top:
        kept = " ".join(map(str, trial.structure))
        costs = (f"{trial.cost.macs:,}", f"{trial.cost.params:,}")
        table.add_row(str(trial.number), f"{trial.score:.4f}", *costs, f"{trial.seconds:.3f}", kept)
    print_table(table)
    for sentence, count in failures.most_common():
        say(f"{count} failed: {sentence}")
    for note in notes:
        say(f"note: {note.get('said')}")
    numbers = {trial.structure: trial.number for trial in reversed(recorded)}
    for fact in facts:
        number = numbers.get(tuple(fact.value.get("structure", ())))
        say(f"{'afterwards' if number is None else f'trial {number}'}: {told(fact)}")


def delete(
    deleted: Annotated[DeletedTrials, Group(STUDY)],
    confirmation: Annotated[Confirmation, Group(OUTPUT)],
    printing: PrintingOptions,
) -> None:
    """Delete a study, or its trials from a number on, which the next run scores again. This cannot be undone.

    Example: `prunesearch delete --study sqlite:///search.db --study-name search --from-trial 120`
    """
    from prunesearch.study.locks import driving
    from prunesearch.study.store import Store
    from prunesearch.study.tables import check_name

    study, study_name, from_trial = deleted.study, deleted.study_name, deleted.from_trial
    if printing.json and not confirmation.yes:
        raise ValueError("With --json nobody is asked whether to delete: give --yes, too.")
    with closing(Store(study, create=False)) as store:
        check_name(store, study_name)
    what = f"trial {from_trial} and all after it of study" if from_trial else "study"
    if not confirmation.yes and not typer.confirm(f"Delete {what} {study_name!r}?", err=True):
        raise typer.Abort
    with driving(study, study_name) as store:  # not under the hands of a running search
        gone = store.delete(study_name, from_trial=from_trial)
    if printing.json:
        print_json({"study": study_name, "from_trial": from_trial, "deleted": gone})
    else:
        say(f"Deleted {what} {study_name!r}: {gone} trials.")


def report(
    studies: NamedStudiesOptions,
    predicted: TableOptions,
    output: Annotated[ReportOutput, Group(OUTPUT)],
    printing: PrintingOptions,
) -> None:
    """Write one self-contained HTML page about the studies of a database, which is only read.

    Example: `prunesearch report --study sqlite:///search.db --out report.html`
    """
    from prunesearch.report import write_report

    check_writable(output.out)
    names = studies.study_names or None
    page = write_report(studies.study, output.out, names, title=output.title, table=predicted.table)
    if printing.json:
        print_json({"out": str(page)})
    else:
        say(f"Wrote {page}.")


def export_study(study: str, name: str, *, optuna: str | None, tables: list[Path], as_json: bool) -> None:
    """Write a study for other programs.

    Raises:
        ValueError: There is nothing to write.
    """
    from prunesearch.study.store import Store
    from prunesearch.study.tables import write_table

    if optuna is None and not tables:
        raise ValueError("Expected where to export the study to: --optuna URL, --csv FILE or --parquet FILE.")
    check_writable(*tables)
    with closing(Store(study, create=False)) as store:
        written = {str(path): write_table(store, name, path) for path in tables}
        if optuna is not None:
            from prunesearch.study.optuna_export import export_to_optuna

            written["Optuna"] = export_to_optuna(store, name, optuna)  # its URL may hold a password
    if as_json:
        print_json({"study": name, "trials": written})
        return
    for where, count in written.items():
        say(f"Wrote {count} trials to {where}.")


def _all_progress(store: Store) -> list[Progress]:
    """Of every study, but those that somebody deletes meanwhile."""
    found = map(store.progress, store.studies())
    return [progress for progress in found if progress is not None]


def _asked(progress: Progress) -> dict[str, Any]:
    from prunesearch.question import in_words

    asked = {field: progress.question.get(field) for field in ("searcher", "budget", "seed")}
    return {field: in_words(value) if isinstance(value, dict) else value for field, value in asked.items()}


def _driver(store: Store, url: str, name: str) -> tuple[str, bool | None] | None:
    """Who drives a study, if anybody said so, and whether that process lives."""
    from prunesearch.study.database import parse
    from prunesearch.study.locks import driver_of

    found = driver_of(store, parse(url), name)
    return None if found is None else (found.name, found.running)


def _as_json(store: Store, url: str, progress: Progress) -> dict[str, Any]:
    driver = _driver(store, url, progress.name)
    return {
        "study": progress.name,
        **_asked(progress),
        "trials": progress.trials,
        "wanted": progress.wanted,
        "failed": progress.failed,
        "driver": None if driver is None else driver[0],
        "running": None if driver is None else driver[1],
        "best": None if progress.best is None else progress.best.facts(),
    }


def _watch(store: Store, url: str, seconds: float) -> NoReturn:
    """Look again and again; an interrupt is how this ends, and nothing is lost by it."""
    try:
        with Live(_status_table(store, url), console=stdout) as live:
            while True:
                time.sleep(max(0.05, seconds))
                live.update(_status_table(store, url))
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _status_table(store: Store, url: str) -> Table:
    table = Table()
    for title in ("study", "searcher", "budget", "trials", "failed", "best score", "MACs", "parameters", "driver"):
        table.add_column(title, overflow="fold")  # a name that is cut could not be given to --study-name
    for progress in _all_progress(store):
        line = _as_json(store, url, progress)
        shown = ("-", "-", "-")
        if line["best"] is not None:
            cost = line["best"]["cost"]
            shown = (f"{line['best']['score']:.4f}", f"{cost['macs']:,}", f"{cost['params']:,}")
        trials = f"{line['trials']} of {line['wanted']}" if line["wanted"] else str(line["trials"])
        state = {True: "", False: " (ended unexpectedly)", None: " (on another host)"}[line["running"]]
        driver = "-" if line["driver"] is None else line["driver"] + state
        table.add_row(
            progress.name, str(line["searcher"]), str(line["budget"]), trials, str(line["failed"]), *shown, driver
        )
    return table
