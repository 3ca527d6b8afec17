"""One run of a sweep and where it may happen, what an executor is asked for, and what every executor can do."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from genbench import lease
from genbench.errors import GenbenchError
from genbench.inventory import ModelDescription
from genbench.records import RunRecord
from genbench.run import Event, Place, Planned
from genbench.supervisor import Supervisor
from genbench.track import Track

LOOK = 5.0
"""Seconds between two looks at runs that another process works on."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep and where it may happen."""

    planned: Planned
    place: Place

    @property
    def folder(self) -> Path:
        """Of the run, in the results folder."""
        return self.place.store.folder(self.planned.spec)

    @property
    def record(self) -> RunRecord | None:
        """Its record, where it has one."""
        return self.place.store.get(self.planned.spec)


@dataclass(frozen=True)
class Wishes:
    """Where runs happen and with what, as it was asked for."""

    results: Path
    device: str = "auto"
    jobs: int | None = None
    """Runs at once."""
    threads: int | None = None
    """CPU threads of each run."""
    weights: Path | None = None
    address: str = ""
    """Of a Ray cluster; empty: the one that this machine belongs to, else one of this machine alone."""
    storage: str = ""
    """Where nodes leave runs, where they do not share the results folder: ``s3://bucket/folder``, ``file:///…``."""
    resources: tuple[str, ...] = ()
    """Ray's names of what a node must have, like ``accelerator_type:H100``."""
    devices: int = 1
    """That train one run together."""


_NO_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
Run = Callable[[Planned, Place, Supervisor, Callable[[Event], None]], RunRecord | None]
"""`genbench.run.run`, or what stands in for it in a simulation."""
OnEvent = Callable[[Cell, Event], None]
OnRecord = Callable[[Cell, RunRecord], None]


class Executor(Protocol):
    """Where the runs of a sweep happen."""

    @property
    def slots(self) -> int:
        """Runs at once, as far as it is known; for words about the time left."""

    def places(self, tracks: Sequence[Track], models: Collection[ModelDescription]) -> list[Place]:
        """Everything that can be wrong before a model trains, seen where it will train: a place for each track. Raises GenbenchError."""

    def gather(self, cells: Sequence[Cell]) -> None:
        """Bring records that exist elsewhere into the results folder."""

    def reopen(self, cell: Cell) -> None:
        """Set the record of a failed run aside, so that it happens again. Raises BusyError where another process works on it."""

    def execute(self, cells: Sequence[Cell], on_event: OnEvent, on_record: OnRecord) -> None:
        """Run every cell to its record. Ctrl-C saves what is running and raises KeyboardInterrupt; a second one kills it."""


def attempt(cell: Cell, supervisor: Supervisor, on_event: Callable[[Event], None], run: Run) -> RunRecord | None:
    """The record of a cell, from earlier or of the run that happens now under its lease; None where that was interrupted.

    Raises BusyError where another process works on it, or took it over, GenbenchError where the results folder can't be written.
    """
    try:
        with lease.held(cell.folder) as confirm:

            def heard(event: Event) -> None:
                confirm()  # a process that was stopped for long may have lost its lease
                on_event(event)

            return cell.record or run(cell.planned, cell.place, supervisor, heard)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise GenbenchError(f"{error.filename or cell.folder} is a file, where a run needs a folder; move it away") from error
        if error.errno not in _NO_WRITING:
            raise
        # nothing is lost, and the run is still to come
        raise GenbenchError(
            f"results folder {cell.place.store.root} can't be written: {error.strerror or error}; the same command goes on once it can"
        ) from error
