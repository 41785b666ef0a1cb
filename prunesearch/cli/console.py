"""What commands share: options, printing, progress, and how they end early."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from prunesearch.study.events import Callback, Event

stdout = Console(soft_wrap=True)
stderr = Console(stderr=True, soft_wrap=True)

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", help="zoo:NAME, torchvision:NAME, timm:NAME, or path/to/file.py:function.", show_default=False
    ),
]
StudyOption = Annotated[str, typer.Option("--study", help="Database, such as sqlite:///search.db.", show_default=False)]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="A safetensors file or torch state dict.", show_default=False)
]
RoundToOption = Annotated[
    list[str] | None,
    typer.Option(
        "--round-to",
        help="Kept widths are multiples of this: 8, or for some layers 'layer4.*=16'; repeatable.",
        show_default="1",
    ),
]
MinChannelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--min-channels",
        help="Narrowest width of a group: a count (4), a fraction (0.1), or for some layers 'stem=16'; repeatable.",
        show_default="0.1",
    ),
]
IgnoreOption = Annotated[
    list[str] | None, typer.Option("--ignore", help="Module name or glob that keeps its channels; may be repeated.")
]
InputOption = Annotated[str, typer.Option("--input", help="Shape of a batch.")]
ClassesOption = Annotated[
    int | None, typer.Option(help="Classes of a zoo, torchvision or timm network.", show_default="its own")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def listeners(timeout: float | None, patience: int | None, tensorboard: Path | None) -> list[Callback]:
    """The callbacks that options ask for."""
    from prunesearch.study.events import early_stopping, stop_after
    from prunesearch.study.tensorboard import TensorBoardLogger

    found: list[Callback] = []
    if timeout is not None:
        found.append(stop_after(timeout))
    if patience is not None:
        found.append(early_stopping(patience))
    if tensorboard is not None:
        found.append(TensorBoardLogger(tensorboard))
    return found


def fail(sentence: str, *, status: int) -> NoReturn:
    """Say on stderr what went wrong, and end."""
    stderr.print(f"error: {sentence}", markup=False, highlight=False, style="red")
    sys.exit(status)


def width_rules(round_to: list[str] | None, min_channels: list[str] | None, ignore: list[str] | None) -> dict[str, Any]:
    """The options about widths as arguments of `trace`.

    Raises:
        ValueError: A number is none.
    """
    return {
        "round_to": _by_name("--round-to", round_to or ["1"], whole=True),
        "min_channels": _by_name("--min-channels", min_channels or ["0.1"], whole=False),
        "ignored_layers": ignore or (),
    }


def searcher_options(entries: list[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` entries as a table; values are JSON (`200`, `[1, 0.8]`), or else text.

    Raises:
        ValueError: An entry has no name.
    """
    table: dict[str, Any] = {}
    for entry in entries or ():
        name, equals, text = entry.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"Expected --option as NAME=VALUE, such as population=20, got {entry!r}.")
        try:
            table[name] = json.loads(text)
        except ValueError:
            table[name] = text
    return table


def _by_name(option: str, entries: Sequence[str], *, whole: bool) -> dict[str, Any]:
    """`GLOB=NUMBER` entries as a table in which the entry without a glob, which is for all layers, comes last."""
    table: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda entry: "=" not in entry):
        glob, _, text = entry.rpartition("=")
        try:
            table[glob or "*"] = int(text) if text.isdigit() or whole else float(text)
        except ValueError:
            wanted = "a count (8)" if whole else "a count (4) or a fraction (0.1)"
            raise ValueError(f"Expected {option} as {wanted}, or such after 'GLOB=', got {entry!r}.") from None
    return table


def print_json(value: Any) -> None:
    """Print for programs."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")  # rich would add colours where they are forced


def print_table(table: Table) -> None:
    """A table is never squeezed to fit: a narrow terminal wraps its lines, a pipe gets them whole."""
    Console(width=max(stdout.width, 110), soft_wrap=True).print(table)


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


@contextmanager
def interruptible(kept: str = "Everything scored is kept") -> Iterator[None]:
    """An interrupt ends with a sentence: what was done is already on disk."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        word = "Terminated" if number == signal.SIGTERM else "Interrupted"
        fail(f"{word}. {kept}; run the same command again to continue.", status=128 + number)


@contextmanager
def first_interrupt_waits() -> Iterator[Callable[[], None]]:
    """Give a function that raises KeyboardInterrupt if one was asked for since; the second interrupt does not wait.

    SIGTERM, by which machines announce that they go away, counts as one. The exception holds the number of the signal.
    One that a signal throws into arbitrary code can get lost there (in a destructor, in a callback from C).
    """
    asked: list[int] = []

    def note(number: int, _: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt(number)

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt(asked[0])

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    ending = False
    try:
        yield stop_if_asked
    except KeyboardInterrupt:
        ending = True
        raise
    finally:
        for number, handler in before.items():  # what ends in order is not to be cut short by one signal more
            signal.signal(number, signal.SIG_IGN if ending else handler)


def progress() -> Progress:
    """A bar on stderr, with the time left."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=stderr
    )


class BestSoFar:
    """Moves a progress bar on with every new trial, and shows the best score and the rate."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("scoring", total=None)
        self._fresh = 0

    def __call__(self, event: Event) -> None:
        """Count one more."""
        self._fresh += 1
        rate = self._fresh / max(event.seconds, 1e-3)
        best = "none yet" if event.best is None else f"{event.best.score:.4f}"
        shown = f"best {best}, {rate:.1f}/s"
        self._progress.update(self._task, total=event.n_trials, completed=event.trial.number + 1, description=shown)
