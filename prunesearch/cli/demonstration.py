"""The command `demo`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prunesearch.cli.console import Table, print_json, print_table, say
from prunesearch.cli.flags import Group
from prunesearch.cli.running import first_interrupt_waits, interruptible
from prunesearch.cli.values import OUTPUT, SEARCH, PrintingOptions, SeedOptions
from prunesearch.files import check_folder, write_text

if TYPE_CHECKING:
    from prunesearch.demo import Demo


@dataclass(frozen=True, kw_only=True)
class Trials:
    """How much of it.

    Attributes:
        n_trials: Structures each searcher may score.
    """

    n_trials: int = 128


@dataclass(frozen=True, kw_only=True)
class DemoOutput:
    """What is output.

    Attributes:
        out: Folder for the study, the report and the results.
    """

    out: Path = Path("demo")

    def __post_init__(self) -> None:
        check_folder("--out", self.out)


def demo(
    trials: Annotated[Trials, Group(SEARCH)],
    seed: SeedOptions,
    output: Annotated[DemoOutput, Group(OUTPUT, metavars={"out": "FOLDER"})],
    printing: PrintingOptions,
) -> None:
    """Run the main job on real data: train, trace, search, prune, finetune, report. About a minute on two cores.

    Example: `prunesearch demo --out demo`
    """
    from prunesearch.demo import run_demo
    from prunesearch.report import write_report

    out, as_json = output.out, printing.json
    out.mkdir(parents=True, exist_ok=True)
    with interruptible(), first_interrupt_waits() as stop_if_asked:
        found = run_demo(
            out,
            n_trials=trials.n_trials,
            seed=seed.seed,
            say=lambda sentence: say(sentence, aside=as_json),
            stop_if_asked=stop_if_asked,
        )
    write_text(out / "demo.json", json.dumps(found.as_dict(), indent=1) + "\n")
    page = write_report(found.study, out / "report.html")
    if as_json:
        print_json({**found.as_dict(), "study": found.study, "report": str(page)})
        return
    print_table(_demo_table(found))
    took = "Resumed from an earlier run" if found.facts["seconds"] is None else f"{found.facts['seconds']} s in all"
    say(f"{took}. Report: {page}. Study: {found.study}.")


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
