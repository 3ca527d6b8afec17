"""The supervisor's clock and deadlines, on a channel with a clock of its own: what is said when, and when the supervisor is stopped."""

import contextlib
import math
import multiprocessing
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import genbench.supervisor as supervisor_module
from genbench.inbox import Inbox
from genbench.jobs import Scored

RESULT = {"kind": "result", "value": {"scores": [], "curve": [], "flags": [], "extractor_accuracy": None}}
STARTED, RESUME, PAUSE, ALIVE = {"kind": "started", "spent": 0.0}, {"kind": "resume"}, {"kind": "pause"}, {"kind": "alive"}
TICK = {
    "kind": "tick", "phase": "train", "devices": 1, "progress": 0.5, "seconds": 1.0, "steps": 3, "images": 30, "rate": 9.0,
    "losses": {"loss": math.nan},
}  # fmt: skip


class Channel:
    """`said` are (moment, message), in order; from the first to the second moment of `stopped` the supervisor stands still."""

    waiting = False

    def __init__(self, said, stopped=None):
        self.now, self.said, self.stopped = 0.0, list(said), stopped

    def take(self, patience):
        if self.stopped and self.now >= self.stopped[0]:  # between looking at the channel and at the clock
            self.now, self.stopped = self.stopped[1], None
            return None
        if self.said and self.said[0][0] <= self.now + patience:
            moment, message = self.said.pop(0)
            self.now = max(self.now, moment)
            return message
        self.now += patience
        return None


@pytest.fixture
def follow(monkeypatch):
    """Follow a stage -> how it ended; then `follow.channel` is where that was."""

    def follow(said, limit=None, stopped=None, listen=lambda channel: None):
        channel = follow.channel = Channel(said, stopped)
        monkeypatch.setattr(supervisor_module, "time", SimpleNamespace(monotonic=lambda: channel.now))
        process = SimpleNamespace(is_alive=lambda: True, join=lambda timeout: None, exitcode=None)
        return supervisor_module._follow(
            process, channel, "score", limit, lambda message: listen(channel), Path("no log"), threading.Event()
        )  # fmt: skip

    return follow


def test_the_result_is_a_stages():
    assert Scored.model_validate(RESULT["value"])


def test_a_stage_may_take_hours_while_it_says_that_it_gets_on(follow):
    assert follow([(1700, ALIVE), (3400, ALIVE), (5100, RESULT)]).status == "done"
    outcome = follow([(1700, ALIVE), (3600, ALIVE), (3700, RESULT)])
    assert (outcome.status, outcome.reason) == ("timeout", "gave no sign for 1800 s")


@pytest.mark.parametrize("said", [[(2500, RESULT)], [(100, ALIVE), (2800, RESULT)]])
def test_what_stood_still_with_its_supervisor_has_its_time_from_then_on(follow, said):
    """A container that was paused, a job that was suspended: nothing waits, and nobody was silent for long."""
    assert follow(said, stopped=(50, 2000)).status == "done"
    assert follow([(4000, RESULT)], stopped=(50, 2000)).reason == "gave no sign for 1800 s"


def test_who_says_that_it_gets_on_is_heard(follow):
    """So that a process that has lost its lease notices while it draws."""
    heard = []
    assert follow([(1, ALIVE), (2, ALIVE), (3, RESULT)], listen=lambda channel: heard.append(channel.now)).status == "done"
    assert heard == [1, 2]


def test_training_counts_between_resume_and_pause(follow):
    outcome = follow([(1, STARTED), (1, RESUME), (4, PAUSE), (900, RESUME), (902, PAUSE), (903, RESULT)], limit=6)
    assert outcome.status == "done"
    assert outcome.trained == pytest.approx(5)
    outcome = follow([(1, {**STARTED, "spent": 2.5}), (1, RESUME), (5, PAUSE)], limit=6)
    assert outcome.status == "timeout"
    assert follow.channel.now == pytest.approx(4.5, abs=0.2)


def test_a_second_resume_does_not_set_the_clock_back(follow):
    again = [(moment, RESUME) for moment in range(1, 100)]
    outcome = follow([(0, STARTED), (0, RESUME), *again], limit=6)
    assert outcome.status == "timeout"
    assert follow.channel.now < 7


STOPPED = {
    "through the end": ([(0, STARTED), (0, RESUME), (6, TICK), (10, PAUSE), (10.1, RESULT)], (5, 600), 5, 10),
    "while a point of the curve was drawn": (
        [(0, STARTED), (0, RESUME), (4, PAUSE), (595, TICK), (597, RESUME), (599, PAUSE), (600, RESULT)], (5, 596), 5.9, 6.1
    ),
    "through a point of the curve": (
        [(0, STARTED), (0, RESUME), (4, PAUSE), (595, RESUME), (599, PAUSE), (600, RESULT)], (3, 597), 4.9, 8
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STOPPED)
def test_a_supervisor_that_was_stopped_reads_what_waits_before_it_judges(follow, case):
    """And charges no second more than was trained."""
    said, stopped, least, most = STOPPED[case]
    outcome = follow(said, limit=12, stopped=stopped)
    assert outcome.status == "done", outcome.reason
    assert least <= outcome.trained <= most + 0.2


def test_what_still_trains_after_the_supervisor_was_stopped_is_killed(follow):
    outcome = follow([(0, STARTED), (0, RESUME), (6, TICK), (7, TICK)], limit=12, stopped=(5, 600))
    assert outcome.status == "timeout"
    assert outcome.reason.startswith("still training 600 s")


@pytest.mark.parametrize("stopped", [None, (2, 9)])
def test_who_never_stops_talking_is_killed_in_time(follow, stopped):
    outcome = follow([(0, STARTED), (0, RESUME), *[(number / 100, TICK) for number in range(4000)]], limit=12, stopped=stopped)
    assert outcome.status == "timeout"
    assert follow.channel.now < 15


def test_a_slow_listener_does_not_lengthen_the_budget_by_more_than_seconds(follow):
    def listen(channel):
        channel.now += 1.5

    outcome = follow([(0, STARTED), (0, RESUME), *[(number / 2, TICK) for number in range(400)]], limit=12, listen=listen)
    assert outcome.status == "timeout"
    assert follow.channel.now < 22


@pytest.mark.parametrize(
    "message",
    [{}, {"kind": "noise"}, {"kind": "started", "spent": math.nan}, {"kind": "started", "spent": -1e9}, {**TICK, "progress": math.nan}],
)
def test_what_no_stage_says_ends_the_stage(follow, message):
    outcome = follow([(0, message), (1, RESULT)])
    assert (outcome.status, outcome.reason) == ("error", "something that no stage says came through its channel")


def test_a_result_that_is_none_ends_the_stage(follow):
    outcome = follow([(0, {"kind": "result", "value": {**RESULT["value"], "curve": ["high"]}})])
    assert (outcome.status, outcome.result) == ("error", None)
    assert outcome.reason.startswith("what came through its channel as its result is none: curve.0: ")


@pytest.mark.parametrize("value", [{"extractor_accuracy": math.nan}, {"curve": [1.0, math.inf]}])
def test_a_number_that_no_record_holds_is_none(follow, value):
    outcome = follow([(0, {"kind": "result", "value": RESULT["value"] | value})])
    assert outcome.status == "error"
    assert outcome.reason.startswith(f"what came through its channel as its result is none: {next(iter(value))}")


def test_the_reason_of_a_failure_is_printable(follow):
    outcome = follow([(0, {"kind": "failed", "status": "oom", "reason": "no\x1b[2J room\ud800\n" + "x" * 5000})])
    assert outcome.status == "oom"
    assert outcome.reason == "no[2J room" + "x" * 990


def test_who_is_asked_to_end_may_say_more_than_the_channel_holds():
    code = """
        import os, signal, sys, time
        def end(*_):
            os.write(int(sys.argv[1]), bytes(300_000))
            os._exit(7)
        signal.signal(signal.SIGTERM, end)
        print("ready", flush=True)
        time.sleep(100)
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    command = [sys.executable, "-c", textwrap.dedent(code), str(sender.fileno())]
    with subprocess.Popen(command, pass_fds=[sender.fileno()], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        sender.close()
        process = SimpleNamespace(pid=child.pid, is_alive=lambda: child.poll() is None, join=time.sleep)
        supervisor_module._let_end(process, Inbox(receiver), 20, threading.Event())
        ended = child.poll()
        child.kill()
    receiver.close()
    assert ended == 7


def test_the_whole_group_is_killed_and_nobody_is_asked():
    """Where orphans are not adopted, as elsewhere than on Linux, nothing else ends what a child has started."""
    code = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = os.fork()
    if grandchild:
        print(grandchild, flush=True)
    time.sleep(100)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], start_new_session=True, stdout=subprocess.PIPE, text=True)
    grandchild = psutil.Process(int(child.stdout.readline()))

    def join(timeout):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(min(timeout, 2))

    try:
        supervisor_module._kill(SimpleNamespace(pid=child.pid, join=join))
        assert child.poll() == -signal.SIGKILL
        psutil.wait_procs([grandchild], timeout=3)
        with contextlib.suppress(psutil.NoSuchProcess):
            assert grandchild.status() == psutil.STATUS_ZOMBIE  # until whoever has adopted it looks
    finally:
        child.stdout.close()
        for process in (child, grandchild):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        child.wait()
