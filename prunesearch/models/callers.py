"""Whose code runs: the frames of a forward that is followed, beneath those of torch and of the record."""

from __future__ import annotations

import os
import sys
import traceback
from types import FrameType

import torch

from prunesearch.models.assertions import is_tested

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")
_OURS = {
    os.path.join(os.path.dirname(__file__), f"{name}.py")
    for name in ("callers", "losses", "numbers", "recorded_graph", "recorded_numbers", "recording")
}
"""What stands between a forward and torch while it is followed. Other files here may be a caller's, such as the zoo."""


def _is_between(filename: str) -> bool:
    return filename.startswith(_TORCH) or filename in _OURS


def caller() -> FrameType | None:
    """The frame of the code that called torch: the innermost one that is neither torch's nor of the record."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def is_check() -> bool:
    """Whether what runs is asked by a check that raises, of the caller or of torch, such as those of distributions."""
    last = caller()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not last:
        if frame.f_code.co_filename not in _OURS and is_tested(frame.f_code, frame.f_lasti):
            return True
        frame = frame.f_back
    return last is not None and is_tested(last.f_code, last.f_lasti)


def where(frame: FrameType | None) -> str:
    """File and line; empty for no frame."""
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def line_of(error: BaseException) -> str:
    """Where in the caller's code it was raised, if it was there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_between(frame.filename)]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
