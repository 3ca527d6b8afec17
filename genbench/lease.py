"""Who works on a run: one process at a time, on one machine or several that share a results folder. Imports no torch.

A lease is a small file that its holder touches every few seconds. A holder that died, with its machine or without, stops touching it;
then another may take the run over. A holder that was only stopped finds out when it goes on, and leaves the run alone. Should two ever
believe they hold one, the first record committed wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BEAT = 5.0
"""Seconds between two touches."""
STALE = 30.0
"""Seconds without a touch after which a lease counts as abandoned, unless its process is seen to live."""
AGAIN = 0.2
"""Seconds after which a lease that is gone is looked for again: who moved it by mistake puts it back."""
NAME = "lease"


class BusyError(Exception):
    """Another process works on this run."""


@contextmanager
def held(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the lease of a run's folder within the block, which gets a function that confirms it.

    Raises BusyError where another process holds it; so does that function, once this process was stopped for so long that it lost it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, token = folder / NAME, uuid.uuid4().hex
    if not _create(path, token) and not (_abandoned(path) and _create(path, token)):
        raise BusyError(folder.name)
    over, lost = threading.Event(), threading.Event()

    def confirm() -> None:
        if lost.is_set() or _lost(path, token):
            lost.set()
            raise BusyError(folder.name)

    beating = threading.Thread(target=_beat, args=(path, token, over, lost), name="lease", daemon=True)
    beating.start()
    try:
        yield confirm
    finally:
        over.set()
        beating.join()
        if _holder(path).get("token") == token:
            path.unlink(missing_ok=True)


def busy(folder: Path) -> bool:
    """Whether some process holds the lease now."""
    path = folder / NAME
    return path.exists() and not _stale(path, _holder(path))


def holder(folder: Path) -> str:
    """The machine of the process that holds the lease or left it behind; empty where there is none."""
    return str(_holder(folder / NAME).get("host", ""))


def process_space() -> dict[str, str]:
    """Where one process id is one process: the host's name, its boot and the PID namespace; empty what the system doesn't tell."""
    boot = pids = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        pids = os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "boot": boot, "pids": pids}


def process(pid: int) -> tuple[str, str]:
    """A process id -> its state in one letter, and when it began in the kernel's own count: another process has another.

    Both are empty where the process is gone or the system doesn't tell.
    """
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), fields[19].decode()
    return "", ""


def _create(path: Path, token: str) -> bool:
    """Write the lease where there is none: creation is atomic, on network file systems too."""
    pid = os.getpid()
    content = json.dumps({"token": token, "pid": pid, "started": process(pid)[1], **process_space()}).encode()
    with contextlib.suppress(FileExistsError):
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            os.write(file, content)
        finally:
            os.close(file)
        return True
    return False


def _abandoned(path: Path) -> bool:
    """Whether the lease was stale and is out of the way now. Of several processes that find it stale, one moves it."""
    holder = _holder(path)
    if not _stale(path, holder):
        return False
    aside = path.with_name(f".{NAME}-{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    taken = _holder(aside)
    if taken != holder:  # somebody took it over in between: give it back, unless it is gone by now anyway
        with contextlib.suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)
    return taken == holder


def _stale(path: Path, holder: dict[str, object]) -> bool:
    """Its process is known to be gone; or, where nobody here can know, it was not touched for long."""
    lives = _lives(holder)
    if lives is not None:
        return not lives
    try:
        age = _now(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return True
    return abs(age) > STALE  # a time to come is no touch either: the clock was put back, or the folder is a copy


def _now(folder: Path) -> float:
    """The time by the clock of the folder's file system, which need not be ours."""
    probe = folder / f".now-{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _holder(path: Path) -> dict[str, object]:
    """What the lease says of its holder; nothing where there is none or it is just being written."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        said = json.loads(path.read_bytes())
        return said if isinstance(said, dict) else {}
    return {}


def _lives(holder: dict[str, object]) -> bool | None:
    """Whether the process that a lease names is there, stopped or not.

    None where that can't be seen from here: on another host, after another boot, in another PID namespace, as containers have.
    """
    pid = holder.get("pid")
    if not isinstance(pid, int) or any(holder.get(name) != value for name, value in process_space().items()):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state, started = process(pid)
    if state in ("Z", "X"):  # nothing is left of it but that its parent has not asked for its end
        return False
    return started == holder.get("started") if started else None


def _lost(path: Path, token: str) -> bool:
    """Whether the lease with this token is another's by now, or gone; not where it can't be read at the moment."""
    for pause in (AGAIN, 0.0):
        try:
            said = json.loads(path.read_bytes())
            return not isinstance(said, dict) or said.get("token") != token
        except FileNotFoundError:
            time.sleep(pause)
        except (OSError, ValueError, RecursionError):  # a file system that is away for a while, or a lease that is just being written
            return False
    return True


def _beat(path: Path, token: str, over: threading.Event, lost: threading.Event) -> None:
    while not over.wait(BEAT):
        if lost.is_set() or _lost(path, token):
            lost.set()
            return
        with contextlib.suppress(OSError):
            os.utime(path)
