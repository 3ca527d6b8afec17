"""What a training has spent so far, in a file that outlives its process: what a crash undoes is charged all the same. Imports no torch."""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import NamedTuple

NAME = "clock"
"""Of the file, in the folder of an attempt."""
_FORM = struct.Struct("<dqq")


class Noted(NamedTuple):
    """Charged seconds, steps and images."""

    seconds: float = 0.0
    steps: int = 0
    images: int = 0


class Witness:
    """Notes what was spent. The file is mapped into memory: a note costs about a microsecond, and a killed process leaves its last."""

    def __init__(self, attempt: Path) -> None:
        path = attempt / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(_FORM.size))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FORM.size)

    def note(self, seconds: float, steps: int, images: int) -> None:
        """Called after every step."""
        _FORM.pack_into(self._map, 0, seconds, steps, images)


def noted(attempt: Path) -> Noted | None:
    """What the training of this attempt noted last; None where it never began, or where a plugin wrote what no training notes."""
    try:
        found = Noted(*_FORM.unpack((attempt / NAME).read_bytes()))
    except (OSError, struct.error):
        return None
    return found if math.isfinite(found.seconds) and min(found) >= 0 else None


def last_noted(attempt: Path) -> Noted | None:
    """What the last training up to this attempt noted: one that is lost while it starts notes nothing, and what was spent stays spent."""
    found = (noted(attempt.with_name(str(number))) for number in range(int(attempt.name), 0, -1))
    return next((one for one in found if one is not None), None)


def undone(attempt: Path, restored: float) -> float:
    """Seconds that the last training before this attempt had spent beyond those of the state that was restored, `restored`."""
    last = last_noted(attempt.with_name(str(int(attempt.name) - 1))) or Noted()
    return max(0.0, last.seconds - restored)


def forget(attempts: Path) -> None:
    """Remove the notes of a run that has ended: a retry is not charged for it."""
    for path in attempts.glob(f"*/{NAME}"):
        path.unlink(missing_ok=True)
