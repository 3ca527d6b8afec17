"""Sweeps on this machine: a night in which everything goes wrong, two sweeps on one folder, Ctrl-C once and twice."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from genbench import machine
from genbench import run as runs
from genbench.errors import GenbenchError
from genbench.jobs import Checked
from genbench.records import Store
from genbench.sweep.cell import Wishes
from genbench.sweep.local import LocalExecutor
from genbench.track import Track

MODELS = '''
import os, signal, time
import torch
from torch import nn

class Steady(nn.Module):
    family = "other"
    def __init__(self, image, lr: float = 1e-2):
        super().__init__()
        self.image, self.lr, self.batch_size = image, lr, 16
        self.net = nn.Conv2d(1, 1, 3, padding=1)
        self.register_buffer("count", torch.tensor(0))
    def configure_optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), self.lr)}
    def training_step(self, batches, optimizers):
        real = next(batches).images
        self.count += 1
        self.misbehave()
        loss = (self.net(real + torch.randn_like(real)) - real).square().mean()
        optimizers["all"].minimize(loss)
        return {"loss": loss.detach()}
    def misbehave(self):
        time.sleep(0.01)
    def sample(self, n):
        return self.net(torch.randn(n, *self.image.shape)).tanh()

class Hangs(Steady):
    def misbehave(self):
        if self.count > 5:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)

class Leaks(Steady):
    def misbehave(self):
        self.hoard = [*getattr(self, "hoard", []), torch.empty(1 << 28)]

class Raises(Steady):
    def misbehave(self):
        if self.count > 5:
            raise ValueError("no more")

class Nan(Steady):
    def misbehave(self):
        if self.count > 5:
            self.net.weight.data.fill_(float("nan"))

class Victim(Steady):
    pass

class Slow(Steady):
    def misbehave(self):
        time.sleep(0.05)
'''
GRID = '[grid."./zoo.py:Steady"]\nlr = [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3]\n'
TRACK = """
dataset = "digits"
size = 8
budget = "{budget}"
num_samples = 60
extractor = "digits-cnn"
curve = [1.0]
curve_samples = 0
metrics = ["fid"]
grace = 2.0
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "zoo.py").write_text(MODELS)
    (tmp_path / "tiny.toml").write_text(TRACK.format(budget="1s"))
    return tmp_path


def write(home, models, seeds, more=""):
    named = ", ".join(f'"./zoo.py:{name}"' for name in models)
    (home / "sweep.toml").write_text(f'models = [{named}]\ntracks = ["tiny.toml"]\nseeds = {seeds}\n{more}')


def start(home, *more):
    """A sweep in the background; what it says goes to ``said``."""
    with open(home / "said", "w") as said:
        return subprocess.Popen(command(home, *more), cwd=home, stdout=said, stderr=subprocess.STDOUT, text=True)


def command(home, *more):
    return [sys.executable, "-m", "genbench", "sweep", "sweep.toml", "--device", "cpu", "--threads", "1", *more]


def sweep(home, *more, timeout=200):
    return subprocess.run(command(home, *more), cwd=home, capture_output=True, text=True, timeout=timeout)


def records(home, results="results"):
    return {(r.spec.model.name, r.spec.seed): r for r in Store(home / results)}


@pytest.mark.timeout(400)
def test_a_sweep_in_which_everything_goes_wrong(home):
    """Twelve runs: one hangs, one leaks memory, one raises, one returns NaN, one is killed by hand each time it trains."""
    write(home, ["Steady", "Hangs", "Leaks", "Raises", "Nan", "Victim"], 1, GRID)
    begun = time.monotonic()
    process = start(home)
    parent, kills = psutil.Process(process.pid), 0
    while process.poll() is None and time.monotonic() - begun < 270:
        if any("Victim" in str(path) for path in training(home)):
            for child in parent.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if child.ppid() != process.pid and child.status() != "zombie":
                        child.kill()
                        kills += 1
            time.sleep(0.3)
        time.sleep(0.02)
    assert process.wait(10) == 1, (home / "said").read_text()
    found = list(Store(home / "results"))
    assert len(found) == 12
    wrong = {record.spec.model.name: record for record in found if record.spec.model.name != "Steady"}
    assert {name: record.status for name, record in wrong.items()} == {
        "Hangs": "timeout", "Leaks": "oom", "Raises": "error", "Nan": "diverged", "Victim": "error"
    }  # fmt: skip
    assert wrong["Raises"].reason == "ValueError: no more"
    assert "SIGKILL, 3 times in a row" in wrong["Victim"].reason
    assert [record.status for record in found if record.spec.model.name == "Steady"] == ["done"] * 7
    assert "7 done, 5 failed" in (home / "said").read_text()
    # one second of training and about three of starting, sampling and scoring a run; the hang costs its grace, the victim three starts:
    # about a minute on two quiet cores. Hangs would sleep ten.
    assert_nothing_is_left(home)


def assert_nothing_is_left(home):
    """No lease, no stray file, no state."""
    left = [path.name for path in (home / "results").rglob("*") if path.name.startswith((".", "lease"))]
    assert left == []
    assert not list((home / "results").rglob("state"))


def test_the_same_command_again_repeats_nothing_and_retries_what_failed_where_asked(home):
    write(home, ["Steady", "Raises"], 1)
    assert sweep(home).returncode == 1
    stamps = {key: record.started for key, record in records(home).items()}
    again = sweep(home, "--json")
    assert again.returncode == 1
    assert [r["status"] for r in json.loads(again.stdout)] == ["done", "error"]
    assert {key: record.started for key, record in records(home).items()} == stamps
    (home / "zoo.py").write_text(MODELS)  # the same bytes: the same runs
    time.sleep(1.1)
    assert sweep(home, "--retry-failed").returncode == 1
    changed = {key: record.started for key, record in records(home).items()}
    assert changed["Steady", 0] == stamps["Steady", 0]
    assert changed["Raises", 0] != stamps["Raises", 0]


def test_a_dry_run_tells_and_does_nothing(home):
    write(home, ["Steady", "Slow"], 3)
    told = sweep(home, "--dry-run", "--only", "Slow")
    assert told.returncode == 0
    assert "3 runs, 3 to run: 0.00 device-hours" in told.stdout
    plan = json.loads(sweep(home, "--dry-run", "--json").stdout)
    assert [(row["model"], row["seed"], row["state"]) for row in plan] == [(m, s, "to run") for s in range(3) for m in ("Steady", "Slow")]
    assert not list((home / "results").rglob("record.json"))


def test_two_sweeps_on_one_folder_run_each_run_once(home):
    write(home, ["Steady"], 5)
    both = [subprocess.Popen(command(home), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    told = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    found = records(home)
    assert len(found) == 5
    assert {record.spent.attempts for record in found.values()} == {1}
    folders = list((home / "results/runs/tiny/Steady").iterdir())
    assert [len(list((folder / "attempts").iterdir())) for folder in folders] == [1] * 5
    assert all("5 done" in text for text in told)
    assert_nothing_is_left(home)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def training(home):
    """Clocks of trainings that have taken steps, among folders that come and go meanwhile."""
    clocks = [Path(folder) / "clock" for folder, _, files in os.walk(home / "results") if "clock" in files]
    return [path for path in clocks if any(read(path))]


def read(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_saves_and_the_same_command_goes_on(home, sent):
    (home / "tiny.toml").write_text(TRACK.format(budget="120steps"))
    write(home, ["Slow"], 2)
    process = start(home)
    wait_for(lambda: training(home))
    time.sleep(1)
    process.send_signal(sent)
    assert process.wait(30) == 130, (home / "said").read_text()
    assert (home / "said").read_text().endswith("genbench: interrupted; the same command resumes\n")
    assert not list((home / "results").rglob("record.json"))
    assert not list((home / "results").rglob("lease"))
    assert sweep(home).returncode == 0
    found = records(home)
    assert found["Slow", 0].spent.attempts == 2
    assert (found["Slow", 0].spent.steps, found["Slow", 0].spent.lost) == (120, 0)


def test_a_second_ctrl_c_kills_and_a_killed_sweep_is_taken_over(home):
    (home / "tiny.toml").write_text(TRACK.format(budget="100steps"))
    write(home, ["Hangs", "Slow"], 1)
    process = start(home)
    wait_for(lambda: training(home))
    time.sleep(1)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert time.monotonic() - begun < 30  # Hangs ignores SIGTERM; nobody waited for it
    process = start(home, "--only", "Slow")
    wait_for(lambda: any("Slow" in str(path) for path in training(home)))
    time.sleep(1.5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert list((home / "results").rglob("lease"))
    assert sweep(home, "--only", "Slow").returncode == 0  # at once: its holder is known to be dead
    assert records(home)["Slow", 0].spent.steps == 100
    assert records(home)["Slow", 0].spent.lost >= 0


def test_parallel_runs_share_the_cores(home):
    write(home, ["Steady"], 4)
    done = sweep(home, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    found = list(records(home).values())
    assert len(found) == 4
    assert {record.environment.threads for record in found} == {1}
    intervals = sorted(Path(p).stat().st_mtime for p in (home / "results").rglob("record.json"))
    assert len(intervals) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("--executor", "slurm"), "executor 'slurm' is not one of"), (("--only", "nobody"), "leaves no run")],
)
def test_a_users_mistake_is_one_line(home, arguments, says):
    write(home, ["Steady"], 1)
    done = sweep(home, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


# ---- what a run gets of the machine --------------------------------------------------------------------------------------


@pytest.fixture
def shares(tmp_path, monkeypatch):
    """Places and devices of a sweep on a machine of 16 cores, 1000 bytes for a run alone, and GPUs of these names."""
    asked = []

    def of(gpus=(), **wishes):
        def check(track, supervisor, *, results, device, threads, weights, devices):
            asked.append(device)
            found = "cuda" if gpus and device == "auto" else device if gpus else "cpu"
            name = gpus[int(found.partition(":")[2] or 0)] if gpus else "a processor"
            checked = Checked(
                device=found, device_class=name if gpus else f"cpu-{threads}", device_name=name, num_devices=len(gpus) or 1, channels=1,
                num_train=1, num_holdout=1, num_test=1, num_classes=10, torch="2", packages={},
            )  # fmt: skip
            return runs.Place(Store(results), checked, threads, weights, 1000, devices)

        monkeypatch.setattr(runs, "check", check)
        monkeypatch.setattr(machine, "cores", lambda: 16)
        executor = LocalExecutor(Wishes(tmp_path, **wishes), None)
        track = Track(name="tiny", dataset="digits", size=8, budget="5steps", num_samples=50, extractor="digits-cnn")
        places = executor.places([track, track], [])
        return places, executor._devices

    of.asked = asked
    return of


def test_runs_at_once_share_memory_and_threads(shares):
    places, devices = shares(jobs=4)
    assert devices == ["cpu"] * 4
    assert [(place.memory, place.threads, place.checked.device_class) for place in places] == [(250, 4, "cpu-4")] * 2
    places, _ = shares()
    assert (places[0].memory, places[0].threads) == (1000, 16)
    places, devices = shares(["A", "A", "A"], jobs=2)
    assert devices == ["cuda:0", "cuda:1", "cuda:2"] * 2
    assert [place.threads for place in places] == [2, 2]
    assert shares(["A", "A", "A"], threads=7)[0][0].threads == 7


def test_runs_share_only_gpus_that_are_called_as_the_first(shares, caplog):
    places, devices = shares(["A", "A", "B", "A"])
    assert devices == ["cuda:0", "cuda:1", "cuda:3"]
    assert places[0].threads == 5
    (said,) = caplog.messages
    assert "GPUs of one kind, A; not on cuda:2 (B)" in said
    assert shares(["A", "A", "B", "A", "A", "A"], devices=2)[1] == ["cuda:0", "cuda:4"]
    with pytest.raises(GenbenchError, match="of the GPUs A, B no 2 side by side are the same"):
        shares(["A", "B"], devices=2)
    caplog.clear()
    shares.asked.clear()
    assert shares(["A", "B"], device="cuda:1")[1] == ["cuda:1"]
    assert shares.asked == ["cuda:1"] * 2  # one was asked for: nothing to compare
    assert shares(["A", "A"])[1] == ["cuda:0", "cuda:1"]
    assert caplog.messages == []
