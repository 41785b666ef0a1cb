"""The way into the command `prunesearch`, also as `python -m prunesearch`.

It imports next to nothing before it is ready for an interrupt: what it calls takes seconds to import.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT


def main() -> NoReturn:
    """Run the command line; an interrupt ends it with one line, whenever it comes."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not where interrupts are ignored
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from prunesearch.cli import main as run

        run()
    except KeyboardInterrupt:
        _end()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupt what is being done, but end at once while modules are imported.

    Nothing is at stake then, and an exception would come out of the import as another one, or not at all.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end()
        frame = frame.f_back
    raise KeyboardInterrupt


def _end() -> NoReturn:
    os.write(2, b"error: Interrupted.\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
