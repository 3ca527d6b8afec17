"""Runs of a sweep on this machine: one at a time on a GPU, or several on the CPU with its cores divided among them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from genbench import lease
from genbench import run as runs
from genbench.lease import BusyError
from genbench.records import RunRecord
from genbench.run import Event, Place, Planned
from genbench.supervisor import Supervisor

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


Listen = Callable[[Cell, Event], None]


def execute(
    cells: Sequence[Cell], supervisor: Supervisor, *, devices: Sequence[str],
    on_event: Listen = lambda cell, event: None, on_record: Callable[[Cell, RunRecord], None] = lambda cell, record: None,
) -> None:  # fmt: skip
    """Run every cell to its record, one at a time on each of `devices` (a device may be named more than once).

    Cells that another process holds are left to it and looked at again; should it die, they are taken over. Ctrl-C saves what is
    running and raises KeyboardInterrupt; a second one kills it.
    """
    waiting, free = deque(cells), deque(devices)
    running: dict[Future[RunRecord | None], tuple[Cell, str]] = {}
    with ThreadPoolExecutor(len(devices), thread_name_prefix="run") as pool:
        try:
            while waiting or running:
                postponed: deque[Cell] = deque()
                while waiting and free:
                    cell = waiting.popleft()
                    record = cell.record
                    if record is not None:
                        on_record(cell, record)
                    elif lease.busy(cell.folder):
                        postponed.append(cell)
                    else:
                        device = free.popleft()
                        running[pool.submit(_run, cell, device, supervisor, on_event)] = (cell, device)
                waiting.extend(postponed)
                if running:
                    done, _ = wait(running, timeout=LOOK if postponed else None, return_when=FIRST_COMPLETED)
                    for future in done:
                        cell, device = running.pop(future)
                        free.append(device)
                        _settle(cell, future, waiting, on_record)
                elif waiting:
                    time.sleep(LOOK)
        except BaseException:
            supervisor.interrupt()
            _drain(running, supervisor)
            raise


def _run(cell: Cell, device: str, supervisor: Supervisor, on_event: Listen) -> RunRecord | None:
    place = replace(cell.place, checked=cell.place.checked.model_copy(update={"device": device}))
    with lease.held(cell.folder):
        return cell.record or runs.run(cell.planned, place, supervisor, lambda event: on_event(cell, event))


def _settle(cell: Cell, future: Future[RunRecord | None], waiting: deque[Cell], on_record: Callable[[Cell, RunRecord], None]) -> None:
    try:
        record = future.result()
    except BusyError:  # another was faster
        waiting.append(cell)
        return
    if record is None:
        raise KeyboardInterrupt
    on_record(cell, record)


def _drain(running: dict[Future[RunRecord | None], tuple[Cell, str]], supervisor: Supervisor) -> None:
    """Wait for interrupted runs to save themselves; at another Ctrl-C kill them."""
    while not all(future.done() for future in running):
        try:
            wait(running, timeout=0.5)
        except KeyboardInterrupt:
            supervisor.interrupt(kill=True)


def devices_for(place: Place, jobs: int | None) -> list[str]:
    """The devices that runs share: every GPU once, or the one asked for, or the CPU, `jobs` times."""
    device = place.checked.device
    if device == "cuda":
        return [f"cuda:{index}" for index in range(place.checked.num_devices)] * (jobs or 1)
    return [device] * (jobs or 1)


def threads_for(cores: int, jobs: int) -> int:
    """CPU threads of each of so many parallel runs: two runs of two threads on two cores are twenty times slower, not two."""
    return max(1, cores // jobs)


