"""One run over several devices, on two processes that speak through gloo: the same step, the same clock, one fate."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import torch

from genbench import devices
from genbench import run as runs
from genbench.budget import Budget, Meter
from genbench.datasets.resident import TrainingBatches
from genbench.descriptions import describe_model
from genbench.errors import GenbenchError
from genbench.inventory import describe_file, inventory
from genbench.jobs import Checked
from genbench.model import ModelSpec
from genbench.origin import Entry
from genbench.records import RunRecord, Store
from genbench.supervisor import Supervisor
from genbench.sweep.local import devices_for, threads_for
from genbench.sweep.plan import load_sweep
from genbench.track import Track, shipped_tracks
from tests.toys import make_data

HERE = Path(__file__).parent
CPU = torch.device("cpu")
TRACK = Track(
    name="tiny", dataset="digits", size=8, budget="12steps", num_samples=60, extractor="digits-cnn",
    curve=(0.5, 1.0), curve_samples=60, metrics=("fid",), grace=20.0,
)  # fmt: skip
MODEL = """
import os, signal, time
import torch
from torch import nn
from torch import distributed

class Tiny(nn.Module):
    family = "other"
    def __init__(self, image, width: int = 3, batch_size: int = 16):
        super().__init__()
        self.image, self.batch_size, self.count = image, batch_size, 0
        self.net = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 1, 1))
    def configure_optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), 1e-2)}
    def training_step(self, batches, optimizers):
        real = next(batches).images
        self.count += 1
        self.misbehave(distributed.get_rank())
        loss = (self.net(real + torch.randn_like(real)) - real).square().mean()
        optimizers["all"].minimize(loss)
        return {"loss": loss}
    def misbehave(self, rank):
        pass
    def sample(self, n):
        return self.net(torch.randn(n, *self.image.shape)).tanh()
"""


@pytest.fixture(scope="module")
def supervisor():
    return Supervisor()


@pytest.fixture
def attempt(tmp_path, supervisor):
    """Train the class `Mine`, given as a body, on two devices, and return its record."""

    def attempt(body="", track=TRACK, results="results", **options):
        file = tmp_path / "mine.py"
        file.write_text(MODEL + "\nclass Mine(Tiny):\n" + textwrap.indent(textwrap.dedent(body) or "pass", "    ") + "\n")
        place = runs.check(track, supervisor, results=tmp_path / results, device="cpu", threads=2, devices=2)
        (planned,) = runs.plan([describe_file(f"{file}:Mine")], track, [0], place, {})
        attempt.folder = place.store.folder(planned.spec)
        return runs.run(planned, place, supervisor, **options)

    return attempt


def nobody_left():
    """True when nothing but the fork server and its helpers, this process's own children, is left."""
    own = psutil.Process()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked
            if not [child for child in own.children(recursive=True) if child.ppid() != own.pid and child.status() != "zombie"]:
                return True
        time.sleep(0.1)
    return False


# ---- names and parts --------------------------------------------------------------------------------------------------------


def test_a_class_of_several_devices_is_another_class():
    assert devices.class_of("cpu-1", 1) == "cpu-1"
    assert devices.class_of("NVIDIA H100 80GB HBM3", 4) == "4x NVIDIA H100 80GB HBM3"
    assert devices.apart("4x NVIDIA H100 80GB HBM3") == (4, "NVIDIA H100 80GB HBM3")
    assert devices.apart("NVIDIA RTX 2x") == (1, "NVIDIA RTX 2x")


def test_ranks_take_the_devices_that_follow_the_first():
    assert [devices.device_of("cuda:2", number) for number in range(3)] == ["cuda:2", "cuda:3", "cuda:4"]
    assert [devices.device_of("cuda", number) for number in range(2)] == ["cuda:0", "cuda:1"]
    assert devices.device_of("cpu", 1) == "cpu"


def test_what_has_no_equal_parts_is_refused_with_what_has():
    assert devices.part_of(48, 3, "model 'a'") == 16
    with pytest.raises(GenbenchError, match=r"model 'a' has batches of 50 images, which 4 devices can't share; 48 would do"):
        devices.part_of(50, 4, "model 'a'")
    assert devices.threads_of(6, 3) == 2
    with pytest.raises(GenbenchError, match="5 CPU threads can't be shared by 3 devices; use --threads 3 or 6"):
        devices.threads_of(5, 3)
    with pytest.raises(GenbenchError, match=r"use --threads 2$"):
        devices.threads_of(1, 2)


@pytest.mark.parametrize("grey", [False, True])
def test_the_parts_of_all_ranks_are_the_batch(grey):
    data = make_data()
    if grey:
        data = type(data)(**{**vars(data), "grey": data.train})

    def drawn(rank, ranks):
        meter = Meter(Budget.parse("1steps"))
        batches = TrainingBatches(data, batch_size=30, seed=4, meter=meter, device=CPU, flip=True, rank=rank, ranks=ranks)
        found = [next(batches) for _ in range(5)]  # into the second epoch
        assert (batches.drawn, meter.images) == (5, 150)
        return torch.stack([batch.images for batch in found]), torch.stack([batch.labels for batch in found])

    parts = [drawn(rank, 3) for rank in range(3)]
    images, labels = drawn(0, 1)
    assert torch.equal(torch.cat([part[0] for part in parts], 1), images)
    assert torch.equal(torch.cat([part[1] for part in parts], 1), labels)


def test_gpus_are_shared_out_in_groups(tmp_path):
    def found(device, number, each, jobs=None):
        checked = Checked.model_construct(device=device, num_devices=number)
        return devices_for(runs.Place(Store(tmp_path), checked, 1, devices=each), jobs)

    assert found("cuda", 5, 2) == ["cuda:0", "cuda:2"]
    assert found("cuda", 3, 1) == ["cuda:0", "cuda:1", "cuda:2"]
    assert found("cuda:4", 8, 2, jobs=2) == ["cuda:4", "cuda:4"]
    assert threads_for(7, 2, 2) == 2
    assert threads_for(7, 2) == 3
    assert threads_for(2, 2, 2) == 1  # too few, which is said where they are shared


def test_a_sweep_says_its_devices(tmp_path):
    file = tmp_path / "night.toml"
    file.write_text('models = ["dcgan"]\ntracks = ["mnist-60s"]\ndevices = 2\n')
    assert load_sweep(file).devices == 2
    file.write_text('models = ["dcgan"]\ntracks = ["mnist-60s"]\ndevices = 0\n')
    with pytest.raises(GenbenchError, match="devices"):
        load_sweep(file)


# ---- models that can't ------------------------------------------------------------------------------------------------------


def planned(tmp_path, names, hp=None, number=2, track=TRACK):
    checked = Checked.model_construct(device="cpu", device_class="2x cpu-1", num_classes=10, num_train=1000)
    place = runs.Place(Store(tmp_path), checked, 2, devices=number)
    return runs.plan([inventory().model(name) for name in names], track, [0], place, hp or {})


CANNOT = {
    "began", "dragan", "stylegan2", "r3gan", "beta-tc-vae", "info-vae", "wae-mmd", "rae", "vq-vae", "vae-gan",
    "conv-vae", "cvae",  # with the likelihood of their defaults
    "train-copy", "pca-gaussian", "per-pixel-histogram", "mean-image", "one-sample",
}  # fmt: skip


def test_models_whose_step_does_not_split_are_refused_before_anything_starts(tmp_path):
    refused = set()
    for model in inventory().models:
        try:
            planned(tmp_path, [model.name])
        except GenbenchError as error:
            if str(error).startswith(f"model {model.name!r} trains on one device, not 2: "):
                refused.add(model.name)
    assert refused & CANNOT == CANNOT
    assert not refused & {"gan", "cgan", "dcgan", "infogan", "acgan", "lsgan", "wgan", "wgan-gp", "sngan", "cgan-pd", "biggan"}
    assert not refused & {"vae", "iwae", "beta-vae", "vamp-vae", "ladder-vae", "aae", "real-holdout", "noise"}
    planned(tmp_path, sorted(CANNOT), number=1)


def test_hparams_may_decide_whether_a_model_splits(tmp_path):
    planned(tmp_path, ["conv-vae"], {"conv-vae": {"likelihood": "bernoulli"}})
    planned(tmp_path, ["conv-vae"], {"conv-vae": {"sigma": "0.1"}})
    with pytest.raises(GenbenchError, match="optimal sigma"):
        planned(tmp_path, ["vae"], {"vae": {"likelihood": "gaussian"}})
    with pytest.raises(GenbenchError, match="mixture"):
        planned(tmp_path, ["conv-vae"], {"conv-vae": {"likelihood": "bernoulli", "prior": "gmm"}})


def test_a_batch_that_does_not_split_is_refused_before_anything_starts(tmp_path):
    planned(tmp_path, ["dcgan"], {"dcgan": {"batch_size": "9"}}, number=3)
    with pytest.raises(GenbenchError, match=r"model 'dcgan' has batches of 9 images, which 2 devices can't share; 8 would do"):
        planned(tmp_path, ["dcgan"], {"dcgan": {"batch_size": "9"}})


def test_the_examples_of_the_docs_split(tmp_path):
    pages = "".join((HERE.parent / page).read_text(encoding="utf-8") for page in ("README.md", "docs/devices.md"))
    shown = re.findall(r"genbench run (\S+) --track (\S+) .*--devices (\d+)", pages)
    assert len(shown) == 4
    for model, name, number in shown:
        (track,) = [track for track in shipped_tracks() if track.name == name]
        planned(tmp_path, [model], number=int(number), track=track)


@pytest.mark.parametrize("said", ["why", {"": "why"}, {"width=3": "why"}, {"wide=3": "why"}, {"width=x": "why"}])
def test_a_mark_is_for_all_hparams_or_for_some(said):
    class Model(torch.nn.Module):
        def __init__(self, image, width: int = 3):
            super().__init__()

        def sample(self, n):
            return torch.zeros(n, 1, 8, 8)

    entry = Entry(ModelSpec("m", Model, family="gan", single_device=said), "d", "1", "", "s")
    if "wide=3" in said or "width=x" in said:
        with pytest.raises(TypeError, match="single_device"):
            describe_model(entry)
        return
    model = describe_model(entry)
    assert model.alone({"width": 3}) == "why"
    assert model.alone({"width": 4}) == ("" if "width=3" in said else "why")


# ---- two ranks -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the script of two ranks found."""
    command = [sys.executable, str(HERE / "two_ranks.py"), str(tmp_path_factory.mktemp("ranks"))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=HERE.parent)
    said = json.loads(ended.stdout.splitlines()[-1])
    assert said["kind"] == "result", ended.stderr
    return said["value"]


@pytest.mark.parametrize("name", ["vae", "wgan-gp", "sngan", "dcgan", "clipped"])
def test_the_gradients_of_two_ranks_are_those_of_one_process_on_the_joint_batch(found, name):
    """Every gradient of a step, the penalty's and both players'; BatchNorm and singular vectors too."""
    assert found[name]["difference"] < 1e-5
    assert found[name]["buffers"] < 1e-6
    assert found[name]["largest"] > 0.05


def test_batch_norm_over_ranks_is_batch_norm_over_the_batch(found):
    """Output, gradient, gradient of the gradient, running mean and variance; relative."""
    assert len(found["batch norm"]) == 5
    assert max(found["batch norm"]) < 2e-6


def test_a_continued_training_of_two_ranks_is_bit_equal(found):
    assert found["resumed"] == {"same": True, "same on both": True, "own noise": True, "images": 90}


def test_two_ranks_spend_device_seconds_and_stop_at_the_same_step(found):
    timed = found["timed"]
    assert timed["seconds"] >= 2
    assert timed["seconds"] / 2 <= timed["wall"] < 0.8 * timed["seconds"]  # the rest is what happens between steps
    for what in ("steps", "images", "progress"):
        first, second = timed[what]
        assert first == second > 0
    assert timed["images"][0] == 10 * timed["steps"][0]
    assert timed["points"][-1] == 1.0


def test_where_one_rank_is_finished_both_stop_at_the_same_step(found):
    finished = found["finished"]
    assert finished["early"] is True
    assert finished["steps"][0] == finished["steps"][1]
    assert 3 <= finished["steps"][0] < 1000


def test_ranks_that_went_apart_are_told_why(found):
    said = found["refusals"]
    assert "begin with different weights" in said["weights"]
    assert "'k' differs" in said["buffer"]
    assert "ModelSpec(single_device" in said["buffer"]
    assert (said["rounding"], said["k"]) == ("", 2.0)  # the first rank's value on both
    assert "parameters are no longer the same" in said["parameters"]
    assert "other shapes" in said["shapes"]
    assert "Own is a BatchNorm of the model's own" in said["own"]
    assert len(said["steps"]) == 2
    assert all("the devices went different ways: one is at step" in words for words in said["steps"])
    assert said["loss"] == [{"a": 1.5, "b": 5.0}, True]


# ---- whole runs ------------------------------------------------------------------------------------------------------------


def test_a_whole_run_on_two_devices(tmp_path):
    (tmp_path / "tiny.py").write_text(MODEL)
    (tmp_path / "tiny.toml").write_text(
        'dataset = "digits"\nsize = 8\nbudget = "12steps"\nnum_samples = 60\nextractor = "digits-cnn"\n'
        'curve = [0.5, 1.0]\ncurve_samples = 60\nmetrics = ["fid"]\n'
    )
    command = [sys.executable, "-m", "genbench", "run", "./tiny.py:Tiny", "--track", "tiny.toml", "--json"]
    command += ["--device", "cpu", "--devices", "2", "--threads", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=250)
    assert ended.returncode == 0, ended.stderr
    (said,) = json.loads(ended.stdout)
    record = RunRecord.model_validate(said)
    assert record.status == "done"
    assert record.spec.device == "2x cpu-1"
    assert (record.spent.steps, record.spent.images) == (12, 12 * 16)
    assert record.spent.seconds > 0
    assert record.throughput.train > 0
    assert [point.steps for point in record.curve] == [6, 12]
    assert all(point.fid > 0 for point in record.curve)


def test_two_devices_of_one_step_count_the_flops_of_both(attempt):
    record = attempt()
    pixels, first, second = 16 * 64, 3 * 9, 3
    # forward and both backward convolutions; the first layer needs no gradient of its input
    assert record.spent.flops == 12 * 2 * pixels * (first * 2 + second * 3)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def misbehave(self, rank):\n    if rank == 1 and self.count == 3:\n        raise ValueError('odd step')", "ValueError: odd step"),
        ("def misbehave(self, rank):\n    if rank == 1:\n        os._exit(0)", "the process of device 2 of 2 ended with exit code 0"),
        ("def misbehave(self, rank):\n    if rank == 1:\n        os.kill(os.getpid(), 9)", "device 2 of 2 was killed by SIGKILL, 3 times"),
        ("def misbehave(self, rank):\n    if rank == 0:\n        os.kill(os.getpid(), 9)", "the process was killed by SIGKILL, 3 times"),
        ("def misbehave(self, rank):\n    self.net[0].weight.data.add_(rank)", "no longer the same on all devices"),
    ],
)
def test_a_rank_that_goes_its_own_way_is_a_named_failure_and_leaves_nobody(attempt, body, says):
    record = attempt(body)
    assert record.status == "error"
    assert says in record.reason
    assert nobody_left()
    assert record.digests == {}


def test_a_rank_that_hangs_is_killed_at_budget_and_grace(attempt):
    body = "def misbehave(self, rank):\n    if rank == 1 and self.count == 1:\n        time.sleep(600)"
    began = time.monotonic()
    record = attempt(body, track=TRACK.model_copy(update={"budget": "2s", "grace": 2.0}))
    assert record.status == "timeout"
    assert "budget and grace are 2 s" in record.reason  # of device-seconds there are twice as many
    assert time.monotonic() - began < 120
    assert nobody_left()


def test_an_interrupted_run_on_two_devices_goes_on_bit_for_bit(attempt):
    track = TRACK.model_copy(update={"budget": "200steps", "curve": (0.05, 1.0)})
    slow = "def misbehave(self, rank):\n    time.sleep(0.02 if self.count > 10 else 0)"
    whole = attempt(slow, track=track, results="whole")

    def interrupt(event):
        if event["kind"] == "tick" and event["phase"] == "train":
            os.kill(os.getpid(), signal.SIGINT)

    assert attempt(slow, track=track, on_event=interrupt) is None
    assert nobody_left()
    record = attempt(slow, track=track)
    assert record.status == whole.status == "done", record.reason
    assert record.spent.attempts == 2
    assert record.digests == whole.digests
