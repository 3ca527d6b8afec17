"""Runs each stage of a run in a child process and owns its clock, deadline and fate."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from genbench import child
from genbench.deathsig import adopt_orphans, children, end_orphans
from genbench.jobs import Check, Job, Stage

POLL = 0.1
TERM_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
STAGE_LIMIT = 1800.0
"""Seconds a stage may go on without a word while its training clock stands still (data, sampling, scoring)."""
LOG_LINES = 20
MESSAGE_LIMIT = 16 << 20
LOG_LIMIT = 16 << 20
"""Bytes of a stage's log; a longer one loses its beginning."""
LOG_KEPT = 64 << 10
_STARTING = threading.Lock()
"""Starting a child hides the caller's ``__main__`` for a moment: one thread at a time."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: ``done`` with its result, or ``timeout | oom | error | interrupted`` with the reason."""

    status: str
    reason: str = ""
    result: dict[str, Any] | None = None
    log_tail: tuple[str, ...] = ()
    trained: float = 0.0
    """Seconds of training by our clock, those of earlier attempts as the child told them: no plugin can reach it."""
    crashed: bool = False
    """The process, or that of one of several devices, was killed by a signal, and not by us: it may do better another time."""


class Supervisor:
    """Starts children from a fork server that has imported torch; falls back to plain spawn where there is none.

    Several threads may run stages at once. `interrupt`, from any thread, ends them all as Ctrl-C does.
    """

    def __init__(self) -> None:
        self._interrupted, self._killed = threading.Event(), threading.Event()
        adopt_orphans()
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload(["genbench.preload"])

    def warm_up(self) -> None:
        """Start the fork server now, so that its import of torch overlaps other work."""
        with contextlib.suppress(Exception):
            from multiprocessing import forkserver

            forkserver.ensure_running()

    def interrupt(self, kill: bool = False) -> None:
        """Let the stages that are running save what they have and end; `kill`: end them now."""
        self._interrupted.set()
        if kill:
            self._killed.set()

    def run(
        self,
        stage: Stage,
        job: Job | Check,
        *,
        limit: float | None,
        on_message: Callable[[dict[str, Any]], None] = lambda message: None,
    ) -> Outcome:
        """Run one stage to its end. `limit`: seconds of training, earlier attempts' included, after which it is killed, by our clock."""
        job.attempt.mkdir(parents=True, exist_ok=True)
        log = job.attempt / f"{stage}.log"
        receiver, sender = self._context.Pipe(duplex=False)
        told = (stage, job.model_dump_json(), sender, str(log), dict(os.environ))
        known = children()
        process = self._context.Process(target=child.main, args=told, daemon=True)  # type: ignore[attr-defined]
        with _STARTING, _plain_main():
            process.start()
        sender.close()
        try:
            outcome = _follow(process, receiver, limit, on_message, log, self._interrupted)
        except KeyboardInterrupt:
            _end(process, TERM_GRACE, self._killed)
            return Outcome("interrupted", "interrupted by the user", log_tail=_tail(log))
        finally:
            _end(process, 0.0)
            receiver.close()
            end_orphans(known)
        return outcome if outcome.status == "done" else replace(outcome, log_tail=_tail(log))


def _follow(
    process: Any, receiver: Connection, limit: float | None, on_message: Callable[[dict[str, Any]], None], log: Path,
    interrupted: threading.Event,
) -> Outcome:  # fmt: skip
    """Read messages until the result, the child's death or a deadline; keep the log small."""
    trained, resumed, heard = 0.0, None, time.monotonic()
    while True:
        _cut(log)
        if interrupted.is_set():
            raise KeyboardInterrupt
        if receiver.poll(POLL):
            try:
                message = json.loads(receiver.recv_bytes(MESSAGE_LIMIT))
            except (EOFError, OSError, ValueError):
                process.join(1.0)
                return _death(process.exitcode)
            heard = time.monotonic()
            match message:
                case {"kind": "started", "spent": float(spent)}:
                    trained = spent
                case {"kind": "resume"}:
                    resumed = heard
                case {"kind": "pause"}:
                    trained, resumed = trained + (heard - resumed if resumed is not None else 0.0), None
                case {"kind": "result", "value": dict(value)}:
                    return Outcome("done", result=value, trained=trained)
                case {"kind": "failed", "status": "oom" | "error" as status, "reason": str(reason)}:
                    return Outcome(status, reason, crashed=message.get("crashed") is True)
                case {"kind": "tick"} if _whole(message):
                    on_message(message)
                case _:
                    return Outcome("error", "something that no stage says came through its channel")
        elif not process.is_alive() and not receiver.poll(0):
            return _death(process.exitcode)
        now = time.monotonic()
        clock = trained + (now - resumed if resumed is not None else 0.0)
        if limit is not None and resumed is not None and clock > limit:
            return Outcome("timeout", f"still training {clock:.0f} s after its clock started; budget and grace are {limit:.0f} s")
        if now - heard > STAGE_LIMIT:
            return Outcome("timeout", f"gave no sign for {STAGE_LIMIT:.0f} s")


def _whole(tick: dict[str, Any]) -> bool:
    """Whether a tick says all that listeners read in it, in numbers: a plugin can write into the channel, too."""
    numbers = [tick.get(name) for name in ("progress", "seconds", "steps", "images", "rate")]
    losses = tick.get("losses")
    return isinstance(losses, dict) and all(isinstance(number, (int, float)) for number in (*numbers, *losses.values()))


def _end(process: Any, grace: float, at_once: threading.Event | None = None) -> None:
    """SIGTERM, `grace` seconds (unless `at_once` is set meanwhile), then SIGKILL to the child's whole process group."""
    if process.pid is None:
        return
    if grace and process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while process.is_alive() and time.monotonic() < deadline and not (at_once and at_once.is_set()):
            process.join(0.1)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join(TERM_GRACE)


def _death(exitcode: int | None) -> Outcome:
    if exitcode is None:
        return Outcome("error", "closed its channel without a result")
    if exitcode < 0:
        name = signal.Signals(-exitcode).name if -exitcode in signal.valid_signals() else str(-exitcode)
        return Outcome("error", f"the process was killed by {name}", crashed=True)
    return Outcome("error", f"the process ended with exit code {exitcode} and no result")


def _cut(log: Path) -> None:
    """Empty a log that has grown beyond `LOG_LIMIT`, but for its end; the child goes on appending."""
    with contextlib.suppress(OSError):
        if log.stat().st_size <= LOG_LIMIT:
            return
        with open(log, "r+b") as file:
            file.seek(-LOG_KEPT, os.SEEK_END)
            end = file.read(LOG_KEPT)
            file.truncate(0)
        with open(log, "ab") as file:
            file.write(b"[the log was longer than the limit and was cut here]\n" + end)


def _tail(log: Path) -> tuple[str, ...]:
    """The last lines of a log, printable characters only."""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
        lines = file.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]
        return tuple("".join(c for c in line if c.isprintable())[:300] for line in lines)
    return ()


@contextlib.contextmanager
def _plain_main() -> Iterator[None]:
    """Children need nothing of the caller's ``__main__``: without this they would import it again."""
    import sys

    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    try:
        main.__spec__ = None
        if "__file__" in hidden:
            del main.__file__
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
