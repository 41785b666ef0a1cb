"""The command line, the only room that prints. Heavy imports wait inside the commands, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from prunesearch.cli.commands import MARKUP, Commands
from prunesearch.cli.console import fail, stdout
from prunesearch.cli.usage import UsageError, told
from prunesearch.errors import EvaluationFailed, PruneSearchError, TrainingDiverged
from prunesearch.urls import redacted

_INTERRUPTED = 130

app = typer.Typer(
    help="Search the structure of pruned convolutional networks: explain, search, finetune, export.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    cls=Commands,
)


def _show_version(asked: bool) -> None:
    if asked:
        from prunesearch._version import __version__

        stdout.print(f"prunesearch {__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Search the structure of pruned convolutional networks: explain, search, finetune, export."""


def _sentence(error: Exception) -> str:
    """What an error says; those of the operating system name the file first."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Check the path, its permissions and the disk."
    return str(error)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; what the caller did wrong becomes a sentence on stderr and exit status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        ended = app(args=given or ["--help"], prog_name="prunesearch", standalone_mode=False)
        sys.stdout.flush()  # so that a closed pipe is noticed here
    except BrokenPipeError:  # whoever read it, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except typer.Abort:
        fail("Not confirmed, so nothing was done.", status=1)
    except UsageError as error:
        if error.ctx is not None:
            error.ctx.close()  # stdout, that was kept for JSON
        fail(told(error, given), status=2)
    except (EvaluationFailed, TrainingDiverged) as error:
        fail(redacted(str(error), given), status=1)
    except (PruneSearchError, ValueError, TypeError, OSError) as error:
        if os.environ.get("PRUNESEARCH_DEBUG"):
            raise
        fail(redacted(_sentence(error), given), status=2)
    if ended == _INTERRUPTED:  # what typer makes of it
        fail("Interrupted.", status=_INTERRUPTED)
    sys.exit(ended if isinstance(ended, int) else 0)
