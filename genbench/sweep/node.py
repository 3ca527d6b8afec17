"""What a task of a sweep does on the node that Ray gives it to: say what is there, or do one run through the supervisor."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from genbench import lease, machine
from genbench import run as runs
from genbench.errors import GenbenchError
from genbench.jobs import Checked
from genbench.lease import BusyError
from genbench.records import RunRecord, Store
from genbench.run import ElsewhereError, Event, Place, Planned
from genbench.states import saved_steps
from genbench.supervisor import Supervisor
from genbench.sweep.cell import Cell, Run, attempt
from genbench.sweep.preflight import Found, Ticket, agree, at_home, examine
from genbench.sweep.storage import Sent, Storage

T = TypeVar("T")
_log = logging.getLogger(__name__)
NOTED = lease.BEAT
"""Seconds between two notes on the storage of what a run has spent."""
SAVED = 60.0
"""Seconds after which what it has saved is put there."""
PAUSES = (2.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds after which a storage that can't be reached is tried again: what a run took is worth some minutes."""
BEGUN = "genbench-begun"
"""Where in Ray's own key-value store tasks say that their run has begun."""


@dataclass(frozen=True)
class Answer:
    """What a task says of its run: the record, or why there is none."""

    record: str = ""
    """As JSON."""
    busy: bool = False
    """Another process works on it."""
    saved: int = 0
    """Steps that are saved of a run that was interrupted."""
    elsewhere: str = ""
    """Why it can go on only under another torch."""
    refused: str = ""
    """Why this node takes no runs."""
    node: str = ""
    """Ray's id of the node that refuses."""


def examine_apart(ticket: Ticket) -> Found:
    """`examine` in a worker of its own, which has no GPU. Older Rays hide them all from it; what the node's owner hides stays hidden."""
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return examine(ticket)


def work(planned: Planned, told: tuple[Ticket, Mapping[str, Checked], Run]) -> Answer:
    """One run, in a Ray worker. Executed twice it is done once. A node that differs from those that were asked, or can't write, refuses."""
    import ray

    ticket, known, run = told
    context = ray.get_runtime_context()
    here = context.get_node_id()
    name = f"node {socket.gethostname()} ({here[:8]})"
    try:
        checked = known.get(here) or _joined_later(here, ticket, known)
        if checked.device.startswith("cuda"):
            checked = checked.model_copy(update={"device": "cuda:0"})  # the first that Ray lets this worker see
        place = Place(Store(ticket.root), checked, ticket.threads, ticket.weights, int(runs.MEMORY * machine.free_bytes()), ticket.devices)
        with at_home(ticket.folder):
            return attempted(Cell(planned, place), ticket, run, _telling(context.get_job_id(), planned))
    except BusyError:
        return Answer(busy=True)
    except ElsewhereError as error:
        return Answer(elsewhere=str(error))
    except GenbenchError as error:
        return Answer(refused=f"{name}: {error}", node=here)


def _joined_later(here: str, ticket: Ticket, known: Mapping[str, Checked]) -> Checked:
    """What a node has that was not there when the others were asked. Raises GenbenchError where it differs."""
    found, (first, reference) = examine(replace(ticket, probe="")), next(iter(known.items()))
    agree({first[:8]: Found(ticket.facts, (reference,)), here[:8]: found}, ticket)
    return found.checked[0]


def attempted(cell: Cell, ticket: Ticket, run: Run, on_event: Callable[[Event], None]) -> Answer:
    """One run on this node, with what the storage has of it, where there is one.

    Raises BusyError, ElsewhereError, and GenbenchError where this node can't write what it must.
    """
    folder, root = cell.planned.spec.folder, ticket.root
    if not ticket.storage:
        record = attempt(cell, Supervisor(), on_event, run)
        return _answer(record, cell.folder)
    storage = Storage(ticket.storage)
    there = _patiently(storage, lambda: storage.record(folder))
    if there is not None:
        return Answer(there.decode())
    record = attempt(cell, Supervisor(), on_event, _kept_on(storage, run))
    answer = _answer(record, cell.folder)
    if record is not None:
        _patiently(storage, lambda: storage.commit(folder, root))
    shutil.rmtree(root / folder, ignore_errors=True)
    with contextlib.suppress(Exception):  # it costs room on a disk, no run
        remove_finished(root, storage)
    return answer


def _answer(record: RunRecord | None, folder: Path) -> Answer:
    return Answer(record.model_dump_json(indent=1) + "\n") if record else Answer(saved=saved_steps(folder))


def _kept_on(storage: Storage, run: Run) -> Run:
    """`run`, going on from what a storage has of it, which gets what it spends and saves: another node may have to go on."""

    def kept(planned: Planned, place: Place, supervisor: Supervisor, on_event: Callable[[Event], None]) -> RunRecord | None:
        folder, root = planned.spec.folder, place.store.root
        def bring() -> None:
            storage.forget_failed(folder, root)
            storage.restore(folder, root)

        _patiently(storage, bring)
        with _keeping(storage, folder, root) as sent:
            record = run(planned, place, supervisor, on_event)
        if record is None:
            with storage.reached():  # who interrupts it does not wait for minutes
                storage.save(folder, root, sent)
        return record

    return kept


@contextmanager
def _keeping(storage: Storage, folder: Path, root: Path) -> Iterator[Sent]:
    """Within the block the storage gets what a run spends every `NOTED` seconds, and every `SAVED` seconds what it saves."""
    over: threading.Event = threading.Event()
    sent: Sent = {}

    def keep() -> None:
        due = time.monotonic() + SAVED
        while not over.wait(NOTED):
            try:
                if time.monotonic() < due:
                    storage.note(folder, root, sent)
                else:
                    storage.save(folder, root, sent)
                    due = time.monotonic() + SAVED
            except Exception as error:  # each protocol has its own; the run is well, and the next note may arrive
                _log.warning("storage %s: what %s spent can't be noted: %s", storage.url, folder, error)

    keeping = threading.Thread(target=keep, name="storage", daemon=True)
    keeping.start()
    try:
        yield sent
    finally:
        over.set()
        keeping.join()


def _patiently(storage: Storage, do: Callable[[], T]) -> T:
    """What `do` returns, which reads or writes a storage that may be away for a while. Raises GenbenchError where it stays away."""
    for pause in PAUSES:
        try:
            with storage.reached():
                return do()
        except GenbenchError as error:
            _log.warning("%s; again in %g s", error, pause)
            time.sleep(pause)
    with storage.reached():
        return do()


def remove_finished(root: Path, storage: Storage) -> None:
    """Remove what this node was left with of runs that went on elsewhere after their worker was killed here, once they have a record."""
    for folder in root.glob("runs/*/*/*"):
        with contextlib.suppress(BusyError), lease.held(folder):
            if storage.has_record(folder.relative_to(root)):
                shutil.rmtree(folder, ignore_errors=True)


# ---- that a run has begun --------------------------------------------------------------------------------------------------


def _telling(job: str, planned: Planned) -> Callable[[Event], None]:
    """A listener that tells the driver of the first event; what a run says beside stays on its node."""
    from ray.experimental import internal_kv

    told = False

    def heard(event: Event) -> None:
        nonlocal told
        if not told:
            told = True
            with contextlib.suppress(Exception):  # it costs a line of a table, no run
                internal_kv._internal_kv_put(f"{job}/{planned.spec.folder.as_posix()}", socket.gethostname(), namespace=BEGUN)

    return heard


def begun(job: str) -> dict[str, str]:
    """Runs of a Ray job that have begun since this was asked last: folder, relative to a results folder -> host."""
    from ray.experimental import internal_kv

    found = {}
    with contextlib.suppress(Exception):  # as above
        for key in internal_kv._internal_kv_list(f"{job}/", namespace=BEGUN):
            host = internal_kv._internal_kv_get(key, namespace=BEGUN)
            internal_kv._internal_kv_del(key, namespace=BEGUN)
            found[key.decode().partition("/")[2]] = (host or b"").decode()
    return found
