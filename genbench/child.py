"""The child process a stage runs in: its own session, log, threads and seeds. Talks to the supervisor in JSON lines, never pickle."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from pydantic import BaseModel

from genbench import deathsig, devices, machine, stages
from genbench.errors import ChangedError, GenbenchError
from genbench.jobs import Check, Job, Stage


class Channel:
    """The child's end of the pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, kind: str, **content: Any) -> None:
        """One JSON message. A parent that is gone is not an error here: the kernel ends this process.

        How a training gets on is not told while the channel is full: whoever waits for a parent that is stopped spends its budget.
        """
        if content.get("phase") == "train" and self._is_full():
            return
        try:
            self._connection.send_bytes(json.dumps({"kind": kind, **content}).encode())
        except OSError:
            os._exit(1)

    def _is_full(self) -> bool:
        channel = select.poll()
        channel.register(self._connection, select.POLLOUT)
        return not channel.poll(0)


def main(stage: Stage, job_json: str, connection: Connection, log: str, environment: dict[str, str]) -> None:
    """Entry point of the child: own session, own log, fixed threads and seeds; the outcome goes through the channel."""
    deathsig.die_with_parent()
    os.setsid()
    deathsig.hear_again()
    os.environ.clear()  # it came from the fork server, which may be older than the caller's
    os.environ.update(environment)
    _redirect(log)
    channel: devices.Channel = Channel(connection)
    try:
        result: BaseModel
        if stage == "check":
            result = stages.check(Check.model_validate_json(job_json), channel.send)
        else:
            job, rank = Job.model_validate_json(job_json), devices.ALONE
            if stage == "train" and job.devices > 1:
                rank, channel = devices.start(job.devices, channel)  # from here on several processes go the same way
                if rank.number:
                    connection.close()
            _settle_in(job, rank)
            if stage == "train":
                result = stages.train(job, channel.send, rank)
            else:
                result = {"sample": stages.sample, "score": stages.score}[stage](job, channel.send)
        channel.send("result", value=result.model_dump(mode="json"))
    except ChangedError as error:
        channel.send("failed", status="changed", reason=_first_line(error, 1000))
    except GenbenchError as error:
        channel.send("failed", status="error", reason=_first_line(error, 1000))
    except BaseException as error:  # a plugin may raise anything, SystemExit and KeyboardInterrupt included
        with contextlib.suppress(BaseException):
            traceback.print_exc()
        said = _first_line(error)
        kind = "".join(c for c in type(error).__name__[:100] if c.isprintable())
        channel.send("failed", status="oom" if _out_of_memory(error) else "error", reason=f"{kind}: {said}" if said else kind)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # no atexit, no __del__ and no thread of a plugin gets another turn


def _settle_in(job: Job, rank: devices.Rank) -> None:
    """Threads, seeds, determinism and GPU of this process: a child sees the fork server's, not the parent's.

    Ranks share threads and memory; each has a GPU of its own.
    """
    import numpy as np
    import torch

    if job.memory is not None and job.device == "cpu":
        machine.limit_memory(job.memory // rank.of)
    threads = max(1, job.threads // rank.of)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    random.seed(job.spec.seed)
    np.random.seed(job.spec.seed & 0xFFFFFFFF)
    torch.manual_seed(job.spec.seed)
    if job.device == "cpu":
        # what `use_deterministic_algorithms` does, without its second to import a compiler that few models use
        torch.set_deterministic_debug_mode("warn")
        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (36 µs per 4 MB; torch types it as a module)
    else:
        torch.cuda.set_device(torch.device(devices.device_of(job.device, rank.number)))  # what names no device means this one
        torch.backends.cudnn.benchmark = True


def _redirect(log: str) -> None:
    """stdout and stderr of this process, C code included, go to the log; stdin is empty."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.close(file)
    os.close(nothing)


def _first_line(error: BaseException, most: int = 300) -> str:
    """What an exception says, up to the end of its first line; printable characters only."""
    lines = _text(error).strip().splitlines()
    return "".join(c for c in lines[0] if c.isprintable())[:most] if lines else ""


def _text(error: BaseException) -> str:
    """What an exception says; nothing where it fails at that too."""
    with contextlib.suppress(BaseException):
        return str(error)
    return ""


def _out_of_memory(error: BaseException) -> bool:
    text = _text(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "DefaultCPUAllocator: can't allocate memory" in text
