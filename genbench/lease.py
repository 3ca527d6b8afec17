"""Who works on a run: one process at a time, on one machine or several that share a results folder. Imports no torch.

A lease is a small file that its holder touches every few seconds. A holder that died, with its machine or without, stops touching it;
then another may take the run over. Should two ever believe they hold one, the first record committed wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BEAT = 5.0
"""Seconds between two touches."""
STALE = 30.0
"""Seconds without a touch after which a lease counts as abandoned."""
NAME = "lease"


class BusyError(Exception):
    """Another process works on this run."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lease of a run's folder within the block. Raises BusyError where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path, token = folder / NAME, uuid.uuid4().hex
    if not _create(path, token) and not (_abandoned(path) and _create(path, token)):
        raise BusyError(folder.name)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, token, over), name="lease", daemon=True)
    beating.start()
    try:
        yield
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


def _create(path: Path, token: str) -> bool:
    """Write the lease where there is none: creation is atomic, on network file systems too."""
    content = json.dumps({"token": token, "host": socket.gethostname(), "pid": os.getpid()}).encode()
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
    """Not touched for long, or its process is known to be gone."""
    try:
        age = _now(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if age > STALE:
        return True
    pid = holder.get("pid")
    return holder.get("host") == socket.gethostname() and isinstance(pid, int) and not _alive(pid)


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
    with contextlib.suppress(OSError, ValueError):
        said = json.loads(path.read_bytes())
        return said if isinstance(said, dict) else {}
    return {}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _ended(pid)


def _ended(pid: int) -> bool:
    """Whether nothing is left of a process but that its parent has not asked for its end (Linux; elsewhere nobody can tell)."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    return False


def _beat(path: Path, token: str, over: threading.Event) -> None:
    while not over.wait(BEAT):
        if _holder(path).get("token") == token:
            with contextlib.suppress(OSError):
                os.utime(path)
