"""Text as any terminal may be given it."""

from __future__ import annotations

import math
import re

_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What terminals take for commands, all but the new line and the tab, and what turns the direction of writing."""


def shortened(text: str, most: int = 200) -> str:
    """A text in one line of at most so many characters.

    Example:
        >>> shortened("one two three", most=8)
        'one two…'
    """
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def plain(text: str) -> str:
    r"""A text as any terminal may be given it: what is a command to terminals becomes letters.

    Example:
        >>> print(plain("red: \x1b[31m"))
        red: \x1b[31m
    """
    text = text.encode("utf-8", "backslashreplace").decode()  # half a character of UTF-16 cannot be printed
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def about(n: int) -> str:
    """A large number of things, as the nearest power of ten.

    Example:
        >>> about(2**100)
        'about 10^30'
    """
    return f"about 10^{math.log10(n):.0f}"


def counted(n: int, what: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "structure"), counted(1200, "structure")
        ('1 structure', '1,200 structures')
    """
    return f"{n:,} {what}{'s' * (n != 1)}"
