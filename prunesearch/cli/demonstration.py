"""The command `demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from prunesearch.cli.console import interruptible, print_table, replace, stdout

if TYPE_CHECKING:
    from prunesearch.demo import Demo


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
    with interruptible():
        found = run_demo(out, n_trials=n_trials, seed=seed, say=stdout.print)
    replace(out / "demo.json", json.dumps(found.as_dict(), indent=1) + "\n")
    page = write_report(found.study, out / "report.html")
    print_table(_demo_table(found))
    took = "Resumed from an earlier run" if found.facts["seconds"] is None else f"{found.facts['seconds']} s in all"
    stdout.print(f"{took}. Report: {page}. Study: {found.study}.")


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
