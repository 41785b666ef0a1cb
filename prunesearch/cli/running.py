"""How commands that take long run: what they show meanwhile, and how they end early."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prunesearch.cli.console import fail, say, stderr
from prunesearch.plain_text import plain
from prunesearch.progress import Shown, terminal_bar

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


class Lines:
    """Where there is no terminal: a line now and then on stderr, rarer the longer it takes."""

    def __init__(self) -> None:
        self._next = _FIRST_LINE

    def draw(self, done: int, total: int, told: str, seconds: float, left: str) -> None:
        """Print a line if it is time."""
        if seconds >= self._next:
            self._next = seconds + min(max(_FIRST_LINE, _SHARE * seconds), _LAST_INTERVAL)
            what, _, more = told.partition(": ")
            stderr.print(f"{what} {done} of {total}: {more}{', ' if more else ''}{left}")

    def say(self, sentence: str) -> None:
        """Print it."""
        stderr.print(plain(sentence))


@contextmanager
def shown(what: str, unit: str) -> Iterator[Shown]:
    """Show how far something is while it is being done."""
    if not stderr.is_terminal:
        yield Shown(what, unit, Lines())
        return
    with terminal_bar(stderr) as bar:
        yield Shown(what, unit, bar)
