"""What a task of a sweep does on the node that Ray gives it to: say what is there, or do one run through the supervisor."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from genbench import machine
from genbench import run as runs
from genbench.errors import GenbenchError
from genbench.jobs import Checked
from genbench.lease import BusyError
from genbench.records import Store
from genbench.run import Event, Place, Planned
from genbench.supervisor import Supervisor
from genbench.sweep.cell import Cell, Run, attempt
from genbench.sweep.preflight import Found, Ticket, agree, at_home, examine
from genbench.sweep.storage import Storage


@dataclass(frozen=True)
class Answer:
    """What a task says of its run: the record, or why there is none."""

    record: str = ""
    """As JSON."""
    busy: bool = False
    """Another process works on it."""
    saved: int = 0
    """Steps that are saved of a run that was interrupted."""


def examine_apart(ticket: Ticket) -> Found:
    """`examine` in a worker of its own, which Ray hides the GPUs from."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return examine(ticket)


def work(planned: Planned, told: tuple[Ticket, Mapping[str, Checked], Run]) -> Answer:
    """One run, in a Ray worker. Executed twice it is done once. Raises GenbenchError where this node differs from those that were asked."""
    import ray

    ticket, known, run = told
    context = ray.get_runtime_context()
    here = context.get_node_id()
    checked = known.get(here)
    if checked is None:  # a node that joined later
        found, (first, reference) = examine(replace(ticket, probe="")), next(iter(known.items()))
        agree({first[:8]: Found(ticket.facts, (reference,)), here[:8]: found}, ticket)
        checked = found.checked[0]
    if checked.device.startswith("cuda"):
        checked = checked.model_copy(update={"device": "cuda:0"})  # the first that Ray lets this worker see
    place = Place(Store(ticket.root), checked, ticket.threads, ticket.weights, int(runs.MEMORY * machine.free_bytes()), ticket.devices)
    with at_home(ticket.folder):
        return _attempted(Cell(planned, place), ticket, run)


def _attempted(cell: Cell, ticket: Ticket, run: Run) -> Answer:
    folder, root = cell.planned.spec.folder, ticket.root
    storage = Storage(ticket.storage) if ticket.storage else None
    if storage is not None:
        if storage.has_record(folder):
            storage.fetch(folder, root)
        else:
            storage.restore(folder, root)
    try:
        record = attempt(cell, Supervisor(), _ignore, run)
    except BusyError:
        return Answer(busy=True)
    except GenbenchError as error:
        raise GenbenchError(f"node {socket.gethostname()}: {error}") from None
    saved = 0 if record else runs.saved_steps(root / folder)
    if storage is not None:
        if record is None:
            storage.save(folder, root)
        else:
            storage.commit(folder, root)
        shutil.rmtree(root / folder, ignore_errors=True)
    return Answer(saved=saved) if record is None else Answer(record.model_dump_json(indent=1) + "\n")


def _ignore(event: Event) -> None:
    """A run's events stay on its node."""
