"""How far something is, for a person who waits: a bar on a terminal, one line in a notebook."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

from prunesearch.plain_text import plain

_AT_MOST = 0.1  # seconds between two drawings


class Place(Protocol):
    """Where progress is drawn."""

    def draw(self, done: int, total: int, told: str, seconds: float, left: str) -> None:
        """Draw that so much is done.

        Args:
            done: How many.
            total: Of how many.
            told: What is going on, in a line.
            seconds: Since the beginning.
            left: The time left, in words.
        """

    def say(self, sentence: str) -> None:
        """Say something once."""


class Shown:
    """How far something is, told to a person.

    Args:
        what: What is going on, in a word or two.
        unit: What is counted.
        place: Where it is drawn; None draws nothing.
        clock: Seconds, from any beginning.
    """

    def __init__(self, what: str, unit: str, place: Place | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._unit, self._place, self._clock = what, unit, place, clock
        self._start = clock()
        self._first: int | None = None

    def update(self, done: int, total: int, told: str = "") -> None:
        """So much is done now; what was done before the first call took none of this run's time."""
        if self._place is None:
            return
        seconds = self._clock() - self._start
        if self._first is None:
            self._first = max(0, done - 1)
            if self._first:
                self._place.say(f"Resuming: {self._first} of {total} {self._unit} done.")
        rate = (done - self._first) / max(seconds, 1e-3)
        left = duration((total - done) / rate) if rate else "?"
        description = plain(f"{self._what}: {told}" if told else self._what)
        self._place.draw(done, total, description, seconds, f"{left} left" if done < total else "done")


Progress: TypeAlias = bool | Shown
"""True: shown where there is a terminal or a notebook. False: not shown. Or where it is shown already."""


@contextmanager
def shown(what: str, unit: str, progress: Progress = True) -> Iterator[Shown]:
    """Show how far something is while it is being done, where somebody can see it.

    Args:
        what: What is going on, in a word or two.
        unit: What is counted.
        progress: Whether to show it; or where it is shown already, which stays open.
    """
    if isinstance(progress, Shown):
        yield progress
    elif not progress:
        yield Shown(what, unit, None)
    elif in_notebook():
        yield Shown(what, unit, _NotebookLine())
    elif sys.stderr is not None and sys.stderr.isatty():
        with terminal_bar() as place:
            yield Shown(what, unit, place)
    else:
        yield Shown(what, unit, None)


@contextmanager
def terminal_bar(console: Any = None) -> Iterator[Place]:
    """A bar on a terminal, by rich; drawn in this thread only, as a thread of its own would disturb what is timed.

    Args:
        console: Of rich; by default one on stderr.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    console = console or Console(stderr=True, markup=False, emoji=False, highlight=False)
    bars = Bars(*columns, console=console, auto_refresh=False)
    try:
        yield TerminalBar(bars)
    finally:
        if bars.live.is_started:
            bars.stop()


class TerminalBar:
    """A bar of rich, which appears when there is something to show.

    Args:
        bars: Where it is.
    """

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, left="")
        self._drawn = -_AT_MOST

    def draw(self, done: int, total: int, told: str, seconds: float, left: str) -> None:
        """Draw it, ten times a second at most."""
        self._bars.start()  # which does nothing the second time
        is_due = done >= total or seconds - self._drawn >= _AT_MOST
        self._bars.update(self._task, completed=done, total=total, description=told, left=left, refresh=is_due)
        if is_due:
            self._drawn = seconds

    def say(self, sentence: str) -> None:
        """Print it above the bar."""
        self._bars.console.print(plain(sentence))


class _NotebookLine:
    """A line of a notebook's output that changes, by IPython itself: nothing else need be installed there."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn = -_AT_MOST

    def draw(self, done: int, total: int, told: str, seconds: float, left: str) -> None:
        """Change the line, ten times a second at most."""
        if done < total and seconds - self._drawn < _AT_MOST:
            return
        self._drawn = seconds
        text = f"{told} | {done} of {total}, {left}"
        bar = f'<progress value="{done}" max="{total}"></progress> '
        self._show(text, bar + html.escape(text))

    def say(self, sentence: str) -> None:
        """Say it before the line."""
        self._show(sentence, html.escape(sentence))

    def _show(self, text: str, page: str) -> None:
        from IPython import display

        bundle = {"text/plain": text, "text/html": page}
        if self._handle is None:
            shows: Any = display.display
            self._handle = shows(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def duration(seconds: float) -> str:
    """A time as one says it.

    Example:
        >>> [duration(seconds) for seconds in (4.2, 200, 7500)]
        ['4 s', '3 min 20 s', '2 h 5 min']
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
