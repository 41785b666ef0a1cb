"""The command `demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prunesearch.cli.checks import check_folders
from prunesearch.cli.console import Table, print_json, print_table, say
from prunesearch.cli.options import OUTPUT, SEARCH, ConfigOption, JsonOption, SeedOption, option
from prunesearch.cli.running import interruptible
from prunesearch.files import write_text

if TYPE_CHECKING:
    from prunesearch.demo import Demo


def demo(
    n_trials: Annotated[
        int, option("--n-trials", help="Structures each searcher may score.", panel=SEARCH, metavar="N", min=1)
    ] = 128,
    seed: SeedOption = 0,
    out: Annotated[
        Path, option("--out", help="Folder for the study, the report and the results.", panel=OUTPUT, metavar="FOLDER")
    ] = Path("demo"),
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Run the main job on real data: train, trace, search, prune, finetune, report. About a minute on two cores.

    Example: `prunesearch demo --out demo`
    """
    check_folders(out=out)
    from prunesearch.demo import run_demo
    from prunesearch.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    with interruptible():
        found = run_demo(out, n_trials=n_trials, seed=seed, say=lambda sentence: say(sentence, aside=as_json))
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
