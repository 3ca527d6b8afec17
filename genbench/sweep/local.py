"""Runs of a sweep on this machine: one at a time on each GPU, or several on the CPU; cores and memory are divided among them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from genbench import lease, machine
from genbench import run as runs
from genbench.errors import GenbenchError
from genbench.inventory import ModelDescription
from genbench.lease import BusyError
from genbench.records import RunRecord
from genbench.run import ElsewhereError, Place
from genbench.supervisor import Supervisor
from genbench.sweep.cell import LOOK, Cell, OnEvent, OnRecord, Run, Wishes, attempt
from genbench.track import Track

_log = logging.getLogger(__name__)


class LocalExecutor:
    """The cores and GPUs of this machine."""

    def __init__(self, wishes: Wishes, supervisor: Supervisor, run: Run = runs.run) -> None:
        self._wishes, self._supervisor, self._run = wishes, supervisor, run
        self._devices: list[str] = []

    @property
    def slots(self) -> int:
        """Runs at once."""
        return len(self._devices)

    def places(self, tracks: Sequence[Track], models: Collection[ModelDescription]) -> list[Place]:
        """A place for each track; device, dataset and weights are looked at, and each run gets its share. Raises GenbenchError."""
        wishes = self._wishes
        places = [self._check(track, wishes.device, wishes.devices) for track in tracks]
        self._devices = devices_for(places[0], wishes.jobs, self._names(tracks[0], places[0]))
        threads = wishes.threads or threads_for(machine.cores(), self.slots, wishes.devices)
        return [replace(place, threads=threads, memory=place.memory and place.memory // self.slots) for place in places]

    def _check(self, track: Track, device: str, devices: int) -> Place:
        wishes = self._wishes
        return runs.check(
            track, self._supervisor, results=wishes.results, device=device, weights=wishes.weights, devices=devices,
            threads=wishes.threads or threads_for(machine.cores(), wishes.jobs or 1, devices),
        )  # fmt: skip

    def _names(self, track: Track, first: Place) -> list[str]:
        """What every GPU that runs may share is called; empty where they do not share several."""
        found = first.checked
        if found.device != "cuda" or found.num_devices == 1:
            return []
        others = [self._check(track, f"cuda:{index}", 1) for index in range(1, found.num_devices)]
        return [found.device_name, *(other.checked.device_name for other in others)]

    def gather(self, cells: Sequence[Cell]) -> None:
        """Records are nowhere but in the results folder."""

    def reopen(self, cell: Cell) -> None:
        """Set the record of a failed run aside. Raises BusyError where another process works on it."""
        runs.retry(cell.planned, cell.place.store)

    def execute(self, cells: Sequence[Cell], on_event: OnEvent, on_record: OnRecord) -> None:
        """Run every cell to its record, on the devices that `places` found."""
        execute(cells, self._supervisor, devices=self._devices, on_event=on_event, on_record=on_record, run=self._run)


def execute(
    cells: Sequence[Cell], supervisor: Supervisor, *, devices: Sequence[str], on_event: OnEvent = lambda cell, event: None,
    on_record: OnRecord = lambda cell, record: None, run: Run = runs.run,
) -> None:  # fmt: skip
    """Run every cell to its record, one at a time on each of `devices` (a device may be named more than once).

    Cells that another process holds are left to it and looked at again; should it die, they are taken over. One that can go on only
    elsewhere is left as it is, and said in an event of that kind. Ctrl-C saves what is running and raises KeyboardInterrupt; a second
    one kills it.
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
                        running[pool.submit(_run, cell, device, supervisor, on_event, run)] = (cell, device)
                waiting.extend(postponed)
                if running:
                    done, _ = wait(running, timeout=LOOK if postponed else None, return_when=FIRST_COMPLETED)
                    for future in done:
                        cell, device = running.pop(future)
                        free.append(device)
                        _settle(cell, future, waiting, on_event, on_record)
                elif waiting:
                    time.sleep(LOOK)
        except BaseException:
            supervisor.interrupt()
            _drain(running, supervisor)
            raise


def _run(cell: Cell, device: str, supervisor: Supervisor, on_event: OnEvent, run: Run) -> RunRecord | None:
    place = replace(cell.place, checked=cell.place.checked.model_copy(update={"device": device}))
    return attempt(Cell(cell.planned, place), supervisor, lambda event: on_event(cell, event), run)


def _settle(cell: Cell, future: Future[RunRecord | None], waiting: deque[Cell], on_event: OnEvent, on_record: OnRecord) -> None:
    try:
        record = future.result()
    except BusyError:  # another was faster
        waiting.append(cell)
        return
    except ElsewhereError as error:
        on_event(cell, {"kind": "elsewhere", "reason": str(error)})
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


def devices_for(place: Place, jobs: int | None, names: Sequence[str] = ()) -> list[str]:
    """The devices that runs share: every GPU once, or the one asked for, or the CPU, `jobs` times. Of several for a run, the first.

    Of GPUs with different `names` only those called as the first is: a budget of time means another thing on another. Raises
    GenbenchError where too few of them lie side by side.
    """
    device, each = place.checked.device, place.devices
    if device != "cuda":
        return [device] * (jobs or 1)
    like = [name == names[0] for name in names] or [True] * place.checked.num_devices
    found = [index for index in range(0, len(like) - each + 1, each) if all(like[index : index + each])]
    if not found:
        raise GenbenchError(f"of the GPUs {', '.join(names)} no {each} side by side are the same; choose with CUDA_VISIBLE_DEVICES")
    if not all(like):
        others = ", ".join(f"cuda:{index} ({name})" for index, name in enumerate(names) if not like[index])
        _log.warning("runs happen on GPUs of one kind, %s; not on %s: sweep there apart, with --device", names[0], others)
    return [f"cuda:{index}" for index in found] * (jobs or 1)


def threads_for(cores: int, jobs: int, devices: int = 1) -> int:
    """CPU threads of each of so many parallel runs: two runs of two threads on two cores are twenty times slower, not two.

    They are as many as `devices`, which share them, can use.
    """
    share = max(1, cores // jobs)
    return share - share % devices or share
