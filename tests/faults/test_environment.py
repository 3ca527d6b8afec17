"""A machine that does not play along: no room on the disk, no cache, wrong clocks, files that are not what their names say."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from genbench import lease
from genbench.datasets.builtin import builtin_datasets
from genbench.errors import GenbenchError
from genbench.records import Store
from genbench.states import saved_steps
from genbench.sweep.plan import load_sweep
from genbench.track import load_track
from genbench.witness import noted
from tests.faults.conftest import MODEL

TINY = """
dataset = "digits"
size = 8
budget = "{budget}"
num_samples = 60
extractor = "digits-cnn"
curve = []
curve_samples = 0
metrics = ["fid"]
grace = 5.0
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "mine.py").write_text(MODEL + "\nclass Mine(Tiny):\n    def misbehave(self):\n        time.sleep(0.002)\n")
    (tmp_path / "tiny.toml").write_text(TINY.format(budget="30steps"))
    return tmp_path


def genbench(home, *arguments, most=None, **more):
    """Run a command; no file that it or its children write may be longer than `most` bytes: a write beyond fails as on a full disk."""
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))) if most else None
    quiet = ["-B"] if most else []  # Python 3.11 would leave halves of .pyc files, and others would stumble over them
    command = [sys.executable, *quiet, "-m", "genbench", *arguments]
    return subprocess.run(command, cwd=home, stderr=subprocess.PIPE, text=True, timeout=200, preexec_fn=limit, **more)


def run(home, *more, most=None, **options):
    arguments = ["run", "./mine.py:Mine", "--track", "tiny.toml", "--device", "cpu", "--threads", "1", *more]
    return genbench(home, *arguments, most=most, **{"stdout": subprocess.PIPE, **options})


def record_of(home):
    (record,) = Store(home / "results")
    return record


# ---- a full disk ----------------------------------------------------------------------------------------------------------


def test_a_disk_too_full_for_a_state_is_a_named_failure_and_with_room_again_the_run_is_retried(home):
    (home / "tiny.toml").write_text(TINY.format(budget="1500steps"))  # long enough for states to be saved
    full = run(home, most=10_000)
    assert full.returncode == 1, full.stderr
    record = record_of(home)
    assert record.status == "error"
    assert "File too large" in record.reason
    (home / "tiny.toml").write_text(TINY.format(budget="1500steps"))
    assert run(home).returncode == 1  # what failed stays failed until it is asked for
    again = run(home, "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert record_of(home).status == "done"
    assert not list((home / "results").rglob(".*"))


def test_a_disk_too_full_for_a_record_ends_the_command_in_one_line_and_the_run_is_still_to_come(home):
    full = run(home, most=1_500)
    assert full.returncode == 2, full.stderr
    said = [line for line in full.stderr.splitlines() if line.startswith("genbench:")]
    assert len(said) == 1
    assert "can't be written: File too large; the same command goes on once it can" in said[0]
    assert "Traceback" not in full.stderr
    assert not list((home / "results").rglob("record.json"))
    assert run(home).returncode == 0
    assert record_of(home).status == "done"
    assert not list((home / "results").rglob(".*"))


def test_output_that_goes_nowhere_is_no_traceback(home):
    with open("/dev/full", "w") as full:
        ended = genbench(home, "list", "tracks", "--json", stdout=full)
    assert ended.returncode not in (0, 130)
    assert "Traceback" not in ended.stderr


# ---- folders that can't be written ----------------------------------------------------------------------------------------


def test_without_a_cache_everything_works(home):
    (home / "file").write_text("")
    ended = run(home, "--json", env={**os.environ, "GENBENCH_CACHE": str(home / "file" / "cache")})
    assert ended.returncode == 0, ended.stderr
    (record,) = json.loads(ended.stdout)
    assert record["status"] == "done"


def test_results_that_cannot_be_written_are_refused_before_any_compute(home):
    (home / "file").write_text("")
    begun = time.monotonic()
    ended = run(home, "--results", "file/results")
    assert ended.returncode == 2
    assert "--results DIR" in ended.stderr
    assert time.monotonic() - begun < 60


# ---- asked to end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_whole_process_group_finds_the_training_saved(home, sent):
    """As `timeout`, a scheduler or a terminal that is closed does it; the fork server is in the group, too."""
    (home / "tiny.toml").write_text(TINY.format(budget="600s"))
    command = [sys.executable, "-m", "genbench", "run", "./mine.py:Mine", "--track", "tiny.toml", "--device", "cpu", "--threads", "1"]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    attempt = begun(home)
    while noted(attempt).steps < 20:
        time.sleep(0.01)
    os.killpg(process.pid, sent)
    assert process.wait(30) == 130
    assert saved_steps(attempt.parent.parent) == noted(attempt).steps >= 20


# ---- another torch --------------------------------------------------------------------------------------------------------


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def begun(home):
    """Wait until a training has begun -> the folder of its attempt."""
    deadline = time.monotonic() + 60
    while True:
        for path in (home / "results").rglob("clock"):
            if any(path.read_bytes()):
                return path.parent
        assert time.monotonic() < deadline
        time.sleep(0.05)


def interrupted(home):
    """A run that Ctrl-C has interrupted in the middle of its training -> its folder."""
    command = [sys.executable, "-m", "genbench", "run", "./mine.py:Mine", "--track", "tiny.toml", "--device", "cpu", "--threads", "1"]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun(home)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    (attempts,) = (home / "results").rglob("attempts")
    return attempts.parent


def test_a_run_that_was_begun_under_another_torch_is_left_as_it_is_and_goes_on_there(home):
    (home / "tiny.toml").write_text(TINY.format(budget="1500steps"))
    folder = interrupted(home)
    told = {path: path.read_bytes() for path in folder.rglob("state.json")}
    assert told
    for path, content in told.items():
        said = json.loads(content.partition(b"\n")[2])
        body = json.dumps(said | {"made": said["made"] | {"torch": "0.1"}}).encode()
        path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    before = contents(folder)

    refused = run(home)
    assert refused.returncode == 2, refused.stderr
    assert "Mine seed 0 was begun with torch 0.1; here it is torch " in refused.stderr
    assert ": go on there, or delete results/runs/tiny/Mine/0-" in refused.stderr
    assert contents(folder) == before

    (home / "night.toml").write_text('models = ["./mine.py:Mine"]\ntracks = ["tiny.toml"]\nseeds = 2\n')
    night = genbench(home, "sweep", "night.toml", "--device", "cpu", "--threads", "1", stdout=subprocess.PIPE)
    assert night.returncode == 1, night.stderr
    assert "skipped: Mine seed 0 was begun with torch 0.1" in night.stdout
    assert "1 done, 1 to come" in night.stdout
    assert "; 1 skipped" in night.stdout
    assert contents(folder) == before

    for path, content in told.items():
        path.write_bytes(content)
    assert run(home).returncode == 0
    record = next(record for record in Store(home / "results") if record.spec.seed == 0)
    assert (record.status, record.spent.attempts, record.spent.steps) == ("done", 2, 1500)


# ---- clocks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-1, 1])
def test_a_lease_goes_by_the_clock_of_its_folder_not_by_ours(tmp_path, monkeypatch, days):
    truly = time.time
    with lease.held(tmp_path):
        monkeypatch.setattr(time, "time", lambda: truly() + 86_400 * days)
        assert lease.busy(tmp_path)
        with pytest.raises(lease.BusyError), lease.held(tmp_path):
            pass
    assert not lease.busy(tmp_path)


def test_a_wall_clock_that_is_set_moves_no_clock_of_ours():
    """In a process whose wall clock runs backwards by an hour at every look, from before anything is imported."""
    code = """
    import time
    now = [1e9]
    def set_back():
        now[0] -= 3600
        return now[0]
    time.time = set_back
    time.time_ns = lambda: int(set_back() * 1e9)
    import torch
    from genbench.budget import Budget, Meter
    from genbench.ranks import Alone
    from genbench.resume import Cadence
    meter, alone, cadence = Meter(Budget.parse("10s")), Alone(torch.device("cpu"), lambda: None), Cadence()
    begun = alone.clock(), alone.wall()
    with meter.running():
        time.sleep(0.6)
    assert 0.5 < meter.seconds < 30, meter.seconds
    assert 0.5 < alone.clock() - begun[0] < 30
    assert 0.5 < alone.wall() - begun[1] < 30
    assert cadence.due()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=100)


# ---- files that are not what they should be -------------------------------------------------------------------------------

YAML = """!!python/object/apply:os.system ["touch canary"]
models: [dcgan]
"""
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("text", [YAML, LAUGHS, "models = *all\n", "<html>\n<p>404</p>\n"], ids=["object", "aliases", "alias", "html"])
@pytest.mark.parametrize("read", [load_sweep, load_track])
def test_what_is_not_toml_is_refused_with_its_line_and_nothing_in_it_is_executed(read, text, tmp_path, monkeypatch):
    """Aliases and objects are YAML's, which nothing here reads."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "plan.toml"
    file.write_text(text)
    with pytest.raises(GenbenchError, match=r"plan\.toml.*line 1, column") as error:
        read(file)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "canary").exists()


HTML = b"<!DOCTYPE html><html><title>404 Not Found</title><p>The mirror has moved.</p></html>"
SPECS = {spec.name: spec for spec in builtin_datasets()}


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-images-idx3-ubyte"])
def test_a_page_saved_in_the_place_of_a_dataset_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_OFFLINE", "1")
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    endings = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
    for ending in endings:
        (raw / (ending + Path(name).suffix)).write_bytes(HTML)
    with pytest.raises(GenbenchError, match="KMNIST") as error:
        SPECS["kmnist"].load(tmp_path)
    assert "\n" not in str(error.value)
    assert "damaged" in str(error.value) or "not whole" in str(error.value)


def test_a_damaged_dataset_is_refused_before_anything_trains(home):
    raw = home / "data" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for ending in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (raw / ending).write_bytes(HTML)
    (home / "tiny.toml").write_text(TINY.format(budget="600s").replace('"digits"', '"kmnist"').replace("size = 8", "size = 32"))
    ended = run(home, env={**os.environ, "GENBENCH_DATA": str(home / "data"), "GENBENCH_OFFLINE": "1"})
    assert ended.returncode == 2, ended.stderr
    assert "KMNIST" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list((home / "results").rglob("attempts"))
