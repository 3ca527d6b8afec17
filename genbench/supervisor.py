"""Runs each stage of a run in a child process and owns its clock, deadline and fate."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genbench import child
from genbench.deathsig import adopt_orphans, children, end_orphans
from genbench.inbox import Inbox, flaw, is_tick, printable
from genbench.jobs import Check, Job, Stage

POLL = 0.1
SAVE_GRACE = 60.0
"""Seconds that an interrupted training has to end its step, or a point of its curve, and to save itself."""
DYING = 5.0
"""Seconds in which a process is gone that was killed, or asked to end where there is nothing to save."""
STAGE_LIMIT = 1800.0
"""Seconds a stage may go on without a word: sampling and scoring say after each part that they get on."""
AWAY = 1.0
"""Seconds between two looks at a channel from which on we were away: stopped by Ctrl-Z, or held up by a disk."""
CATCH_UP = 5.0
"""Seconds, once back, in which no deadline counts before everything that waits is read."""
SERVER_GONE = 255
"""What multiprocessing makes of the exit code of a child whose fork server, and with it the child, was killed."""
LOG_LINES = 20
LOG_LIMIT = 16 << 20
"""Bytes of a stage's log; a longer one loses its beginning."""
LOG_KEPT = 64 << 10
ALIVE: dict[str, Any] = {"kind": "alive"}
"""What a listener hears of a stage that only says that it gets on."""
_FOREIGN = "something that no stage says came through its channel"
_STARTING = threading.Lock()
"""Starting a child hides the caller's ``__main__`` for a moment: one thread at a time."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: ``done`` with its result, or ``timeout | oom | error | interrupted | changed`` with the reason.

    ``changed``: the plugin's source is no longer the one that the run was planned with.
    """

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
        inbox = Inbox(receiver)
        try:
            outcome = _follow(process, inbox, stage, limit, on_message, log, self._interrupted)
        except KeyboardInterrupt:
            _let_end(process, inbox, SAVE_GRACE if stage == "train" else DYING, self._killed)
            return Outcome("interrupted", "interrupted by the user", log_tail=_tail(log))
        finally:
            _kill(process)
            receiver.close()
            end_orphans(known)
        return outcome if outcome.status == "done" else replace(outcome, log_tail=_tail(log))


def _follow(
    process: Any, inbox: Inbox, stage: Stage, limit: float | None, on_message: Callable[[dict[str, Any]], None], log: Path,
    interrupted: threading.Event,
) -> Outcome:  # fmt: skip
    """Read messages until the result, the child's death or a deadline; keep the log small.

    What waits when we come back from being away came at some time meanwhile: of that the run is charged as little as may be.
    """
    trained, resumed, away = 0.0, None, None
    heard = back = now = time.monotonic()
    while True:
        _cut(log)
        if interrupted.is_set():
            raise KeyboardInterrupt
        try:
            message = inbox.take(POLL)
            now, before = time.monotonic(), now
            if now - before > AWAY:
                away, back = (before, now) if away is None else (away, back)
                heard = now  # the child may have stood still as we did
                message = inbox.take(0) if message is None else message
        except EOFError:
            process.join(DYING)
            return _death(process.exitcode)
        except ValueError:
            return Outcome("error", _FOREIGN)
        if message is None or now - back > CATCH_UP:
            away = None
        if message is not None:
            heard = now
        elif not process.is_alive() and not inbox.waiting:
            return _death(process.exitcode)
        match message:
            case None:
                pass
            case {"kind": "alive"}:
                on_message(ALIVE)
            case {"kind": "started", "spent": float(spent)} if 0 <= spent < math.inf:
                trained = spent
            case {"kind": "resume"}:
                resumed = now if resumed is None else resumed
            case {"kind": "pause"}:
                trained += 0.0 if resumed is None else max(0.0, (now if away is None else away) - resumed)
                resumed = None
            case {"kind": "result", "value": dict(value)}:
                if wrong := flaw(stage, value):
                    return Outcome("error", f"what came through its channel as its result is none: {wrong}")
                return Outcome("done", result=value, trained=trained)
            case {"kind": "failed", "status": "oom" | "error" | "changed" as status, "reason": str(reason)}:
                return Outcome(status, printable(reason, 1000), crashed=message.get("crashed") is True)
            case {"kind": "tick"} if is_tick(message):
                on_message(message)
            case _:
                return Outcome("error", _FOREIGN)
        if away is not None:
            continue
        clock = trained + (now - resumed if resumed is not None else 0.0)
        if limit is not None and resumed is not None and clock > limit:
            return Outcome("timeout", f"still training {clock:.0f} s after its clock started; budget and grace are {limit:.0f} s")
        if now - heard > STAGE_LIMIT:
            return Outcome("timeout", f"gave no sign for {STAGE_LIMIT:.0f} s")


def _let_end(process: Any, inbox: Inbox, grace: float, at_once: threading.Event) -> None:
    """SIGTERM, and `grace` seconds, unless `at_once` is set meanwhile. What is said in them is dropped: a full channel would block."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while process.is_alive() and time.monotonic() < deadline and not at_once.is_set():
        if not inbox.drop(POLL):
            process.join(POLL)


def _kill(process: Any) -> None:
    """SIGKILL to the child's whole process group."""
    if process.pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join(DYING)


def _death(exitcode: int | None) -> Outcome:
    if exitcode is None:
        return Outcome("error", "closed its channel without a result")
    if exitcode == SERVER_GONE:
        return Outcome("error", f"the process ended with exit code {exitcode}, or its fork server was killed", crashed=True)
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
        return tuple(printable(line, 300) for line in lines)
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
