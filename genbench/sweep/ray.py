"""Runs of a sweep as tasks of a Ray cluster: a task a run, with the CPUs and the GPU it needs. Where and when is Ray's to decide.

Retries are ours, counted and capped; Ray's own are off. A run happens through the same supervisor as elsewhere, in a child of Ray's worker.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from genbench import lease
from genbench import run as runs
from genbench.errors import GenbenchError
from genbench.inventory import ModelDescription
from genbench.lease import BusyError
from genbench.modelfile import is_file, split_file
from genbench.records import RunRecord, Store, write_once
from genbench.run import Place
from genbench.states import saved_steps
from genbench.sweep.cell import Cell, OnEvent, OnRecord, Run, Wishes
from genbench.sweep.cluster import Cluster
from genbench.sweep.node import Answer, begun, work
from genbench.sweep.preflight import Ticket, agree, facts
from genbench.sweep.storage import Storage
from genbench.sweep.waiting import Losses, Queue, lost
from genbench.track import Track

_log = logging.getLogger(__name__)
AHEAD = 1000
"""Tasks that Ray is given at a time: an autoscaler sees what is wanted, and Ctrl-C has no hundred thousand to take back."""
TICK = 0.5
"""Seconds between two looks at what has ended."""
LOOK = 2.0
"""Seconds between two looks at what has begun."""
PROBE = 2**20
"""Bytes that are written to see whether a folder can be."""


@dataclass(frozen=True)
class Open:
    """What is to come of a sweep, what was lost of it, and which nodes take none of it."""

    queue: Queue
    losses: Losses
    refused: dict[str, str]
    """Ray's id of a node -> why."""


@contextmanager
def connected(wishes: Wishes, run: Run = runs.run) -> Iterator[RayExecutor]:
    """An executor on the cluster asked for, within the block. Raises GenbenchError where there is no Ray or no cluster."""
    try:
        import ray
    except ImportError:
        raise GenbenchError("executor 'ray' needs Ray: pip install genbench[ray]") from None
    if "://" in wishes.address:
        raise GenbenchError(f"--address {wishes.address} is a Ray Client's; start the sweep on a machine of the cluster, with HOST:PORT")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray is going to do, without the warning that it will
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        # A cluster that is there has its dashboard as its owner wants; one that starts here has none.
        ray.init(
            address=wishes.address or None, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, namespace="genbench"
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        where = wishes.address or "of this machine"
        # Ray says nothing of it: to an address it sends its token only where it is told to
        unsaid = wishes.address and not os.environ.get("RAY_AUTH_MODE") and (Path.home() / ".ray" / "auth_token").is_file()
        hint = "; there is a token here: export RAY_AUTH_MODE=token, if the cluster asks for one" if unsaid else ""
        raise GenbenchError(f"Ray cluster {where} can't be reached: {str(error).strip().partition(chr(10))[0][:300]}{hint}") from None
    said = ray._private.worker
    try:
        if main:
            signal.signal(signal.SIGTERM, before)  # Ray's own would lose what is running
        said._worker_logs_enabled = False  # what it prints of lost workers we say ourselves, and never into JSON
        yield RayExecutor(ray, wishes, run)
    finally:
        said._worker_logs_enabled = True
        ray.shutdown()


class RayExecutor:
    """The nodes of a Ray cluster."""

    def __init__(self, ray: ModuleType, wishes: Wishes, run: Run = runs.run) -> None:
        self._ray: Any = ray
        self._wishes, self._run = wishes, run
        self._results = wishes.results.resolve()
        self._storage = Storage(wishes.storage) if wishes.storage else None
        self._cluster = Cluster(ray, wishes)
        self._tickets: dict[str, Any] = {}

    @property
    def slots(self) -> int:
        """Runs at once on the nodes that are there now."""
        return min(sum(node.runs for node in self._cluster.nodes), self._wishes.jobs or AHEAD)

    def places(self, tracks: Sequence[Track], models: Collection[ModelDescription]) -> list[Place]:
        """Ask every node that can take runs what it has; all must agree with each other and with this machine. Raises GenbenchError."""
        Store(self._results).prepare()
        files = tuple(str(split_file(model.source)[0]) for model in models if is_file(model.source))
        weights = self._wishes.weights
        ticket = Ticket(
            tracks=tuple(tracks), files=files, facts=facts(files), folder=os.getcwd(), results=str(self._results),
            storage=self._wishes.storage, probe=f".probe-{uuid.uuid4().hex}", device="cuda" if self._cluster.gpus else "cpu",
            threads=self._cluster.threads, weights=weights.resolve() if weights else None, devices=self._wishes.devices,
        )  # fmt: skip
        found = self._cluster.ask(ticket)
        agree({node.name: told for node, told in found.items()}, ticket)
        places = []
        for index, track in enumerate(tracks):
            checked = {node.id: told.checked[index] for node, told in found.items()}
            place = Place(Store(self._results), next(iter(checked.values())), ticket.threads, ticket.weights, devices=ticket.devices)
            self._tickets[track.name] = self._ray.put((replace(ticket, tracks=(track,)), checked, self._run))
            places.append(place)
        return places

    def gather(self, cells: Sequence[Cell]) -> None:
        """Bring what the storage has of these runs into the results folder."""
        if self._storage is None:
            return
        with self._storage.reached():
            there = self._storage.finished({cell.planned.spec.track.name: cell.planned.spec.track for cell in cells}.values())
            for cell in cells:
                if cell.planned.spec.folder in there and not (cell.folder / "record.json").exists():
                    self._storage.fetch(cell.planned.spec.folder, self._results)

    def reopen(self, cell: Cell) -> None:
        """Set the record of a failed run aside, on the storage first."""
        if self._storage is not None:
            with self._storage.reached():
                self._storage.set_aside(cell.planned.spec.folder)
        runs.retry(cell.planned, cell.place.store)

    def execute(self, cells: Sequence[Cell], on_event: OnEvent, on_record: OnRecord) -> None:
        """Run every cell to its record. Ctrl-C lets the nodes save what is running and raises KeyboardInterrupt; a second one kills."""
        task = self._ray.remote(max_retries=0, retry_exceptions=False, **self._cluster.needs)(work)
        ahead = min(AHEAD, self._wishes.jobs or AHEAD)
        left = Open(Queue(cells), Losses(self._saved_steps), {})
        running: dict[Any, Cell] = {}
        looked = time.monotonic()
        try:
            while left.queue or running:
                while len(running) < ahead and (next_one := left.queue.pop()) is not None:
                    record = next_one.record
                    if record is None and lease.busy(next_one.folder):
                        left.queue.later(next_one)
                    elif record is not None:
                        on_record(next_one, record)
                    elif left.losses.is_up(next_one):
                        self._give_up(next_one, left, on_record)
                    else:
                        left.losses.begun(next_one)
                        running[self._hand_over(task, next_one, left.refused)] = next_one
                if time.monotonic() >= looked + LOOK:
                    looked = time.monotonic()
                    self._tell_begun(running.values(), on_event)
                if running:
                    ended = self._ray.wait(list(running), num_returns=len(running), timeout=TICK)[0]
                    for ref in ended:
                        cell = running.pop(ref)
                        record = self._settle(cell, ref, left, on_event)
                        if record is not None:
                            on_record(cell, record)
                elif left.queue:
                    time.sleep(TICK)
        except BaseException:
            self._interrupt(list(running))
            raise

    def _hand_over(self, task: Any, cell: Cell, refused: Mapping[str, str]) -> Any:
        """Give Ray the task of a cell, for any node but those that refused -> what it will answer. Raises GenbenchError where all did."""
        if refused:
            if self._cluster.all_refused(refused):
                raise GenbenchError(f"no node is left that takes these runs: {'; '.join(refused.values())}")
            task = task.options(label_selector={"ray.io/node-id": f"!in({', '.join(refused)})"})
        return task.remote(cell.planned, self._tickets[cell.planned.spec.track.name])

    def _tell_begun(self, running: Collection[Cell], on_event: OnEvent) -> None:
        found = begun(self._ray.get_runtime_context().get_job_id())
        for cell in running if found else ():
            host = found.get(cell.planned.spec.folder.as_posix())
            if host is not None:
                on_event(cell, {"kind": "begun", "host": host})

    def _saved_steps(self, cell: Cell) -> int:
        """Of a run that has no record, as far as it can be seen from here."""
        if self._storage is None:
            return saved_steps(cell.folder)
        try:
            return self._storage.saved_steps(cell.planned.spec.folder)
        except Exception as error:  # each protocol has its own
            _log.warning("storage %s: %s can't be listed: %s", self._storage.url, cell.planned.spec.folder, error)
            return 0

    def _settle(self, cell: Cell, ref: Any, left: Open, on_event: OnEvent) -> RunRecord | None:
        """The record that a task leaves; None where there is none and the cell is in the queue again, or can go on only elsewhere."""
        try:
            answer: Answer = self._ray.get(ref)
        except self._ray.exceptions.TaskCancelledError:
            raise KeyboardInterrupt from None
        except self._ray.exceptions.RayError as error:
            status, reason = lost(error, lease.holder(cell.folder))
            left.losses.count(cell, status, reason)
        else:
            if answer.record:
                return self._brought(cell, answer)
            if answer.elsewhere:
                on_event(cell, {"kind": "elsewhere", "reason": answer.elsewhere})
                return None
            if answer.refused:
                self._keep_away(answer, left.refused)
                left.queue.again(cell)
                return None
            if answer.busy:
                left.queue.later(cell)
                return None
            reason = "it was interrupted on its node"
            left.losses.count(cell, "error", reason, answer.saved)
        if not left.losses.is_up(cell):
            on_event(cell, {"kind": "crash", "stage": "train", "reason": reason})
        left.queue.again(cell)
        return None

    def _keep_away(self, answer: Answer, refused: dict[str, str]) -> None:
        """Give a node that refused no more runs. Raises GenbenchError where the fault is the shared folder's, or storage's."""
        if answer.node in refused:
            return
        if not (can_write(self._results) if self._storage is None else self._storage.can_write()):
            raise GenbenchError(answer.refused)
        refused[answer.node] = answer.refused
        _log.warning("%s. It gets no more runs of this sweep; the others go on", answer.refused)

    def _brought(self, cell: Cell, answer: Answer) -> RunRecord:
        """The record that counts, in the results folder: what the node says, or on a storage what was there first."""
        if self._storage is not None:
            try:
                with self._storage.reached():
                    self._storage.fetch(cell.planned.spec.folder, self._results)
            except GenbenchError as error:  # its record is here all the same, and nothing is lost: the rest is there
                _log.warning("%s: %s is not fetched", error, cell.planned.spec.folder)
            write_once(cell.folder / "record.json", answer.record.encode())
            return cell.record or RunRecord.model_validate_json(answer.record)
        return RunRecord.model_validate_json(answer.record)

    def _give_up(self, cell: Cell, left: Open, on_record: OnRecord) -> None:
        """Write the record of a run that has lost too many workers, unless one of them lives, out of Ray's sight."""
        try:
            with lease.held(cell.folder):
                self._bring_spent(cell)
                record = cell.record or runs.give_up(cell.planned, cell.place, *left.losses.verdict(cell))
        except BusyError:
            left.queue.later(cell)
            return
        on_record(cell, self._agreed(cell, record))

    def _bring_spent(self, cell: Cell) -> None:
        """Bring what the storage has of a run that is given up: what it spent, or the record that a lost worker still put there."""
        if self._storage is None:
            return
        try:
            with self._storage.reached():
                self._storage.restore(cell.planned.spec.folder, self._results)
                self._storage.fetch(cell.planned.spec.folder, self._results)
        except GenbenchError as error:
            _log.warning("%s: %s is not fetched", error, cell.planned.spec.folder)

    def _agreed(self, cell: Cell, record: RunRecord) -> RunRecord:
        """Put the record of a run that is given up on the storage -> the one that counts: a lost worker may have been there first."""
        if self._storage is None:
            return record
        run = cell.planned.spec.folder
        try:
            with self._storage.reached():
                self._storage.commit(run, self._results)
                there = self._storage.record(run)
                if there is not None and there != (cell.folder / "record.json").read_bytes():
                    (cell.folder / "record.json").unlink()
                    self._storage.fetch(run, self._results)
        except GenbenchError as error:
            _log.warning("%s: the record of %s is here alone", error, run)
        return cell.record or record

    def _interrupt(self, running: list[Any]) -> None:
        """Let tasks save what they have and wait for them; at another Ctrl-C kill them."""
        force = False
        while running:
            try:
                for ref in running:
                    self._ray.cancel(ref, force=force, recursive=False)
                while running:
                    running = self._ray.wait(running, num_returns=len(running), timeout=TICK)[1]
            except KeyboardInterrupt:
                if force:
                    return
                force = True


def can_write(folder: Path) -> bool:
    """Whether a file of some size can be written in a folder from here."""
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        with open(probe, "wb") as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return True
