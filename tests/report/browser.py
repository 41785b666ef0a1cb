"""A real browser that opens a report: Debian's Chromium without a window, driven by Playwright.

`python -m tests.report.browser REPORT PICTURE` takes the documentation's picture (make screenshot).
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

PHONE, TABLET, DESK = (390, 800), (800, 900), (1200, 900)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
_QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@dataclass
class Opened:
    """A page that is open, and what it did that a report must not do.

    Attributes:
        page: Playwright's.
        complaints: Messages of the console above the level of a log, errors of scripts, failed requests.
        requests: Everything that was asked for, the file itself first.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Listen, before the file is opened."""
        quiet = ("log", "info", "debug")
        self.page.on("console", lambda m: None if m.type in quiet else self.complaints.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url[:100]}"))
        self.page.on("request", lambda request: self.requests.append(request.url[:100]))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium; it gets a fresh profile that goes away with it."""
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(
    started: Browser, path: Path, *, size: tuple[int, int] = DESK, dark: bool = False, scripts: bool = True
) -> Iterator[Opened]:
    """Open a file as somebody with such a screen would see it."""
    context = started.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        java_script_enabled=scripts,
    )
    try:
        found = Opened(context.new_page())
        found.watch()
        found.page.goto(path.resolve().as_uri())
        yield found
    finally:
        context.close()


def take_picture(report: Path, picture: Path, height: int = 1720) -> None:
    """Write the head of a report as a small PNG of 1200 pixels' width."""
    from PIL import Image

    with browser() as started, opened(started, report, size=(1200, height)) as found:
        shot = Image.open(io.BytesIO(found.page.screenshot()))
    picture.parent.mkdir(parents=True, exist_ok=True)
    shot.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        picture, optimize=True
    )


if __name__ == "__main__":
    take_picture(Path(sys.argv[1]), Path(sys.argv[2]))
