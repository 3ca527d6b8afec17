"""What a node does with a run where nodes share no folder: it goes on with what another left, is charged for it, and cleans up."""

import os
import time

import pytest

from genbench import lease, witness
from genbench.jobs import Checked
from genbench.records import ModelRef, RunRecord, RunSpec, Store
from genbench.run import ElsewhereError, Place, Planned
from genbench.sweep import node
from genbench.sweep import ray as ray_module
from genbench.sweep.cell import Cell
from genbench.sweep.preflight import Ticket
from genbench.sweep.ray import Open, RayExecutor
from genbench.sweep.storage import Storage
from genbench.sweep.waiting import Losses, Queue
from genbench.track import Track

pytest.importorskip("fsspec", reason="the extra genbench[ray] is not installed")

TRACK = Track(name="t", dataset="digits", size=8, budget="60s", num_samples=50, extractor="digits-cnn")
MODEL = ModelRef(name="m", family="gan", source="s", distribution="d", version="1", digest="x")
CHECKED = Checked(
    device="cpu", device_class="cpu-1", device_name="x", num_devices=1, channels=1, num_train=1, num_holdout=1, num_test=1,
    num_classes=10, torch="2", packages={},
)  # fmt: skip


class LostError(BaseException):
    """The node goes away."""


@pytest.fixture
def ticket(tmp_path, monkeypatch):
    monkeypatch.setattr(node, "NOTED", 0.02)
    monkeypatch.setattr(node, "PAUSES", (0.0, 0.01))
    return Ticket((TRACK,), (), {}, str(tmp_path), "", (tmp_path / "far").as_uri(), "", "cpu", 1, None)


@pytest.fixture
def storage(ticket):
    return Storage(ticket.storage)


def attempted(ticket, run, cache, monkeypatch, seed=0):
    """One run on the node with that cache -> its answer."""
    monkeypatch.setenv("GENBENCH_CACHE", str(cache))
    return node.attempted(cell_on(ticket, seed), ticket, run, lambda event: None)


def cell_on(ticket, seed=0):
    spec = RunSpec(model=MODEL, track=TRACK, track_hash=TRACK.hash, seed=seed, device="cpu-1")
    return Cell(Planned(spec, "s"), Place(Store(ticket.root), CHECKED, 1))


def trains(storage, seconds, state, lost=False):
    """A run that saves a state, spends so many seconds more than it found, and then is done or lost, seen by the storage."""

    def run(planned, place, supervisor, on_event):
        folder = place.store.folder(planned.spec)
        number = 1 + max((int(path.name) for path in (folder / "attempts").glob("*")), default=0)
        attempt = folder / "attempts" / str(number)
        undone = witness.undone(attempt, 0.0)
        (folder / "state" / state).mkdir(parents=True)
        (folder / "state" / state / "state.json").write_text(state)
        witness.Witness(attempt).note(undone + seconds, 1, 1)
        there = f"{planned.spec.folder.as_posix()}/attempts/{number}/clock"
        deadline = time.monotonic() + 10
        while storage.read(there) != (attempt / "clock").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if lost:
            raise LostError
        record = RunRecord(spec=planned.spec, status="done", started=f"{number} attempts, {undone + seconds} s")
        place.store.commit(record)
        return record

    return run


def test_after_the_loss_of_a_node_another_is_charged_for_what_it_spent(ticket, storage, tmp_path, monkeypatch):
    with pytest.raises(LostError):
        attempted(ticket, trains(storage, 30.0, "10-1", lost=True), tmp_path / "a", monkeypatch)
    answer = attempted(ticket, trains(storage, 12.0, "20-2"), tmp_path / "b", monkeypatch)
    assert RunRecord.model_validate_json(answer.record).started == "2 attempts, 42.0 s"
    assert [path.name for path in (tmp_path / "far").rglob("*") if path.is_file()] == ["record.json"]


def test_what_was_saved_by_the_minute_is_there_for_the_next(ticket, storage, tmp_path, monkeypatch):
    monkeypatch.setattr(node, "SAVED", 0.0)
    with pytest.raises(LostError):
        attempted(ticket, trains(storage, 30.0, "10-1", lost=True), tmp_path / "a", monkeypatch)
    found = []

    def looks(planned, place, supervisor, on_event):
        found.extend(sorted(path.name for path in (place.store.folder(planned.spec) / "state").iterdir()))

    assert attempted(ticket, looks, tmp_path / "b", monkeypatch).saved == 10  # it is interrupted at once
    assert found == ["10-1"]
    assert not list((tmp_path / "b").rglob("state.json"))  # it is on the storage
    assert storage.saved_steps(cell_on(ticket).planned.spec.folder) == 10


def test_a_node_removes_what_it_was_left_with_once_that_is_finished(ticket, storage, tmp_path, monkeypatch):
    with pytest.raises(LostError):
        attempted(ticket, trains(storage, 1.0, "10-1", lost=True), tmp_path / "a", monkeypatch)
    with pytest.raises(LostError):
        attempted(ticket, trains(storage, 1.0, "10-1", lost=True), tmp_path / "a", monkeypatch, seed=1)
    attempted(ticket, trains(storage, 1.0, "20-2"), tmp_path / "b", monkeypatch)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "a"))
    left = [cell_on(ticket, seed).folder for seed in range(3)]
    assert [folder.exists() for folder in left] == [True, True, False]
    with lease.held(left[1]):
        attempted(ticket, trains(storage, 1.0, "20-2"), tmp_path / "a", monkeypatch, seed=2)
    assert [folder.exists() for folder in left] == [False, True, False]  # the second is still to come


def test_a_run_that_is_given_up_says_what_its_lost_nodes_spent(ticket, storage, tmp_path, monkeypatch):
    for cache, seconds in (("a", 20.0), ("b", 5.0)):
        with pytest.raises(LostError):
            attempted(ticket, trains(storage, seconds, f"10-{cache}", lost=True), tmp_path / cache, monkeypatch)
    executor = RayExecutor.__new__(RayExecutor)
    executor._storage, executor._results = storage, tmp_path / "results"
    cell, found = cell_on(ticket), []
    cell = Cell(cell.planned, Place(Store(executor._results), CHECKED, 1))
    left = Open(Queue([]), Losses(), {})
    left.losses.count(cell, "error", "its node went away")
    executor._give_up(cell, left, lambda cell, record: found.append(record))
    assert (found[0].status, found[0].spent.seconds, found[0].spent.attempts) == ("error", 25.0, 2)
    assert cell.record == found[0]
    assert storage.has_record(cell.planned.spec.folder)


def test_a_record_that_is_there_is_the_answer(ticket, storage, tmp_path, monkeypatch):
    first = attempted(ticket, trains(storage, 1.0, "20-2"), tmp_path / "a", monkeypatch)
    assert attempted(ticket, None, tmp_path / "b", monkeypatch) == first


def test_a_storage_that_is_away_and_a_run_for_elsewhere_are_told_apart(ticket, storage, tmp_path, monkeypatch):
    def elsewhere(planned, place, supervisor, on_event):
        raise ElsewhereError("begun with torch 1")

    with pytest.raises(ElsewhereError):
        attempted(ticket, elsewhere, tmp_path / "a", monkeypatch)

    def away(self, run):
        raise ConnectionError("no route")

    monkeypatch.setattr(Storage, "record", away)
    with pytest.raises(node.GenbenchError, match=r"storage file:.* can't be read or written: ConnectionError: no route"):
        attempted(ticket, elsewhere, tmp_path / "a", monkeypatch)


def test_a_storage_that_is_away_for_a_while_costs_no_run(ticket, storage, tmp_path, monkeypatch):
    truly = Storage.commit, Storage.record
    failed = []

    def at_first(do):
        def trying(self, *asked):
            if failed.count(do) < 2:
                failed.append(do)
                raise ConnectionError("no route")
            return do(self, *asked)

        return trying

    for name, do in zip(("commit", "record"), truly, strict=True):
        monkeypatch.setattr(Storage, name, at_first(do))
    answer = attempted(ticket, trains(storage, 1.0, "10-1"), tmp_path / "a", monkeypatch)
    assert RunRecord.model_validate_json(answer.record).status == "done"
    assert len(failed) == 4
    assert storage.has_record(cell_on(ticket).planned.spec.folder)


def driver(storage, tmp_path, cell):
    """An executor that has only what it takes to settle a run -> it, and the cell in its results folder."""
    executor = RayExecutor.__new__(RayExecutor)
    executor._storage, executor._results = storage, tmp_path / "results"
    return executor, Cell(cell.planned, Place(Store(executor._results), CHECKED, 1))


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_record_that_a_lost_worker_still_put_there_counts(ticket, storage, tmp_path, monkeypatch, when):
    """It was killed a third time between that and its answer; or it was only out of Ray's sight."""
    executor, cell = driver(storage, tmp_path, cell_on(ticket))
    run, found = cell.planned.spec.folder, []

    def puts():
        Store(tmp_path / "far away").commit(RunRecord(spec=cell.planned.spec, status="done", started="there"))
        storage.commit(run, tmp_path / "far away")

    if when == "before":
        puts()
    else:
        give_up = ray_module.runs.give_up
        monkeypatch.setattr(ray_module.runs, "give_up", lambda *asked: (puts(), give_up(*asked))[1])
    left = Open(Queue([]), Losses(), {})
    left.losses.count(cell, "error", "its node went away")
    executor._give_up(cell, left, lambda cell, record: found.append(record))
    assert (found[0].status, found[0].started) == ("done", "there")
    assert cell.record == found[0]
    executor.reopen(cell)  # nothing failed
    assert storage.has_record(run)


def test_a_storage_that_is_away_when_a_run_ends_costs_the_driver_nothing(ticket, storage, tmp_path, monkeypatch, caplog):
    answer = attempted(ticket, trains(storage, 1.0, "10-1"), tmp_path / "a", monkeypatch)
    executor, cell = driver(storage, tmp_path, cell_on(ticket))

    def away(self, *asked):
        raise RuntimeError("EndpointConnectionError")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "fetch", away)
        assert executor._brought(cell, answer).status == "done"
        assert cell.record.status == "done"
        patched.setattr(Storage, "finished", away)
        with pytest.raises(node.GenbenchError, match="EndpointConnectionError"):
            executor.gather([cell])
    assert "is not fetched" in caplog.text


def test_where_the_driver_cannot_write_the_storage_no_node_is_blamed(ticket, storage, tmp_path, monkeypatch):
    executor, _ = driver(storage, tmp_path, cell_on(ticket))
    refused, answer = {}, node.Answer(refused="node x: storage away", node="x")
    executor._keep_away(answer, refused)
    assert refused == {"x": "node x: storage away"}
    monkeypatch.setattr(Storage, "can_write", lambda self: False)
    with pytest.raises(node.GenbenchError, match="storage away"):
        executor._keep_away(node.Answer(refused="node y: storage away", node="y"), refused)


def test_a_run_that_is_lost_while_it_starts_again_has_still_spent_what_it_had(ticket, storage, tmp_path, monkeypatch):
    with pytest.raises(LostError):
        attempted(ticket, trains(storage, 30.0, "10-1", lost=True), tmp_path / "a", monkeypatch)
    executor, cell = driver(storage, tmp_path, cell_on(ticket))
    storage.restore(cell.planned.spec.folder, executor._results)
    (cell.folder / "attempts" / "2").mkdir()
    left, found = Open(Queue([]), Losses(), {}), []
    left.losses.count(cell, "error", "its node went away")
    executor._give_up(cell, left, lambda cell, record: found.append(record))
    assert (found[0].spent.seconds, found[0].spent.attempts) == (30.0, 2)


@pytest.mark.parametrize(("given", "seen"), [("1", "1"), ("", None), (None, None)])
def test_a_node_is_examined_with_the_gpus_that_its_owner_lets_ray_see(monkeypatch, given, seen):
    """An empty word is Ray's own, for a task that has none."""
    monkeypatch.setattr(node, "examine", lambda ticket: os.environ.get("CUDA_VISIBLE_DEVICES"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert node.examine_apart(None) == seen
