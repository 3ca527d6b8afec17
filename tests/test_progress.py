"""What a sweep shows of itself: what is running, wherever it runs, and a time left that finished runs teach it."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from genbench import progress
from genbench.progress import Board
from genbench.records import ModelRef, RunRecord, RunSpec
from genbench.run import Planned
from genbench.track import Track

TRACK = Track(name="t", dataset="digits", size=8, budget="60s", num_samples=50, extractor="digits-cnn")
MODEL = ModelRef(name="m", family="gan", source="s", distribution="d", version="1", digest="x")


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


@pytest.fixture
def runs():
    return [Planned(RunSpec(model=MODEL, track=TRACK, track_hash=TRACK.hash, seed=seed, device="cpu-1"), "s") for seed in range(4)]


@pytest.fixture
def board(runs):
    return Board(runs, 2, Console(file=io.StringIO(), width=200))


def done(one):
    return RunRecord(spec=one.spec, status="done", started="now")


def table(board):
    out = io.StringIO()
    Console(file=out, width=200).print(board._table())
    return out.getvalue()


def test_a_run_that_began_on_another_machine_is_running_and_named_with_it(board, runs, clock):
    assert board.summary() == "0 done, 4 to come, 0:02:00 left"
    board.event(runs[0], {"kind": "begun", "host": "node-7"})
    assert board.summary() == "0 done, 1 running, 3 to come, 0:02:00 left"
    assert "t m seed 0" in table(board)
    assert "on node-7" in table(board)


def test_the_time_left_is_what_runs_took_not_their_budget(board, runs, clock):
    board.event(runs[0], {"kind": "begun", "host": "node-7"})
    clock.seconds = 100.0
    board.record(runs[0], done(runs[0]))
    assert board.summary() == "1 done, 3 to come, 0:02:30 left"
    board.event(runs[1], {"kind": "begun", "host": "node-7"})
    clock.seconds = 140.0
    assert board.summary() == "1 done, 1 running, 2 to come, 0:02:10 left"


def test_a_run_whose_machine_is_lost_waits_until_it_begins_again(board, runs, clock):
    board.event(runs[0], {"kind": "begun", "host": "node-7"})
    clock.seconds = 50.0
    board.event(runs[0], {"kind": "crash", "stage": "train", "reason": "its node went away"})
    assert board.summary() == "0 done, 4 to come, 0:02:00 left"
    clock.seconds = 1000.0
    board.event(runs[0], {"kind": "begun", "host": "node-8"})
    clock.seconds = 1010.0
    board.record(runs[0], done(runs[0]))
    assert board.summary() == "1 done, 3 to come, 0:00:15 left"


def test_what_a_model_calls_its_losses_and_its_settings_is_shown_as_it_stands(clock):
    model = MODEL.model_copy(update={"changed": {"style": "[/x]"}})
    (one,) = [Planned(RunSpec(model=model, track=TRACK, track_hash=TRACK.hash, seed=0, device="cpu-1"), "s")]
    board = Board([one], 1, Console(file=io.StringIO(), width=200))
    board.event(one, {"kind": "stage", "stage": "train"})
    assert "(style=[/x])" in table(board)
    board.event(one, {"kind": "tick", "progress": 0.5, "rate": 9.0, "losses": {"loss[/d]": 1.0, "a\nb\x1b[2J": 2.0}})
    assert "(style=[/x])" in table(board)
    assert "loss[/d] 1  a b [2J 2" in table(board)


def test_the_last_runs_of_a_night_take_as_long_as_the_longest(runs, clock):
    board = Board(runs, 8, Console(file=io.StringIO(), width=200))
    assert board.summary() == "0 done, 4 to come, 0:01:00 left"  # side by side, and eight places for them
    for one in runs:
        board.event(one, {"kind": "begun", "host": "node-7"})
    clock.seconds = 20.0
    assert board.summary() == "0 done, 4 running, 0:00:40 left"


def test_a_cluster_that_has_grown_is_as_wide_as_what_runs(runs, clock):
    board = Board(runs, 1, Console(file=io.StringIO(), width=200))
    for one in runs[:2]:
        board.event(one, {"kind": "begun", "host": "node-7"})
    assert board.summary() == "0 done, 2 running, 2 to come, 0:02:00 left"


def test_a_budget_is_of_all_devices_together(runs, clock):
    several = [replace(one, spec=one.spec.model_copy(update={"device": "4x cpu-1"})) for one in runs]
    board = Board(several, 1, Console(file=io.StringIO(), width=200))
    assert board.summary() == "0 done, 4 to come, 0:01:00 left"
