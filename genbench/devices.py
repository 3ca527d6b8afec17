"""One run over several devices: the name of their class, who gets which part of a batch, and a process, a rank, for each.

The supervised child is the first rank. It forks the others before anything computes, so that all of them stand in its session: a deadline,
a kill or the supervisor's end takes every one. What a rank fails with reaches the supervisor through the first. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, Protocol

from genbench.deathsig import die_with_parent
from genbench.errors import GenbenchError

COLLECT = 0.5
"""Seconds in which, after the first word of a failure, others may come: the one that began it is told."""
FAREWELL = 30.0
"""Seconds that the other ranks may take to end after the first has its result."""
_SEVERAL = re.compile(r"([1-9]\d*)x (.+)")


class Channel(Protocol):
    """How a stage speaks: ``send("tick", progress=0.5)``."""

    def send(self, kind: str, **content: Any) -> None:
        """One message of JSON values."""


@dataclass(frozen=True)
class Rank:
    """One of the processes of a run: its `number` from 0, `of` how many, and the port of this machine where they meet."""

    number: int = 0
    of: int = 1
    port: int = 0


ALONE = Rank()


def class_of(one: str, devices: int) -> str:
    """Class of one device -> of so many: ``cpu-1`` is ``2x cpu-1``. Time budgets compare inside one class only."""
    return one if devices == 1 else f"{devices}x {one}"


def apart(device_class: str) -> tuple[int, str]:
    """A class -> how many devices it stands for, and of which class each is: ``2x cpu-1`` is 2 and ``cpu-1``."""
    several = _SEVERAL.fullmatch(device_class)
    return (int(several[1]), several[2]) if several else (1, device_class)


def device_of(first: str, number: int) -> str:
    """The run's first device, a rank's number -> the rank's device: ``cuda:2`` and 1 is ``cuda:3``."""
    kind, _, index = first.partition(":")
    return kind if kind == "cpu" else f"{kind}:{int(index or 0) + number}"


def threads_of(threads: int, devices: int) -> int:
    """CPU threads of a run -> of each of its ranks. Raises GenbenchError where they can't be shared out."""
    if threads % devices:
        fits = [str(n) for n in (threads - threads % devices, threads + devices - threads % devices) if n]
        raise GenbenchError(f"{threads} CPU threads can't be shared by {devices} devices; use --threads {' or '.join(fits)}")
    return threads // devices


def part_of(batch_size: int, devices: int, whose: str) -> int:
    """Images of a batch -> of each device's part. Raises GenbenchError where it has no equal parts; `whose` batch is in the message."""
    if batch_size % devices:
        nearest = max(1, round(batch_size / devices)) * devices
        raise GenbenchError(f"{whose} has batches of {batch_size} images, which {devices} devices can't share; {nearest} would do")
    return batch_size // devices


def start(devices: int, channel: Channel) -> tuple[Rank, Channel]:
    """Fork the ranks -> which one this process is from here on, and how it speaks. To be called before anything computes.

    Forking a process with several threads would hang it, so nothing but imports may have happened.
    """
    import lightning_fabric  # noqa: F401  once, for all ranks

    first = os.getpid()
    # The port stays ours, bound but not listened at, until all are there; the first rank's store may listen at it meanwhile.
    meeting = socket.socket()
    meeting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    meeting.bind(("127.0.0.1", 0))
    port = meeting.getsockname()[1]
    others: list[_Other] = []
    for number in range(1, devices):
        reads, writes = os.pipe()
        pid = os.fork()
        if not pid:
            die_with_parent(first)
            os.close(reads)
            for other in others:
                other.words.close()
            return Rank(number, devices, port), _Follower(writes)
        os.close(writes)
        others.append(_Other(number, pid, open(reads, "rb")))  # noqa: SIM115
    return Rank(0, devices, port), _First(channel, devices, others, meeting)


@dataclass(frozen=True)
class _Other:
    """A rank as the first one sees it."""

    number: int
    pid: int
    words: BinaryIO


class _Follower:
    """What a rank but the first has to say: that it has ended well, or with what it failed."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def send(self, kind: str, **content: Any) -> None:
        """Pass on an end; all else is the first rank's to tell."""
        if kind in ("result", "failed"):
            told = content if kind == "failed" else {}
            with contextlib.suppress(OSError):
                os.write(self._pipe, json.dumps({"kind": kind, "moment": time.monotonic(), **told}).encode() + b"\n")


class _First:
    """Speaks for the run. Watches the other ranks from threads, so that it hears of an end even while it waits for one that is gone."""

    def __init__(self, channel: Channel, devices: int, others: Sequence[_Other], meeting: socket.socket) -> None:
        self._channel, self._devices, self._meeting = channel, devices, meeting
        self._speaking, self._failing = threading.Lock(), threading.Lock()
        self._failures: list[Mapping[str, Any]] = []
        self._watches = [threading.Thread(target=self._watch, args=(other,), daemon=True) for other in others]
        for watch in self._watches:
            watch.start()

    def send(self, kind: str, **content: Any) -> None:
        """One message. A result waits until every rank has ended well; a failure is the one that happened first, and ends this process."""
        if kind == "failed":
            self._fail({**content, "moment": time.monotonic()})
        if kind == "result":
            deadline = time.monotonic() + FAREWELL
            for watch in self._watches:
                watch.join(max(0.0, deadline - time.monotonic()))
                if watch.is_alive():
                    self._fail({"status": "error", "reason": f"a device did not end within {FAREWELL:.0f} s of the first", "moment": 0.0})
        with self._speaking:
            self._channel.send(kind, **content)

    def _watch(self, other: _Other) -> None:
        who, ended_well = f"device {other.number + 1} of {self._devices}", False
        with other.words:
            for line in other.words:
                said = json.loads(line)
                ended_well = said["kind"] == "result"
                if not ended_well:
                    self._fail({**said, "reason": f"{said['reason']} (on {who})"})
        _, status = os.waitpid(other.pid, 0)
        if ended_well:
            return
        code = os.waitstatus_to_exitcode(status)
        if code < 0:  # nobody's loss but its own: it comes before what it caused
            name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
            self._fail({"status": "error", "reason": f"the process of {who} was killed by {name}", "crashed": True, "moment": 0.0})
        self._fail({"status": "error", "reason": f"the process of {who} ended with exit code {code} and no result", "moment": 0.0})

    def _fail(self, failure: Mapping[str, Any]) -> NoReturn:
        """Tell the earliest failure of those that come within a moment, and end; the other ranks end with this one."""
        self._failures.append(failure)
        with self._failing:  # whoever comes second waits here for the end
            time.sleep(COLLECT)
            told = dict(min(self._failures, key=lambda one: one["moment"]))
            del told["moment"]
            told.pop("kind", None)
            with self._speaking:
                self._channel.send("failed", **told)
                os._exit(0)
