"""Which runs of a sweep are to come, how a worker was lost, and when a run has lost so many that it is given up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from genbench import run as runs
from genbench.records import Status
from genbench.states import saved_steps
from genbench.sweep.cell import LOOK, Cell

CRASHES = runs.CRASHES
"""Workers lost in a row, without a new state saved between them, after which a run is given up."""


class Queue:
    """Cells to come: as soon as there is room, or after a while because another process works on them."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._now = deque(cells)
        self._later: deque[tuple[float, Cell]] = deque()

    def __bool__(self) -> bool:
        return bool(self._now or self._later)

    def pop(self) -> Cell | None:
        """The next cell to look at; None where none is due."""
        if self._later and self._later[0][0] <= time.monotonic():
            return self._later.popleft()[1]
        return self._now.popleft() if self._now else None

    def again(self, cell: Cell) -> None:
        """It is to be run again."""
        self._now.append(cell)

    def later(self, cell: Cell) -> None:
        """It is to be looked at again after `LOOK` seconds."""
        self._later.append((time.monotonic() + LOOK, cell))


class Losses:
    """Workers that runs have lost in a row, without a new state saved between them, and how the last was lost."""

    def __init__(self, steps: Callable[[Cell], int] = lambda cell: saved_steps(cell.folder)) -> None:
        self._steps = steps
        self._saved: dict[Path, int] = {}
        self._count: dict[Path, int] = {}
        self._last: dict[Path, tuple[Status, str]] = {}

    def begun(self, cell: Cell) -> None:
        """A task of this cell is handed to Ray."""
        if cell.folder in self._count:
            self._saved[cell.folder] = max(self._saved.get(cell.folder, 0), self._steps(cell))

    def count(self, cell: Cell, status: Status, reason: str, saved: int | None = None) -> None:
        """One more is lost, when `saved` steps were; None: as many as `steps` finds."""
        saved = self._steps(cell) if saved is None else saved
        got_on = saved > self._saved.get(cell.folder, 0)
        self._saved[cell.folder] = max(saved, self._saved.get(cell.folder, 0))
        self._count[cell.folder] = 1 if got_on else self._count.get(cell.folder, 0) + 1
        self._last[cell.folder] = status, reason

    def is_up(self, cell: Cell) -> bool:
        """Whether that were too many."""
        return self._count.get(cell.folder, 0) >= CRASHES

    def verdict(self, cell: Cell) -> tuple[Status, str]:
        """Status and reason of the record of a run that is given up."""
        status, reason = self._last[cell.folder]
        return status, f"{reason}, {self._count[cell.folder]} times in a row without getting on"


def lost(error: Exception, host: str) -> tuple[Status, str]:
    """Why a task has no answer -> the status of the run, should it be given up, and the reason."""
    cause = getattr(error, "cause", None)
    on = f" on {host}" if host else ""
    known: dict[str, tuple[Status, str]] = {
        "WorkerCrashedError": ("error", f"its Ray worker{on} was killed"),
        "NodeDiedError": ("error", f"its node{on} went away"),
        "LocalRayletDiedError": ("error", f"its node{on} went away"),
        "OutOfMemoryError": ("oom", f"Ray ended its worker{on} for want of memory on the node"),
    }
    return known.get(type(error).__name__, ("error", f"its Ray worker{on} failed: {words(cause or error)}"))


def words(error: BaseException) -> str:
    """Kind and last line of what was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__
