"""The documentation as tests see it: pages, their code blocks, and what stands in comments before them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*?) -->\n|<!-- needs: (?P<needs>\w+) -->\n)?"
    r"^```(?P<language>[^`\n]*)\n(?P<code>.*?)^```$"
    r"|^<!-- setup\n(?P<setup>.*?)^-->$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, or a comment `<!-- setup ... -->`, whose Python is run but not shown.

    Attributes:
        page: Where it is.
        line: Of its first line of code, from 1.
        language: Of the fence; "python" for a setup.
        code: What is inside.
        reason: Why it is not run, from a comment `<!-- not run: REASON -->` right before it.
        needs: The package of an extra without which it cannot run, from a comment `<!-- needs: PACKAGE -->` there.
    """

    page: Path
    line: int
    language: str
    code: str
    reason: str | None = None
    needs: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block and setup of a page, in order."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        code = match["code"] if match["setup"] is None else match["setup"]
        start = match.start("code") if match["setup"] is None else match.start("setup")
        language = match["language"] if match["setup"] is None else "python"
        found.append(Block(page, text.count("\n", 0, start) + 1, language, code, match["reason"], match["needs"]))
    return found


def commands(page: Path) -> Iterator[tuple[Block, list[str]]]:
    """The command lines of a page's blocks, as words: those of fences without a language, `bash` or `console`."""
    for block in blocks(page):
        if block.language in ("", "bash", "console"):
            for line in re.sub(r"\\\n\s*", " ", block.code).splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words and words[0] in ("prunesearch", "make", "pip", "python"):
                    yield block, words
