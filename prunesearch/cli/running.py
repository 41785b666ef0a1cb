"""How commands that take long run: what they show meanwhile, and how they end early."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from prunesearch.cli.console import fail, plain, say, stderr

if TYPE_CHECKING:
    from prunesearch.study.events import Event

_FIRST_LINE, _LAST_INTERVAL, _SHARE = 10.0, 300.0, 0.2  # seconds, seconds, of the time so far


def say_where(asked: str | None) -> None:
    """Say on which GPU the work is done, if it is on one.

    Raises:
        ValueError: torch has no such device here.
    """
    from prunesearch.models.devices import devices_here

    devices = devices_here()
    where = devices.told(devices.chosen(asked))
    if where is not None:
        say(where, aside=True)


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


class Shown:
    """How far something is, on stderr: a bar on a terminal, else a line now and then, rarer the longer it takes.

    Args:
        what: What is going on, in a word or two.
        unit: What is counted.
        bar: Where it is drawn; None prints lines.
        clock: Seconds, from any beginning.
    """

    def __init__(self, what: str, unit: str, bar: Progress | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._unit, self._bar, self._clock = what, unit, bar, clock
        self._task = None if bar is None else bar.add_task(what, total=None, left="")
        self._start = clock()
        self._next = _FIRST_LINE
        self._first: int | None = None

    def update(self, done: int, total: int, told: str = "") -> None:
        """So much is done now; what was done before the first call took none of this run's time."""
        seconds = self._clock() - self._start
        if self._first is None:
            self._first = max(0, done - 1)
            if self._first:
                line = f"Resuming: {self._first} of {total} {self._unit} done."
                stderr.print(plain(line))
        rate = (done - self._first) / max(seconds, 1e-3)
        left = duration((total - done) / rate) if rate else "?"
        if self._bar is not None and self._task is not None:
            description = plain(f"{self._what}: {told}" if told else self._what)
            self._bar.update(self._task, completed=done, total=total, description=description, left=f"{left} left")
        elif seconds >= self._next:
            self._next = seconds + min(max(_FIRST_LINE, _SHARE * seconds), _LAST_INTERVAL)
            line = f"{self._what} {done} of {total}: {told}{', ' if told else ''}{left} left"
            stderr.print(plain(line))


@contextmanager
def shown(what: str, unit: str) -> Iterator[Shown]:
    """Show how far something is while it is being done."""
    if not stderr.is_terminal:
        yield Shown(what, unit, None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=stderr) as bar:
        yield Shown(what, unit, bar)


class BestSoFar:
    """Tells of a search after each trial: the best score and what it costs, the front, the rate.

    Args:
        shown: Where.
        macs: Of the unpruned network.
    """

    def __init__(self, shown: Shown, macs: int) -> None:
        self._shown, self._macs = shown, macs
        self._fresh = 0

    @property
    def has_news(self) -> bool:
        """Whether there was a trial at all."""
        return self._fresh > 0

    def __call__(self, event: Event) -> None:
        """Count one more."""
        self._fresh += 1
        rate = self._fresh / max(event.seconds, 1e-3)
        best = "none yet"
        if event.best is not None:
            best = f"{event.best.score:.4f} with {event.best.cost.macs / self._macs:.1%} of the MACs"
        told = f"best {best}, front {len(event.front)}, {rate:.1f}/s"
        self._shown.update(event.trial.number + 1, event.n_trials, told)


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
