"""Between a run and who watches over it: signs of life, a command that is stopped, Ctrl-C while something takes long."""

import os
import signal
import threading
import time

import pytest

import genbench.supervisor as supervisor_module
from genbench.datasets.prepare import prepare
from genbench.inbox import Inbox
from genbench.states import saved_steps
from tests.faults.conftest import TRACK, no_children_left


def test_sampling_scoring_and_the_curve_say_that_they_get_on(attempt, monkeypatch):
    """After 500 images that are drawn, 100 that are asked about, 250 that are looked at, and before each metric."""
    said = []

    class Listening(Inbox):
        def take(self, patience):
            message = super().take(patience)
            if message is not None:
                said.append(message["kind"])
            return message

    monkeypatch.setattr(supervisor_module, "Inbox", Listening)
    track = TRACK.model_copy(
        update={"num_samples": 1100, "curve_samples": 600, "curve": (1.0,), "metrics": ("fid", "likelihood"), "rank_by": "iwae_bpd"}
    )
    body = """
    density = "discrete"
    def log_weights(self, images, k):
        return torch.full((k, len(images)), -64.0)
    """
    record = attempt(body, track=track)
    assert record.status == "done", (record.reason, record.log_tail)
    data = prepare("digits", 8)
    _, training, sampling, scoring = " ".join(said).split("result")[:4]
    assert training.count("alive") == 2 + -(-len(data.holdout) // 100)
    assert training.index("alive") > training.index("pause")
    assert sampling.split() == ["alive"] * (3 + -(-len(data.test) // 100))
    assert scoring.count("alive") >= 5 + 3 + 3


def test_a_command_that_was_stopped_lets_a_run_be_done_that_ended_meanwhile(attempt):
    """It sleeps here as it would under Ctrl-Z, far beyond budget and grace; the run goes on to its end."""
    stopped = []

    def stop(event):
        if event["kind"] == "tick" and not stopped:
            stopped.append(event)
            time.sleep(6)

    record = attempt(track=TRACK.model_copy(update={"budget": "1s", "grace": 2.0}), on_event=stop)
    assert record.status == "done", record.reason
    assert 1 <= record.spent.seconds < 3  # not those of our sleep
    assert not [flag for flag in record.flags if "clock" in flag]


def interrupted(busy, times):
    """Press Ctrl-C so many times, half a second apart, once the file is there -> the moment of the first."""
    pressed = []

    def press():
        deadline = time.monotonic() + 60
        while not busy.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not busy.exists():  # the test has failed by now; Ctrl-C would end all the others
            return
        for _ in range(times):
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    threading.Thread(target=press, daemon=True).start()
    return pressed


def test_a_long_step_comes_to_its_end_and_is_saved_at_ctrl_c(attempt, tmp_path):
    body = f"""
    def misbehave(self):
        if self.count == 4:
            Path({str(tmp_path / "busy")!r}).touch()
            time.sleep(7)
    """
    interrupted(tmp_path / "busy", 1)
    assert attempt(body, track=TRACK.model_copy(update={"budget": "600s", "curve": ()})) is None
    assert saved_steps(attempt.folder) == 4
    assert no_children_left()


def test_a_second_ctrl_c_waits_for_nothing(attempt, tmp_path):
    body = f"""
    def misbehave(self):
        if self.count == 4:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path({str(tmp_path / "busy")!r}).touch()
            time.sleep(600)
    """
    pressed = interrupted(tmp_path / "busy", 2)
    with pytest.raises(KeyboardInterrupt):
        attempt(body, track=TRACK.model_copy(update={"budget": "600s"}))
    assert time.monotonic() - pressed[0] < 30
    assert no_children_left()
