"""Draw the pictures of the documentation anew from the committed results, as SVG.

    python benchmarks/pictures.py           # rewrite
    python benchmarks/pictures.py --check   # only say whether something is out of date (exit status 1)

Plain SVG, written here: a file of text that shows what changed, looks the same on every machine, and has a background
of its own, as pages may be dark.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#777777")  # told apart by the colour-blind
_SHOWN = ("surrogate", "genetic", "evolution", "bayes", "random")
_LABELS = {"surrogate": "surrogate (default)"}


def regrets() -> str:
    """How far from the best structure searchers are after 50, 100 and 200 evaluations: medians over seeds."""
    rows = json.loads((RESULTS / "searchers.json").read_text())["rows"]
    panels = [
        (place, {name: _medians(rows[place]["searchers"][name]) for name in _SHOWN if name in rows[place]["searchers"]})
        for place in ("resnet8 at 30%", "resnet14 at 50%", "interacting", "rugged")
    ]
    width, height = 790, 300
    parts = [_text(14, 22, "Distance from the best structure (0) after so many evaluations; 1 is the median structure")]
    for index, (place, lines) in enumerate(panels):
        parts.append(_panel(50 + 192 * index, 55, 138, 175, place, lines))
    for index, name in enumerate(_SHOWN):
        x = 50 + 160 * index
        parts.append(f'<line x1="{x}" y1="278" x2="{x + 22}" y2="278" stroke="{_COLOURS[index]}" stroke-width="3"/>')
        parts.append(_text(x + 28, 282, _LABELS.get(name, name)))
    return _svg(width, height, "Regret of five searchers on four landscapes", parts)


def _medians(cells: Sequence[Mapping[str, Sequence[float]]]) -> list[float]:
    return [statistics.median(cell["regret"][i] for cell in cells) for i in range(3)]


def _panel(left: int, top: int, width: int, height: int, title: str, lines: Mapping[str, Sequence[float]]) -> str:
    highest = max(value for values in lines.values() for value in values) * 1.08
    across = [left + width * share for share in (0.08, 0.36, 0.92)]  # 50, 100, 200 evaluations
    parts = [
        _text(left, top - 8, title),
        f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#444"/>',
        *(_text(x, top + height + 16, n, "middle") for x, n in zip(across, ("50", "100", "200"), strict=True)),
    ]
    for share in (0.0, 0.5, 1.0):
        y = top + height * (1 - share / 1.08)
        parts.append(_text(left - 6, y + 4, f"{highest / 1.08 * share:.2f}", "end"))
    for name, values in lines.items():
        colour = _COLOURS[_SHOWN.index(name)]
        points = [(x, top + height * (1 - value / highest)) for x, value in zip(across, values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    return "\n".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
    head += 'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#222">'
    background = f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", background, *parts, "</svg>"]) + "\n"


PICTURES: Mapping[Path, Callable[[], str]] = {IMAGES / "searchers.svg": regrets}


def main() -> int:
    """Rewrite every picture, or check them."""
    stale = [path for path, draw in PICTURES.items() if not path.exists() or path.read_text() != draw()]
    for path in stale:
        if "--check" in sys.argv:
            sys.stderr.write(f"{path.name} is out of date; run: make readme\n")
        else:
            path.write_text(PICTURES[path]())
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
