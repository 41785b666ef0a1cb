"""Squares and discs pasted on noise, as a data set in the form that ultralytics reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("square", "disc")


def write_shapes(folder: Path, *, images: int = 20, size: int = 64, kind: str = "detect", seed: int = 0) -> Path:
    """Write images and labels below a folder, and say what `train(data=...)` takes: a yaml, or a folder of classes."""
    rng = np.random.default_rng(seed)
    for part in ("train", "val"):
        for i in range(images):
            picture = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            if kind == "classify":
                shape = i % 2
                _paste(picture, shape, *rng.uniform((0.3, 0.3), (0.7, 0.7)), float(rng.uniform(0.3, 0.5)))
                file = folder / part / KINDS[shape] / f"{i}.png"
            else:
                centres = [(0.28, 0.3), (0.7, 0.68)][: 1 + i % 2]
                lines = []
                for x, y in centres:
                    shape, width = int(rng.integers(2)), float(rng.uniform(0.3, 0.5))
                    _paste(picture, shape, x, y, width)
                    lines.append(_label(kind, shape, x, y, width))
                file = folder / "images" / part / f"{i}.png"
                labels = folder / "labels" / part / f"{i}.txt"
                labels.parent.mkdir(parents=True, exist_ok=True)
                labels.write_text("\n".join(lines) + "\n")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
    if kind == "classify":
        return folder
    extra = "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n" if kind == "pose" else ""
    description = folder / "shapes.yaml"
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(KINDS))
    description.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}{extra}")
    return description


def _paste(picture: np.ndarray, shape: int, x: float, y: float, width: float) -> None:
    size = len(picture)
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    across, down = np.abs(columns - x), np.abs(rows - y)
    inside = (across**2 + down**2 < (width / 2) ** 2) if shape else (np.maximum(across, down) < width / 2)
    picture[inside] = (220, 90, 60) if shape else (60, 120, 230)


def _label(kind: str, shape: int, x: float, y: float, width: float) -> str:
    half = width / 2
    if kind == "segment":
        turns = np.linspace(0, 2 * np.pi, 5 if shape == 0 else 17)[:-1] + (np.pi / 4 if shape == 0 else 0)
        radius = half * (2**0.5 if shape == 0 else 1)
        points = [(x + radius * np.cos(turn), y + radius * np.sin(turn)) for turn in turns]
        return f"{shape} " + " ".join(f"{value:.5f}" for point in points for value in np.clip(point, 0, 1))
    box = f"{shape} {x:.5f} {y:.5f} {width:.5f} {width:.5f}"
    return box + (f" {x - half:.5f} {y:.5f} 2 {x + half:.5f} {y:.5f} 2" if kind == "pose" else "")
