"""How processes end: with their parent, or they come to us and are ended (Linux; elsewhere neither), and who hears that it is asked to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_ASKED = (signal.SIGTERM, signal.SIGHUP)


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent goes.

    `parent` is the process id that started this one: where it is gone already, this process ends at once.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def hear_nothing() -> None:
    """Keep SIGTERM and SIGHUP from this process and what it forks: whoever ends a whole process group means its first process.

    Called before there are threads, which would hear them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)


def hear_again() -> None:
    """Let them through in a process forked from such a one; what came meanwhile comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent goes: none escapes by a session of its own."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def children() -> set[int]:
    """Process ids of this process's own children, started by any of its threads."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError, ValueError):
            found.update(map(int, thread.read_text().split()))
    return found


def end_orphans(known: set[int]) -> int:
    """Kill and reap the children that came to us from sessions of others, but for those `known` -> how many there were.

    Called until none is left: the end of one may bring its own children.
    """
    ended = 0
    for _ in range(100):
        strays = [pid for pid in children() - known if _session(pid) not in (None, os.getsid(0))]
        if not strays:
            break
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            ended += 1
    return ended


def _session(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return None
