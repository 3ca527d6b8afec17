"""The order in which cells are looked at, and when a run has lost too many workers."""

import time
from types import SimpleNamespace

import pytest

from genbench.sweep import waiting
from genbench.sweep.waiting import Losses, Queue


def test_cells_come_in_order_and_one_that_another_works_on_after_a_while(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK", 0.3)
    queue = Queue(["a", "b", "c"])
    assert queue.pop() == "a"
    queue.later("a")
    assert queue.pop() == "b"
    queue.again("b")
    assert [queue.pop(), queue.pop(), queue.pop()] == ["c", "b", None]
    assert queue  # "a" is still to come
    time.sleep(0.35)
    assert queue.pop() == "a"
    assert not queue


@pytest.fixture
def cell(tmp_path):
    return SimpleNamespace(folder=tmp_path / "run")


def test_a_run_is_given_up_when_it_loses_three_workers_in_a_row_without_getting_on(cell):
    losses = Losses()
    for number in range(3):
        assert not losses.is_up(cell)
        losses.begun(cell)
        losses.count(cell, "oom" if number == 2 else "error", f"reason {number}", 0)
    assert losses.is_up(cell)
    assert losses.verdict(cell) == ("oom", "reason 2, 3 times in a row without getting on")
    assert not losses.is_up(SimpleNamespace(folder=cell.folder / "other"))


def test_one_that_saves_new_steps_in_between_is_not(cell):
    losses = Losses()
    for saved in (0, 0, 100, 100, 200, 200, 200):
        losses.begun(cell)
        losses.count(cell, "error", "", saved)
        assert losses.is_up(cell) == (saved == 200 and losses.verdict(cell)[1].startswith(", 3"))
    assert losses.is_up(cell)
    assert losses.verdict(cell)[1] == ", 3 times in a row without getting on"


def test_steps_that_another_had_saved_before_a_worker_began_are_no_progress_of_its(cell):
    losses = Losses()
    losses.begun(cell)
    losses.count(cell, "error", "", 0)
    (cell.folder / "state" / "50-1").mkdir(parents=True)
    for _ in range(2):
        losses.begun(cell)
        losses.count(cell, "error", "", 50)
    assert losses.is_up(cell)


def test_steps_saved_elsewhere_count_where_it_is_said_how_to_find_them(cell):
    found = [0]
    losses = Losses(lambda cell: found[0])
    for steps in (0, 0, 100, 100):
        losses.begun(cell)
        found[0] = steps
        losses.count(cell, "error", "")
        assert not losses.is_up(cell)
    losses.begun(cell)
    losses.count(cell, "error", "")
    assert losses.is_up(cell)
