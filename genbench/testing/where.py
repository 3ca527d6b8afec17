"""Where in its author's own code something happened."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import torch

import genbench

_TORCH, _OURS = (f"{Path(module.__file__ or '').parent}/" for module in (torch, genbench))

_MODES = tuple(f"{_TORCH}{part}" for part in ("utils/", "_dynamo/", "_compile.py"))
"""Frames between a dispatch mode and what it intercepts."""


def explained(error: BaseException) -> str:
    """An exception -> its type, its first line, and the line of the author's code that led to it."""
    message = str(error).strip().splitlines()[:1]
    return ": ".join([type(error).__name__, *message])[:300] + authors_line(error)


def authors_line(error: BaseException | None) -> str:
    """`` (mygan.py:31)``: the innermost line outside torch and the harness, of an error or (None) of the caller.

    Of a caller the nearest line counts: empty where torch itself made the call.
    """
    if error is not None:
        theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((_TORCH, _OURS, "<"))]
        return f" ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else ""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_MODES):
        frame = frame.f_back
    file = frame.f_code.co_filename
    return "" if file.startswith((_TORCH, _OURS)) else f" ({Path(file).name}:{frame.f_lineno})"
