"""Sweeps of thousands of runs that do nothing, through the real planner, store, leases and executors; results folders of 10 000 records.

``pytest -m slow -s tests/sweep/test_scale.py`` prints what docs/clusters.md tells.
"""

import os
import resource
import sys
import threading
import time
from collections import Counter

import pytest

import genbench
from genbench import records
from genbench.descriptions import HparamDescription, ModelDescription
from genbench.jobs import Checked
from genbench.records import RunRecord, Score, Store
from genbench.run import Place
from genbench.supervisor import Supervisor
from genbench.sweep import local, night
from genbench.sweep.cell import Cell, Wishes
from genbench.sweep.local import LocalExecutor, execute
from genbench.sweep.plan import Sweep, runs_of
from genbench.track import Track

TRACK = Track(name="nothing", dataset="digits", size=8, budget="60s", num_samples=50, extractor="digits-cnn", curve=(1.0,))
LR = {"lr": HparamDescription(default=1e-3, type="float")}
THOUSANDS = [300, pytest.param(5000, marks=pytest.mark.slow)]
SCORES = tuple(
    Score(name=f"score_{n}", value=n + 0.5, better="lower", interval=(n, n + 1), floor=0.1, extractor="digits-cnn", split="test", n_real=50,
          n_fake=50, protocol="0123456789abcdef", note="as real records have it")
    for n in range(40)
)  # fmt: skip


def nothing(planned, place, supervisor, on_event):
    """A run that only leaves its record, of the size that records have, and counts how often it happened."""
    folder = place.store.folder(planned.spec)
    with open(folder / "tally", "a") as tally:
        tally.write("x")
    record = RunRecord(spec=planned.spec, status="done", started="2026-01-01T00:00:00+00:00", scores=SCORES)
    place.store.commit(record)
    return record


def model(name):
    return ModelDescription(name=name, distribution="d", version="1", digest=name * 8, source="s", family="gan", hparams=LR)


def planned(count, place):
    """So many runs: ten models, draws of their learning rate, five seeds."""
    models = {name: model(name) for name in map("model-{}".format, range(10))}
    draws = {name: {"configurations": count // 50, "lr": {"low": 1e-5, "high": 1e-1, "log": True}} for name in models}
    asked = Sweep(models=tuple(models), tracks=("nothing",), seeds=5, random=draws)
    return asked, models, runs_of(asked, models, TRACK, place)


def place_in(folder):
    checked = Checked(
        device="cpu", device_class="cpu-1", device_name="x", num_devices=1, channels=1, num_train=1, num_holdout=1, num_test=1,
        num_classes=10, torch="2", packages={},
    )  # fmt: skip
    return Place(Store(folder), checked, 1)


def told(what, count, begun):
    """A line of figures: wall and CPU time of this process and memory."""
    wall, cpu = time.monotonic() - begun[0], time.process_time() - begun[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{what}: {count} in {wall:.1f} s, {cpu:.1f} s of CPU; {1000 * cpu / count:.2f} ms of CPU each; peak {peak:.0f} MB")


def now():
    return time.monotonic(), time.process_time()


@pytest.mark.parametrize("count", THOUSANDS)
def test_a_sweep_of_thousands_here_and_the_same_again(tmp_path, count):
    place = place_in(tmp_path)
    begun = now()
    _, _, found = planned(count, place)
    told("planned", count, begun)
    assert len(found) == count
    executor = LocalExecutor(Wishes(tmp_path), Supervisor(), nothing)
    executor._devices = ["cpu", "cpu"]
    cells = [Cell(one, place) for one in found]
    done = Counter()
    begun = now()
    executor.execute(cells, lambda cell, event: None, lambda cell, record: done.update([cell.folder]))
    told("run here, two at a time", count, begun)
    begun = now()
    executor.execute(cells, lambda cell, event: None, lambda cell, record: done.update([cell.folder]))
    told("gone through again", count, begun)
    assert len(done) == count
    assert set(done.values()) == {2}
    assert {(cell.folder / "tally").read_text() for cell in cells} == {"x"}
    assert {path.name for cell in cells[::50] for path in cell.folder.iterdir()} == {"record.json", "tally"}


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_two_sweeps_on_one_folder_share_thousands_of_runs(tmp_path, count, monkeypatch):
    monkeypatch.setattr(local, "LOOK", 0.05)
    cells = [Cell(one, place_in(tmp_path)) for one in planned(count, place_in(tmp_path))[2]]
    done = [Counter(), Counter()]
    begun = now()
    both = [
        threading.Thread(
            target=execute, args=(cells, Supervisor()),
            kwargs={"devices": ["cpu"], "run": nothing, "on_record": lambda cell, record, mine=mine: mine.update([cell.folder])},
        )
        for mine in done
    ]  # fmt: skip
    for sweep in both:
        sweep.start()
    for sweep in both:
        sweep.join()
    told("shared by two sweeps", count, begun)
    assert [len(mine) for mine in done] == [count, count]
    assert {(cell.folder / "tally").read_text() for cell in cells} == {"x"}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore:subprocess [0-9]+ is still running:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves what it started to the garbage collector
@pytest.mark.parametrize("count", THOUSANDS)
def test_a_sweep_of_thousands_as_ray_tasks(tmp_path, count, monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra genbench[ray] is not installed")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "300000")  # for a machine that is busy
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "300")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray leaves a token in the user's home
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    try:
        from genbench.sweep.ray import RayExecutor

        executor = RayExecutor(ray, Wishes(tmp_path, device="cpu", threads=1), nothing)
        (place,) = executor.places([TRACK], [])
        cells = [Cell(one, place) for one in planned(count, place)[2]]
        done = Counter()
        begun = now()
        executor.execute(cells, lambda cell, event: None, lambda cell, record: done.update([cell.folder]))
        told("run as Ray tasks, two at a time", count, begun)
    finally:
        ray.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert len(done) == count
    assert {(cell.folder / "tally").read_text() for cell in cells} == {"x"}


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory):
    """A results folder of 10 000 finished runs with what they leave, and its cells."""
    folder = tmp_path_factory.mktemp("ten-thousand")
    place = place_in(folder)
    cells = [Cell(one, place) for one in planned(10_000, place)[2]]
    record = RunRecord(spec=cells[0].planned.spec, status="done", started="2026-01-01T00:00:00+00:00", scores=SCORES)
    for cell in cells:
        (cell.folder / "attempts" / "1").mkdir(parents=True)
        mine = record.model_copy(update={"spec": cell.planned.spec})
        (cell.folder / "record.json").write_text(mine.model_dump_json(indent=1))
    return folder, cells


def test_ten_thousand_records_are_listed_looked_through_and_loaded_in_seconds(ten_thousand):
    """CPU seconds: what other processes do meanwhile is not ours."""
    folder, cells = ten_thousand
    begun = now()
    assert len(Store(folder).paths()) == 10_000
    told("listed", 10_000, begun)
    assert time.process_time() - begun[1] < 3
    begun = now()
    rows = night.outlook(cells)
    assert night.cost(rows) == "10000 runs, 0 to run: 0.00 device-hours of training"
    told("looked through, as for a dry run", 10_000, begun)
    assert time.process_time() - begun[1] < 6
    begun = now()
    frame = genbench.load(folder)
    told("loaded", 10_000, begun)
    assert time.process_time() - begun[1] < 20
    assert (len(frame), frame["score_3"].mean()) == (10_000, 3.5)


def test_a_dry_run_validates_no_record_and_tells_what_is_to_run(tmp_path, monkeypatch):
    place = place_in(tmp_path)
    cells = [Cell(one, place) for one in planned(50, place)[2]]
    for cell, status in zip(cells, ("done", "error", "oom"), strict=False):
        place.store.commit(RunRecord(spec=cell.planned.spec, status=status, started="now"))
    damaged = cells[3].folder
    damaged.mkdir(parents=True)
    (damaged / "record.json").write_text("{")
    monkeypatch.setattr(records, "read_record", lambda path: pytest.fail("a dry run read a whole record"))
    rows = night.outlook(cells)
    assert [row["state"] for row in rows[:5]] == ["done", "error", "oom", "to run", "to run"]
    assert night.cost(rows) == "50 runs, 47 to run: 0.78 device-hours of training"


def test_a_listing_does_not_walk_through_what_finished_runs_did(tmp_path, monkeypatch):
    place = place_in(tmp_path)
    cells = [Cell(one, place) for one in planned(50, place)[2]]
    for cell in cells:
        for attempt in ("1", "2"):
            (cell.folder / "attempts" / attempt).mkdir(parents=True)
        place.store.commit(RunRecord(spec=cell.planned.spec, status="done", started="now"))
    scanned = []
    scan = os.scandir
    monkeypatch.setattr(records.os, "scandir", lambda folder: scanned.append(folder) or scan(folder))
    assert place.store.paths() == sorted(cell.folder / "record.json" for cell in cells)
    assert len(scanned) == 1 + 1 + 1 + 10 + 50  # results, runs, the track, ten models, fifty runs
