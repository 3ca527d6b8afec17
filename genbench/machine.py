"""What this machine has: its processor, cores and memory, on Linux and elsewhere."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the kernel gives it, else the architecture."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def free_bytes() -> int:
    """Memory that can be taken without swapping; all there is where the kernel does not say."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limit_memory(allowance: int) -> None:
    """Let this process take `allowance` bytes more than it has now, and no more: beyond, allocations fail (Linux; elsewhere nothing).

    Counted is private writable memory, reserved or used, so the allowance must be generous; memory maps of data sets are not. Not for
    a process that uses CUDA, which reserves the memory of every device.
    """
    with contextlib.suppress(OSError, StopIteration, ValueError), open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        taken = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (taken + allowance, resource.RLIM_INFINITY))


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
