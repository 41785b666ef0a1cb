"""The command line, the only room that prints. Heavy imports wait inside the commands, so that `--help` is fast."""

from __future__ import annotations

import os
from collections.abc import Sequence

import typer

from prunesearch.cli.console import fail
from prunesearch.cli.demonstration import demo
from prunesearch.cli.finetuning import finetune
from prunesearch.cli.networks import explain, export, verify
from prunesearch.cli.pruningnet import pruningnet
from prunesearch.cli.records import delete, list_studies, report, show, status
from prunesearch.cli.studies import search
from prunesearch.cli.timing import latency
from prunesearch.errors import EvaluationFailed, PruneSearchError, TrainingDiverged

app = typer.Typer(
    help="Search the structure of pruned convolutional networks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (demo, explain, latency, verify, pruningnet, search, finetune, status, show, delete, report, export):
    app.command()(command)
app.command("list")(list_studies)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what the caller did wrong becomes a sentence on stderr and exit status 2."""
    try:
        app(args=list(arguments) if arguments is not None else None, standalone_mode=True)
    except (EvaluationFailed, TrainingDiverged) as error:
        fail(str(error), status=1)
    except (PruneSearchError, ValueError, TypeError, OSError) as error:
        if os.environ.get("PRUNESEARCH_DEBUG"):
            raise
        fail(str(error), status=2)
