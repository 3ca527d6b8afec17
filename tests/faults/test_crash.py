"""Kills and damage at the worst moments: inside the writing of a state or a record, between two of its steps, after training."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from genbench import lease, records, resume, states
from genbench import run as runs
from genbench.budget import Budget, Meter
from genbench.datasets.resident import TrainingBatches
from genbench.errors import GenbenchError
from genbench.lease import BusyError
from genbench.model import ImageSpec, Optimizers
from genbench.records import Store, read_record, write_atomic, write_once
from genbench.sweep import night
from genbench.sweep.cell import Cell, Wishes
from genbench.sweep.cell import attempt as attempt_under_lease
from genbench.sweep.local import LocalExecutor
from tests.faults.conftest import TRACK, no_children_left
from tests.test_records import make_record
from tests.toys import Autoencoder, make_data

# ---- a training is killed -------------------------------------------------------------------------------------------------

OFTEN = """
import genbench.resume as resume, genbench.train
genbench.train.TICK = resume.LEAST = 0.05
resume.COST = 1.0
"""
"""So that a state is saved every few steps."""

KILLED = """
def misbehave(self):
    from genbench import resume
    time.sleep(0.002)
    if self.count > 1:
        return
    lives = Path(FOLDER)
    life = len(list(lives.iterdir()))
    (lives / str(life)).touch()
    moments = [
        (resume, "write_atomic", 5),   # the tensors of the third state; each has two files
        (resume, "write_atomic", 6),   # its JSON: the tensors are there
        (Path, "rename", 3),           # written, not yet named
        (resume, "_content", 3),       # named, not yet read back
        (resume.shutil, "rmtree", 6),  # read back, and the oldest not yet gone
    ]
    if life >= len(moments):
        return
    module, name, when = moments[life]
    truly, calls = getattr(module, name), []
    def killing(*args, **kwargs):
        calls.append(args)
        if len(calls) == when:
            if name == "write_atomic":  # half of it is on the disk
                args[0].parent.mkdir(exist_ok=True)
                args[0].with_name(".half.tmp").write_bytes(args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return truly(*args, **kwargs)
    setattr(module, name, killing)
"""


def test_a_training_killed_at_every_moment_of_a_save_goes_on_bit_for_bit(attempt, tmp_path):
    track = TRACK.model_copy(update={"budget": "2000steps", "curve": (1.0,)})
    whole = attempt("def misbehave(self):\n    time.sleep(0.002)", track=track, results="whole")
    (tmp_path / "lives").mkdir()
    crashes = []
    record = attempt(
        OFTEN + KILLED.replace("FOLDER", repr(str(tmp_path / "lives"))), track=track, results="hurt",
        on_event=lambda event: event["kind"] == "crash" and crashes.append(event["reason"]),
    )  # fmt: skip
    assert record.status == "done", record.reason
    assert crashes == ["the process was killed by SIGKILL"] * 5
    assert record.spent.attempts == 6
    assert record.digests == whole.digests
    assert (record.spent.steps, record.spent.images) == (2000, 2000 * 16)
    assert 0 < record.spent.lost < record.spent.seconds
    assert {path.name for path in attempt.folder.iterdir()} == {
        "record.json", "samples.npz", "grid.png", "checkpoint.safetensors", "checkpoint.json", "curve.csv", "attempts"
    }  # fmt: skip
    assert not list(attempt.folder.rglob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(20))
def test_again_and_again(attempt, tmp_path, turn):
    test_a_training_killed_at_every_moment_of_a_save_goes_on_bit_for_bit(attempt, tmp_path)


def test_after_the_end_of_training_a_damaged_checkpoint_is_trained_again_from_what_was_saved(attempt):
    track = TRACK.model_copy(update={"budget": "300steps", "curve": (1.0,)})
    body = OFTEN + "def misbehave(self):\n    time.sleep(0.002)"
    whole = attempt(body, track=track, results="whole")

    def interrupt(event):
        if event["kind"] == "stage" and event["stage"] == "sample":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        attempt(body, track=track, on_event=interrupt)
    checkpoint = attempt.folder / "checkpoint.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-3] ^= 4
    checkpoint.write_bytes(content)
    stages = []
    record = attempt(body, track=track, on_event=lambda event: stages.append(event.get("stage")))
    assert [stage for stage in stages if stage] == ["train", "sample", "score"]
    assert record.status == "done", record.reason
    assert record.digests == whole.digests
    assert record.spent.steps == 300


# ---- what is on the disk when ---------------------------------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch):
    """What is done to the disk, in order; names are shortened to what matters."""
    done = []

    def noting(module, name, say):
        truly = getattr(module, name)

        def note(*args, **kwargs):
            result = truly(*args, **kwargs)
            done.append(say(*args))
            return result

        monkeypatch.setattr(module, name, note)

    def kind(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return f"flush {'folder' if os.path.isdir(path) else 'file'}"

    noting(os, "fsync", kind)
    noting(os, "link", lambda source, target: f"link {Path(target).name}")
    noting(Path, "replace", lambda source, target: f"rename to {Path(target).name}")
    noting(Path, "rename", lambda source, target: "rename to " + re.sub(r"[0-9]{12}-[0-9]{20}", "STATE", Path(target).name))
    noting(resume, "_content", lambda place: "read back")
    noting(shutil, "rmtree", lambda path, **_: f"remove {'STATE' if Path(path).name[0].isdigit() else Path(path).name.partition('-')[0]}")
    return done


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_anybody_goes_on(tmp_path, disk):
    write_atomic(tmp_path / "x", b"1")
    assert disk == ["flush file", "rename to x", "flush folder"]


def test_so_is_a_record(tmp_path, disk):
    assert write_once(tmp_path / "record.json", b"1")
    assert disk == ["flush file", "link record.json", "flush folder"]


def trained(steps=3):
    torch.manual_seed(0)
    model = Autoencoder(ImageSpec(3, 8))
    meter = Meter(Budget.parse("9steps"))
    meter.steps = steps
    batches = TrainingBatches(make_data(), batch_size=10, seed=0, meter=meter, device=torch.device("cpu"))
    return model, Optimizers(model.configure_optimizers()), batches, meter


def test_a_state_is_whole_and_read_back_before_an_older_one_goes(tmp_path, disk):
    for steps in (1, 2, 3):
        disk.clear()
        resume.save(tmp_path, *trained(steps), [], [])
    names = [step for step in disk if step != "remove .new"]
    assert names == [
        "flush file", "rename to state.safetensors", "flush folder", "flush file", "rename to state.json", "flush folder",
        "rename to STATE", "flush folder", "read back", "remove STATE",
    ]  # fmt: skip
    assert [int(path.name[:12]) for path in states.saved(tmp_path)] == [3, 2]


def test_a_state_that_cannot_be_read_back_costs_none_of_the_earlier_ones(tmp_path, monkeypatch):
    for steps in (1, 2):
        resume.save(tmp_path, *trained(steps), [], [])
    truly = resume.write_atomic
    monkeypatch.setattr(resume, "write_atomic", lambda path, content: truly(path, content[: len(content) // 2]))
    with pytest.raises(GenbenchError, match="can't be read back"):
        resume.save(tmp_path, *trained(3), [], [])
    model, optimizers, batches, meter = trained(0)
    resume.restore(tmp_path, model, optimizers, batches, meter)
    assert meter.steps == 2
    assert {1, 2} <= {int(path.name[:12]) for path in states.saved(tmp_path)}


def test_the_newest_state_counts_even_where_the_clock_was_put_back(tmp_path, monkeypatch):
    for steps, clock in ((1, 5_000), (2, 3_000), (3, 0), (4, 0)):
        monkeypatch.setattr(states, "time_ns", lambda clock=clock: clock)
        resume.save(tmp_path, *trained(steps), [], [])
    assert [int(path.name[:12]) for path in states.saved(tmp_path)] == [4, 3]


# ---- records --------------------------------------------------------------------------------------------------------------


def test_killed_between_writing_and_naming_a_record_the_run_is_finished_without_training_again(attempt, tmp_path):
    """The supervisor dies here, in a process of its own."""
    attempt(results="other")  # writes mine.py
    code = f"""
    import os, signal
    from pathlib import Path
    from genbench import records, run as runs
    from genbench.inventory import describe_file
    from genbench.supervisor import Supervisor
    from genbench.track import Track
    TRACK = Track.model_validate_json({TRACK.model_dump_json()!r})
    os.link = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
    supervisor = Supervisor()
    place = runs.check(TRACK, supervisor, results=Path({str(tmp_path / "results")!r}), device="cpu", threads=1)
    (planned,) = runs.plan([describe_file({str(tmp_path / "mine.py") + ":Mine"!r})], TRACK, [0], place, {{}})
    runs.run(planned, place, supervisor)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[2], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    (stray,) = (tmp_path / "results").rglob(".record.json.*")
    json.loads(stray.read_text())  # whole, and nobody's record
    assert list(Store(tmp_path / "results")) == []
    stages = []
    record = attempt(on_event=lambda event: stages.append(event.get("stage")))
    assert record.status == "done"
    assert [stage for stage in stages if stage] == ["sample", "score"]
    assert not list((tmp_path / "results").rglob(".*"))


def strange(kind, text):
    match kind:
        case "truncated":
            return text[: len(text) // 2].encode()
        case "empty":
            return b""
        case "garbage":
            return bytes(range(256))
        case "another schema":
            return b'{"accuracy": 0.9}'
        case "another run's":
            return make_record(seed=7).model_dump_json().encode()
        case "edited by hand":
            return text.replace('"done"', '"dnoe"').encode()


@pytest.mark.parametrize("kind", ["truncated", "empty", "garbage", "another schema", "another run's", "edited by hand"])
def test_a_record_that_is_not_the_runs_is_set_aside_and_named(kind, tmp_path, caplog):
    store, record = Store(tmp_path), make_record()
    path = store.commit(record)
    content = strange(kind, path.read_text())
    path.write_bytes(content)
    assert store.get(record.spec) is None
    assert path.with_name("record.damaged.json").read_bytes() == content
    assert str(path) in caplog.text
    store.commit(record)  # the run happens again
    assert store.get(record.spec) == record == read_record(path)


# ---- two on one folder ----------------------------------------------------------------------------------------------------


def test_a_run_that_another_process_works_on_is_left_to_it(attempt, tmp_path):
    record = attempt(results="other")
    command = [sys.executable, "-m", "genbench", "run", "mine.py:Mine", "--track", "tiny.toml", "--device", "cpu", "--threads", "1"]
    (tmp_path / "tiny.toml").write_text(
        'dataset = "digits"\nsize = 8\nbudget = "12steps"\nnum_samples = 60\nextractor = "digits-cnn"\n'
        'curve = [0.5, 1.0]\ncurve_samples = 20\nmetrics = ["fid"]\ngrace = 2.0\n'
    )
    assert attempt.store.get(record.spec) == record
    folder = tmp_path / "results" / record.spec.folder
    with lease.held(folder):
        refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2, refused.stderr
    assert "another process works on Mine seed 0; the same command goes on when it is done" in refused.stderr
    assert not (folder / "attempts").exists()
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120).returncode == 0
    assert read_record(folder / "record.json").status == "done"


def test_a_run_that_somebody_finished_meanwhile_is_not_run_again(attempt):
    record = attempt()

    class Place:
        store = attempt.store

    def never(*_):
        raise AssertionError("it ran again")

    cell = Cell(attempt.planned, Place)
    assert attempt_under_lease(cell, None, lambda event: None, never) == record
    with lease.held(cell.folder), pytest.raises(BusyError):
        attempt_under_lease(cell, None, lambda event: None, never)


MOMENTS = {
    "training": (lambda event, kept: event["kind"] == "tick", {"state"}),
    "training over": (lambda event, kept: kept == 1, {"state", "checkpoint.safetensors", "checkpoint.json"}),
    "sampling": (lambda event, kept: event.get("stage") == "sample", set()),
    "samples drawn": (lambda event, kept: kept == 2, {"samples.npz", "grid.png"}),
    "scoring": (lambda event, kept: event.get("stage") == "score", set()),
    "about to commit": (lambda event, kept: kept == 3, {"curve.csv"}),
}
"""When another takes the run over -> what may still come into its folder: only what had been confirmed just before."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_was_taken_over_from_a_stopped_process_is_left_to_the_other(attempt, moment):
    kept, taken, (due, left) = [], [], MOMENTS[moment]

    def take_over(event):
        kept.extend([event] * (event["kind"] == "keep"))
        if not taken and due(event, len(kept)):
            (attempt.folder / lease.NAME).write_text(json.dumps({"token": "theirs", "host": "elsewhere", "pid": 1}))
            taken.extend(path.name for path in attempt.folder.iterdir())

    track = TRACK.model_copy(update={"budget": "20s", "curve": ()}) if moment == "training" else TRACK
    with pytest.raises(BusyError):
        attempt("def misbehave(self):\n    time.sleep(0.005)", track=track, leased=True, on_event=take_over)
    assert no_children_left()
    assert json.loads((attempt.folder / lease.NAME).read_text())["token"] == "theirs"
    assert not (attempt.folder / "record.json").exists()
    assert (attempt.folder / "attempts" / "1" / "clock").exists()  # what the other charges, should it have begun later
    assert {path.name for path in attempt.folder.iterdir()} - set(taken) <= left


def test_of_two_that_finish_a_run_the_record_of_the_first_is_returned(attempt):
    first = []

    def finish_before(event):
        if event["kind"] == "keep" and (attempt.folder / "curve.csv").exists():
            first.append(make_record(status="error").model_copy(update={"spec": attempt.planned.spec, "reason": "theirs"}))
            attempt.store.commit(first[0])

    record = attempt(on_event=finish_before)
    assert [record] == first
    assert attempt.store.get(attempt.planned.spec) == record
    assert not (attempt.folder / "state").exists()


def test_a_failed_run_is_set_aside_under_its_lease_and_only_while_it_is_failed(attempt, tmp_path):
    record = attempt("def misbehave(self):\n    raise ValueError")
    spec, store = attempt.planned.spec, attempt.store
    executor = LocalExecutor(Wishes(tmp_path / "results"), None)
    with lease.held(attempt.folder):
        with pytest.raises(BusyError):
            runs.retry(attempt.planned, store)
        night.reopen_failed([attempt.cell], executor)  # a sweep goes on with the others
        assert store.get(spec) == record
    night.reopen_failed([attempt.cell], executor)
    assert store.get(spec) is None
    assert read_record(attempt.folder / "attempts" / "1" / "failed.json") == record
    runs.retry(attempt.planned, store)  # another was faster and runs it
    done = record.model_copy(update={"status": "done", "reason": ""})
    store.commit(done)
    runs.retry(attempt.planned, store)  # and has finished it
    assert store.get(spec) == done
    assert not (attempt.folder / lease.NAME).exists()


def test_retrying_what_another_process_works_on_is_one_line(attempt, tmp_path):
    record = attempt("def misbehave(self):\n    raise ValueError")
    (tmp_path / "tiny.toml").write_text(
        'dataset = "digits"\nsize = 8\nbudget = "12steps"\nnum_samples = 60\nextractor = "digits-cnn"\n'
        'curve = [0.5, 1.0]\ncurve_samples = 20\nmetrics = ["fid"]\ngrace = 2.0\n'
    )
    command = [sys.executable, "-m", "genbench", "run", "mine.py:Mine", "--track", "tiny.toml", "--device", "cpu", "--threads", "1"]
    with lease.held(attempt.folder):
        refused = subprocess.run([*command, "--retry-failed"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2, refused.stderr
    assert "another process works on Mine seed 0" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert attempt.store.get(record.spec) == record


def test_ctrl_c_while_a_state_is_written_leaves_a_whole_one(attempt):
    """SIGTERM comes at a moment of the plugin's choosing: inside its step, before the loop asks whether to stop."""
    track = TRACK.model_copy(update={"budget": "400steps", "curve": (1.0,)})
    body = "def misbehave(self):\n    time.sleep(0.005)"
    whole = attempt(body, track=track, results="whole")

    def interrupt(event):
        if event["kind"] == "tick" and event["phase"] == "train":
            os.kill(os.getpid(), signal.SIGINT)

    for _ in range(2):
        assert attempt(OFTEN + body, track=track, on_event=interrupt) is None
        assert no_children_left()
        assert not list((attempt.folder / "state").glob(".new-*"))
    record = attempt(OFTEN + body, track=track)
    assert record.status == "done", record.reason
    assert record.digests["samples"] == whole.digests["samples"]
    assert (record.spent.attempts, record.spent.steps, record.spent.lost) == (3, 400, 0)


def test_stray_files_of_a_killed_writer_are_no_state_and_no_record(tmp_path):
    store, record = Store(tmp_path), make_record()
    folder = store.folder(record.spec)
    (folder / "state" / ".new-123").mkdir(parents=True)
    (folder / ".record.json.abc.tmp").write_text(record.model_dump_json())
    (folder / "state" / f"{3:012d}-{1:020d}").mkdir()
    assert store.get(record.spec) is None
    assert records.load(tmp_path).empty
    assert resume.restore(folder / "state", *trained()) is None
