"""Whole runs through real child processes, on the bundled digits."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import genbench.supervisor as supervisor_module
from genbench import run as runs
from genbench.errors import GenbenchError
from genbench.inventory import describe_file
from genbench.supervisor import Supervisor
from genbench.track import Track
from genbench.witness import Witness
from tests.faults.conftest import no_children_left

TRACK = Track(
    name="tiny", dataset="digits", size=8, budget="12steps", num_samples=60, extractor="digits-cnn",
    curve=(0.5, 1.0), curve_samples=60, metrics=("fid", "statistical_fidelity"), grace=2.0,
)  # fmt: skip

MODEL = """
import os, signal, sys, threading, time
import torch
from torch import nn

class Tiny(nn.Module):
    family = "other"
    def __init__(self, image, width: int = 3, lr: float = 1e-2):
        super().__init__()
        self.image, self.lr, self.batch_size, self.count = image, lr, 16, 0
        self.net = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 1, 1))
    def configure_optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), self.lr)}
    def training_step(self, batches, optimizers):
        real = next(batches).images
        self.count += 1
        self.misbehave()
        loss = (self.net(real + torch.randn_like(real)) - real).square().mean()
        optimizers["all"].minimize(loss)
        return {"loss": loss}
    def misbehave(self):
        pass
    def sample(self, n):
        return self.net(torch.randn(n, *self.image.shape)).tanh()
"""


@pytest.fixture(scope="module")
def supervisor():
    return Supervisor()


@pytest.fixture
def attempt(tmp_path, supervisor):
    """Run the class `Mine`, given as a body, and return its record."""

    def attempt(body="", track=TRACK, results="results", seed=0, hp=None, device="cpu", **options):
        file = tmp_path / "mine.py"
        file.write_text(MODEL + "\nclass Mine(Tiny):\n" + textwrap.indent(textwrap.dedent(body) or "pass", "    ") + "\n")
        model = describe_file(f"{file}:Mine")
        place = runs.check(track, supervisor, results=tmp_path / results, device=device, threads=1)
        (planned,) = runs.plan([model], track, [seed], place, {"Mine": hp or {}})
        attempt.folder = place.store.folder(planned.spec)
        attempt.planned, attempt.place = planned, place
        return runs.run(planned, place, supervisor, **options)

    return attempt


def test_a_run_from_a_file_to_its_record(attempt):
    record = attempt()
    assert record.status == "done", (record.reason, record.log_tail)
    assert record.spent.steps == 12
    assert record.spent.images == 12 * 16
    assert record.spent.flops > 0
    assert record.spent.gemm_gflops[0] > 0
    assert record.score("fid") > 0
    assert 0 <= record.score("statistical_fidelity") <= 1
    assert [point.progress for point in record.curve] == [0.5, 1.0]
    assert all(point.fid > 0 for point in record.curve)
    assert record.throughput.sample["64"][0] > 0
    assert record.throughput.train_peak_bytes > 1 << 20
    assert record.spec.model.source == "mine.py:Mine"
    assert {path.name for path in attempt.folder.iterdir()} == {
        "record.json", "samples.npz", "grid.png", "checkpoint.safetensors", "checkpoint.json", "curve.csv", "attempts",
    }  # fmt: skip
    samples = np.load(attempt.folder / "samples.npz", allow_pickle=False)["images"]
    assert samples.shape == (60, 1, 8, 8)
    assert samples.dtype == np.uint8
    assert attempt.place.store.get(attempt.planned.spec) == record
    assert str(attempt.folder.parent) not in (attempt.folder / "record.json").read_text()


def test_equal_seeds_and_steps_give_bit_equal_samples(attempt):
    digests = [attempt(results=name, seed=seed).digests for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert digests[0] == digests[1]
    assert digests[0]["samples"] != digests[2]["samples"]
    assert digests[0]["checkpoint"] != digests[2]["checkpoint"]


def test_hparams_reach_the_model(attempt):
    record = attempt(hp={"width": "5"})
    assert record.spec.model.hparams == {"width": 5, "lr": 1e-2}
    assert record.spec.model.changed == {"width": 5}
    assert record.throughput.parameters == 5 * 9 + 5 + 5 + 1


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("def misbehave(self):\n    raise ValueError('odd step')", "error", "ValueError: odd step"),
        ("def misbehave(self):\n    sys.exit('bye')", "error", "SystemExit: bye"),
        ("def misbehave(self):\n    raise KeyboardInterrupt", "error", "KeyboardInterrupt"),
        ("def misbehave(self):\n    os._exit(0)", "error", "exit code 0"),
        ("def misbehave(self):\n    os.abort()", "error", "SIGABRT, 3 times in a row"),
        ("def misbehave(self):\n    if self.count > 2:\n        os.kill(os.getpid(), 9)", "error", "SIGKILL, 3 times in a row"),
        ("def sample(self, n):\n    os.kill(os.getpid(), 9)", "error", "SIGKILL, 3 times in a row"),
        ("def misbehave(self):\n    raise MemoryError", "oom", "MemoryError"),
        ("def misbehave(self):\n    raise RuntimeError('CUDA out of memory. Tried')", "oom", "out of memory"),
        ("def misbehave(self):\n    self.net[0].weight.data.fill_(float('nan'))", "diverged", "loss = nan"),
        ("def sample(self, n):\n    return torch.zeros(n, 3, 8, 8)", "error", "must be"),
        ("def sample(self, n):\n    return torch.full((n, 1, 8, 8), torch.nan)", "error", "NaN"),
        ("def sample(self, n):\n    self.net[0].weight.data.add_(1)\n    return torch.zeros(n, 1, 8, 8)", "error", "must not train"),
        ("def configure_optimizers(self):\n    return {}", "error", "KeyError"),
    ],
)
def test_a_misbehaving_model_is_a_named_failure(attempt, body, status, says):
    record = attempt(body)
    assert record.status == status
    assert says in record.reason
    assert attempt.place.store.get(attempt.planned.spec) == record
    assert no_children_left()


def test_a_memory_bomb_is_out_of_memory_and_the_next_run_is_clean(attempt, monkeypatch):
    monkeypatch.setattr(runs, "MEMORY", 0.05)
    body = "def misbehave(self):\n    self.hoard = getattr(self, 'hoard', [])\n    self.hoard += [torch.ones(1 << 26) for _ in range(4)]"
    record = attempt(body)
    assert record.status == "oom", record.reason
    assert "can't allocate memory" in record.reason
    assert record.spent.attempts == 1  # no second try
    assert attempt(results="next").status == "done"


def test_a_grandchild_with_a_session_of_its_own_is_ended(attempt, tmp_path):
    body = f"""
    def misbehave(self):
        from pathlib import Path
        pid = Path({str(tmp_path / "pid")!r})
        if self.count == 3 and os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                pid.with_suffix(".half").write_text(str(os.getpid()))
                pid.with_suffix(".half").rename(pid)
                time.sleep(600)
            time.sleep(600)
        while self.count == 3 and not pid.exists():
            time.sleep(0.01)
    """
    begun = time.monotonic()
    record = attempt(body)
    assert record.status == "done", record.reason
    assert time.monotonic() - begun < 60  # nobody waited for the end of its pipe
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert no_children_left()


def test_gigabytes_of_output_are_cut(attempt, monkeypatch):
    monkeypatch.setattr(supervisor_module, "LOG_LIMIT", 1 << 20)
    body = """
    def misbehave(self):
        print("\\x1b[31m" + "x" * (1 << 20), flush=True)
        time.sleep(0.5)
        if self.count == 10:
            time.sleep(1)
            raise ValueError("after the flood")
    """
    record = attempt(body)
    assert "after the flood" in record.reason
    assert sum(path.stat().st_size for path in attempt.folder.rglob("train.log")) < 4 << 20
    assert any("after the flood" in line for line in record.log_tail)
    assert all(line.isprintable() and len(line) <= 300 for line in record.log_tail)


def test_constant_output_is_flagged(attempt):
    record = attempt("def sample(self, n):\n    return torch.zeros(n, 1, 8, 8)")
    assert record.status == "done"
    assert any("collapsed" in flag for flag in record.flags)


def test_the_log_tail_of_a_failure_is_kept(attempt):
    record = attempt("def misbehave(self):\n    print('about to fail', flush=True)\n    raise ValueError")
    assert any("about to fail" in line for line in record.log_tail)


def test_a_failure_keeps_its_curve_and_what_it_had_spent(attempt):
    record = attempt("def misbehave(self):\n    if self.count > 8:\n        raise ValueError('late')")
    assert record.status == "error"
    assert [point.steps for point in record.curve] == [6]
    assert record.spent.steps == 8
    assert record.spent.images == 128
    assert record.spent.seconds > 0


def test_a_hanging_step_is_killed_at_budget_and_grace(attempt):
    body = """
    def misbehave(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            time.sleep(600)
        time.sleep(600)
    """
    begun = time.monotonic()
    record = attempt(body, track=TRACK.model_copy(update={"budget": "1s"}))
    assert record.status == "timeout"
    assert "budget and grace are 3 s" in record.reason
    assert time.monotonic() - begun < 100
    assert no_children_left()


def test_one_giant_step_is_a_timeout(attempt):
    record = attempt("def misbehave(self):\n    time.sleep(2.6)", track=TRACK.model_copy(update={"budget": "0.2s", "grace": 60.0}))
    assert record.status == "done"
    assert record.spent.overshoot > 2
    record = attempt(
        "def misbehave(self):\n    time.sleep(2.6)", track=TRACK.model_copy(update={"budget": "0.2s", "grace": 1.0}), results="b"
    )
    assert record.status == "timeout"


def test_ctrl_c_leaves_no_record_and_no_process(attempt):
    def interrupt(event):
        if event["kind"] == "tick":
            os.kill(os.getpid(), signal.SIGINT)

    assert attempt(track=TRACK.model_copy(update={"budget": "600s"}), on_event=interrupt) is None
    assert not (attempt.folder / "record.json").exists()
    assert no_children_left()


def test_a_run_interrupted_after_training_does_not_train_again(attempt):
    def interrupt(event):
        if event["kind"] == "stage" and event["stage"] == "score":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        attempt(on_event=interrupt)
    assert not (attempt.folder / "record.json").exists()
    stages = []
    record = attempt(on_event=lambda event: stages.append(event.get("stage")))
    assert [stage for stage in stages if stage] == ["sample", "score"]
    assert record.status == "done"
    assert len(record.curve) == 2
    assert all(point.fid > 0 for point in record.curve)


def test_what_is_missing_is_said_before_any_compute(tmp_path, supervisor, monkeypatch):
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GENBENCH_OFFLINE", "1")
    for change, says in [
        ({"dataset": "minst"}, "did you mean 'mnist'"),
        ({"dataset": "cifar10"}, "GENBENCH_OFFLINE|offline"),
        ({"extractor": "digit-cnn"}, "did you mean 'digits-cnn'"),
        ({"metrics": ("fidd",)}, "did you mean 'fid'"),
        ({"size": 12}, "12"),
    ]:
        with pytest.raises(GenbenchError, match=says) as error:
            runs.check(TRACK.model_copy(update=change), supervisor, results=tmp_path / "r", device="cpu")
        assert "\n" not in str(error.value)
    for device in ("cuda:9", "tpu", "meta"):
        with pytest.raises(GenbenchError, match=device):
            runs.check(TRACK, supervisor, results=tmp_path / "r", device=device)


def test_an_interrupted_run_goes_on_where_it_was_bit_for_bit(attempt):
    track = TRACK.model_copy(update={"budget": "400steps", "curve": (0.05, 0.5, 1.0)})
    slow = "def misbehave(self):\n    time.sleep(0.02 if self.count > 40 else 0)"
    whole = attempt(slow, track=track, results="whole")

    def interrupt(event):
        if event["kind"] == "tick" and event["phase"] == "train" and event["steps"] > 60:
            os.kill(os.getpid(), signal.SIGINT)

    assert attempt(slow, track=track, on_event=interrupt) is None
    assert len(list((attempt.folder / "state").glob("*/state.json"))) in (1, 2)
    record = attempt(slow, track=track)
    assert record.status == "done"
    assert record.digests == whole.digests
    assert record.spent.attempts == 2
    assert [point.steps for point in record.curve] == [20, 200, 400]
    assert [point.fid for point in record.curve] == [point.fid for point in whole.curve]
    assert not (attempt.folder / "state").exists()


def counted(folder):
    """A model's body that does not slow down, but counts its training processes in `folder` and is killed where it says."""
    return f"""
    from pathlib import Path
    folder = Path({str(folder)!r})
    def misbehave(self):
        time.sleep(0.002)
        if not hasattr(self, "lives"):
            self.lives = len(list(self.folder.glob("life-*")))
            (self.folder / f"life-{{self.lives}}").touch()
        if self.count == KILLED.get(self.lives):
            os.kill(os.getpid(), signal.SIGKILL)
    """


def test_a_killed_training_goes_on_from_what_was_saved_bit_for_bit(attempt, tmp_path):
    """Twice, in one command. The seconds that were lost are charged and listed."""
    track = TRACK.model_copy(update={"budget": "1200steps", "curve": (0.05, 0.5, 1.0)})
    whole, hurt = tmp_path / "whole-lives", tmp_path / "hurt-lives"
    whole.mkdir(), hurt.mkdir()
    expected = attempt(counted(whole).replace("KILLED", "{}"), track=track, results="whole")
    events = []
    record = attempt(counted(hurt).replace("KILLED", "{0: 500, 1: 150}"), track=track, results="hurt", on_event=events.append)
    assert record.status == expected.status == "done", record.reason
    assert record.digests == expected.digests
    assert [point.fid for point in record.curve] == [point.fid for point in expected.curve]
    assert [event["reason"] for event in events if event["kind"] == "crash"] == ["the process was killed by SIGKILL"] * 2
    assert (record.spent.attempts, expected.spent.attempts) == (3, 1)
    assert (record.spent.steps, record.spent.images) == (expected.spent.steps, expected.spent.images) == (1200, 1200 * 16)
    assert expected.spent.lost == 0
    assert 0 < record.spent.lost < record.spent.seconds
    assert not (attempt.folder / "state").exists()


def test_a_crash_buys_no_more_of_a_time_budget(attempt, tmp_path):
    track = TRACK.model_copy(update={"budget": "2s", "curve": (1.0,)})
    record = attempt(counted(tmp_path).replace("KILLED", "{0: 100}"), track=track)
    assert record.status == "done", record.reason
    assert record.spent.attempts == 2
    assert 2 <= record.spent.seconds < 4
    # what was trained in both attempts together: the steps that count, and the lost seconds' worth
    rate = record.spent.steps / (record.spent.seconds - record.spent.lost)
    assert rate * record.spent.seconds == pytest.approx(record.spent.steps + record.spent.lost * rate)
    assert record.spent.lost > 0


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_the_bits_alone(attempt, tmp_path):
    """Some inside the writing of a state: it is written at every look, and slowly."""
    track = TRACK.model_copy(update={"budget": "6000steps", "curve": (0.5, 1.0)})
    body = "def misbehave(self):\n    time.sleep(0.002)"
    whole = attempt(body, track=track, results="whole")
    random, killed = np.random.default_rng(0), 0

    def listen(event):
        nonlocal killed
        if event["kind"] == "tick" and event["phase"] == "train" and killed < 20 and random.random() < 0.7:
            time.sleep(random.uniform(0, 0.6))
            for process in psutil.Process().children(recursive=True):
                if process.ppid() != os.getpid() and process.status() != "zombie":  # the fork server's child
                    process.kill()
                    killed += 1

    record = attempt(body, track=track, results="hurt", on_event=listen)
    assert record.status == "done", record.reason
    assert killed == 20
    assert record.spent.attempts == 21
    assert record.digests == whole.digests
    assert record.spent.lost > 0


def test_the_child_dies_with_a_killed_supervisor(tmp_path):
    command = [sys.executable, "-m", "genbench", "run", "noise", "conv-vae", "--track", "digits-20s", "--budget", "600s", "--device", "cpu"]
    parent = psutil.Popen([*command, "--threads", "1"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    for line in parent.stdout:
        if "conv-vae seed 0: training" in line:
            break
    time.sleep(3)
    children = parent.children(recursive=True)
    assert len(children) >= 2
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not [child for child in alive if child.status() != "zombie"]


def test_a_folder_of_images_is_a_dataset(attempt, tmp_path):
    from PIL import Image

    folder = tmp_path / "faces"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (150, 8, 8), dtype=np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:04}.png")
    track = TRACK.model_copy(update={"dataset": f"folder:{folder}", "num_samples": 10, "curve_samples": 10})
    record = attempt(track=track)
    assert record.status == "done", record.reason
    assert record.score("fid") > 0
    assert record.score("class_tv") is None  # the extractor's classes are not this folder's


TOYS = Path(__file__).with_name("toys.py")
ASKED = TRACK.model_copy(update={"metrics": ("fid", "conditional", "likelihood"), "num_samples": 100})


def test_a_conditional_model_from_its_class_to_its_record(tmp_path, supervisor):
    """It is asked for train's frequencies, and for every class alike."""
    place = runs.check(ASKED, supervisor, results=tmp_path, device="cpu", threads=1)
    (planned,) = runs.plan([describe_file(f"{TOYS}:Dealer")], ASKED, [0], place, {})
    record = runs.run(planned, place, supervisor)
    assert record.status == "done", (record.reason, record.log_tail)
    assert "conditional" in record.flags
    assert record.throughput.sample["64"][0] > 0
    assert record.throughput.sample_waited >= 0
    assert all(point.fid > 0 for point in record.curve)
    kept = np.load(place.store.folder(planned.spec) / "samples.npz", allow_pickle=False)
    assert {name: kept[name].shape for name in kept} == {
        "images": (100, 1, 8, 8), "labels": (100,), "asked": (100, 1, 8, 8), "asked_labels": (100,)
    }  # fmt: skip
    assert np.bincount(kept["asked_labels"]).tolist() == [10] * 10
    assert len(set(np.bincount(kept["labels"], minlength=10))) > 1
    found = {score.name: score for score in record.scores}
    assert found["label_agreement"].value > 0.95
    assert 0.5 < found["intra_fid"].value / found["intra_fid"].floor < 2
    assert "elbo_bpd" not in found  # it has nothing to say of held-out images


def test_a_conditional_model_needs_labels(tmp_path, supervisor):
    from PIL import Image

    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / f"{number:04}.png")
    track = TRACK.model_copy(update={"dataset": f"folder:{tmp_path}"})
    place = runs.check(track, supervisor, results=tmp_path / "results", device="cpu", threads=1)
    with pytest.raises(GenbenchError, match=r"'Dealer' is told which classes to make; folder:.* has no labels"):
        runs.plan([describe_file(f"{TOYS}:Dealer")], track, [0], place, {})


def test_a_model_is_asked_about_held_out_images(attempt):
    record = attempt(
        """
        density, prior = "discrete", "GMM(3)"
        def log_weights(self, images, k):
            return torch.full((k, len(images)), -64 * 5.0) + torch.arange(k)[:, None]
        def reconstruct(self, images):
            return images
        def encode(self, images):
            raise RuntimeError("no idea")
        """,
        track=ASKED,
    )
    assert record.status == "done", (record.reason, record.log_tail)
    found = {score.name: score for score in record.scores}
    assert found["elbo_bpd"].value == pytest.approx((320 - 24.5) / 64 / np.log(2))
    assert found["iwae_bpd"].value < found["elbo_bpd"].value
    assert (found["elbo_bpd"].n_real, found["elbo_bpd"].floor) == (300, None)
    assert found["ssim"].value == pytest.approx(1)
    assert found["active_units"].value is None
    assert found["active_units"].note == "model-reported, encode raised RuntimeError: no idea, 300 images"
    assert "conditional" not in record.flags
    assert record.prior == "GMM(3)"
    assert not (attempt.folder / "state").exists()


def test_a_track_that_ranks_by_likelihood_shows_it_along_the_budget(attempt):
    body = """
        density = "discrete"
        def log_weights(self, images, k):
            return torch.full((k, len(images)), -64.0) + torch.arange(k)[:, None] * 0.01
    """
    track = ASKED.model_copy(update={"metrics": ("likelihood",), "rank_by": "iwae_bpd", "importance_samples": 20, "held_out_images": 40})
    record = attempt(body, track=track)
    assert record.status == "done", (record.reason, record.log_tail)
    (bound,) = [score for score in record.scores if score.name == "iwae_bpd"]
    assert (bound.n_real, "k = 20" in bound.note) == (40, True)
    ours = np.log(np.mean(np.exp(-64 + 0.01 * np.arange(50))))  # of holdout images, k = 50
    assert [point.losses["holdout_nll"] for point in record.curve] == pytest.approx([-ours / 64 / np.log(2)] * 2)


def test_answers_that_train_are_a_failure(attempt):
    body = "def encode(self, images):\n    self.net[0].weight.data.add_(1)\n    return images.flatten(1)"
    record = attempt(body, track=ASKED)
    assert record.status == "error"
    assert "must not train" in record.reason


def test_an_unknown_density_is_said_before_training(attempt):
    record = attempt("density = 'gaussian'", track=ASKED.model_copy(update={"budget": "600s"}))
    assert record.status == "error"
    assert record.reason == "the model's density is 'gaussian'; it must be one of continuous, discrete, bernoulli"


@pytest.mark.gpu
def test_a_run_on_a_gpu(attempt):
    record = attempt(track=TRACK.model_copy(update={"precision": "bf16", "budget": "40steps"}), device="cuda")
    assert record.status == "done", (record.reason, record.log_tail)
    assert record.spec.device == record.environment.device != "cpu"
    assert record.score("fid") > 0
    assert record.throughput.train_peak_bytes > 0


def test_ctrl_c_while_the_last_point_is_taken_loses_nothing_of_the_training(attempt):
    whole = attempt(results="whole")

    def interrupt(event):
        if event["kind"] == "tick" and event["phase"] == "curve" and event["progress"] >= 1:
            os.kill(os.getpid(), signal.SIGINT)

    assert attempt(on_event=interrupt) is None
    record = attempt()
    assert (record.status, record.spent.steps, record.spent.lost, record.spent.attempts) == ("done", 12, 0, 2)
    assert record.digests == whole.digests
    assert [point.steps for point in record.curve] == [6, 12]


def test_a_model_that_sets_the_threads_goes_on_like_another(attempt):
    body = """
    def __init__(self, image):
        super().__init__(image)
        torch.set_num_threads(2)
    def misbehave(self):
        time.sleep(0.02)
    """
    track = TRACK.model_copy(update={"budget": "60steps"})

    def interrupt(event):
        if event["kind"] == "tick" and event["phase"] == "train":
            os.kill(os.getpid(), signal.SIGINT)

    assert attempt(body, track=track, on_event=interrupt) is None
    record = attempt(body, track=track)
    assert (record.status, record.spent.steps, record.spent.attempts) == ("done", 60, 2)


def test_a_run_whose_fork_server_is_killed_goes_on(attempt):
    from multiprocessing import forkserver

    killed = []

    def kill(event):
        if event["kind"] == "tick" and event["phase"] == "train" and not killed:
            killed.append(forkserver._forkserver._forkserver_pid)
            os.kill(killed[0], signal.SIGKILL)

    record = attempt("def misbehave(self):\n    time.sleep(0.03)", track=TRACK.model_copy(update={"budget": "60steps"}), on_event=kill)
    assert killed
    assert (record.status, record.spent.steps, record.spent.attempts) == ("done", 60, 2)


def test_a_retry_begins_anew_where_who_wrote_the_failure_was_killed_before_tidying_up(attempt, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(runs, "_tidy", lambda folder: None)
        track = TRACK.model_copy(update={"budget": "60steps"})
        body = "def misbehave(self):\n    time.sleep(0.03)\n    if self.count > 55:\n        raise ValueError"
        assert attempt(body, track=track).status == "error"
    assert list((attempt.folder / "state").iterdir())
    runs.retry(attempt.planned, attempt.place.store)
    assert not (attempt.folder / "state").exists()
    assert not list(attempt.folder.glob("attempts/*/clock"))


def test_a_source_that_changes_meanwhile_is_no_run_of_the_one_that_was_planned(attempt, tmp_path):
    """Before it trains, and between training and sampling: the run is left, and has no record."""

    def edit(event):
        if event["kind"] == "stage" and event["stage"] == when:
            with open(tmp_path / "mine.py", "a") as file:
                file.write("\n# another thought\n")

    for when in ("train", "sample"):
        with pytest.raises(runs.ElsewhereError, match=r"the source of Mine changed after this run was planned \(SHA-256 \w{8}, now"):
            attempt(on_event=edit, results=when)
        assert not (attempt.folder / "record.json").exists()
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text().removesuffix("\n# another thought\n"))
    assert runs.run(attempt.planned, attempt.place, Supervisor()).status == "done"  # it was trained when it was left


def test_a_failure_after_an_interruption_keeps_the_curve_from_before(attempt, tmp_path):
    body = f"""
    def misbehave(self):
        time.sleep(0.02)
        if self.count > 5 and os.path.exists({str(tmp_path / "now")!r}):
            raise ValueError("late")
    """
    track = TRACK.model_copy(update={"budget": "100steps", "curve": (0.05, 0.1, 1.0)})

    def interrupt(event):
        if event["kind"] == "tick" and event["phase"] == "train" and event["steps"] > 12:
            os.kill(os.getpid(), signal.SIGINT)

    assert attempt(body, track=track, on_event=interrupt) is None
    (tmp_path / "now").touch()
    record = attempt(body, track=track)
    assert (record.status, record.reason) == ("error", "ValueError: late")
    assert [point.steps for point in record.curve] == [5, 10]
    assert record.curve[0].losses["loss"] > 0


def test_a_model_without_likelihood_is_done_where_the_track_ranks_by_one(attempt):
    record = attempt(track=ASKED.model_copy(update={"rank_by": "iwae_bpd"}))
    assert record.status == "done", record.reason
    assert [point.losses["holdout_nll"] for point in record.curve] == [None, None]


def test_an_extractor_that_cannot_see_the_images_is_said_before_training(tmp_path, supervisor):
    with pytest.raises(GenbenchError, match="extractor mnist-cnn sees 1x32x32 uint8 images, not 1x8x8"):
        runs.check(TRACK.model_copy(update={"extractor": "mnist-cnn"}), supervisor, results=tmp_path, device="cpu")
    with pytest.raises(GenbenchError, match="extractor cifar10-cnn sees 3x32x32"):
        runs.check(TRACK.model_copy(update={"beside": ("pixels-pca", "cifar10-cnn")}), supervisor, results=tmp_path, device="cpu")


def test_a_budget_that_was_wholly_lost_is_a_failure(attempt):
    """Not a done run of a model that never trained."""

    def kill(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(track=TRACK.model_copy(update={"budget": "2s"}), on_event=kill)
    Witness(attempt.folder / "attempts" / "1").note(2.5, 300, 4800)  # and was killed before it saved anything
    record = runs.run(attempt.planned, attempt.place, Supervisor())
    assert (record.status, record.scores) == ("error", ())
    assert record.reason == "its whole budget of 2s was lost to crashes, and no step of it could be saved"


def test_a_training_that_somebody_else_asks_to_end_goes_on(attempt, tmp_path):
    """A guard of memory, or the plugin itself, sends SIGTERM: that is no Ctrl-C, which would end a sweep."""
    body = f"""
    def misbehave(self):
        time.sleep(0.02)
        if self.count == 8 and not os.path.exists({str(tmp_path / "sent")!r}):
            open({str(tmp_path / "sent")!r}, "w").close()
            os.kill(os.getpid(), signal.SIGTERM)
    """
    track, events = TRACK.model_copy(update={"budget": "60steps"}), []
    record = attempt(body, track=track, on_event=events.append)
    assert (record.status, record.spent.steps, record.spent.attempts, record.spent.lost) == ("done", 60, 2, 0), record.reason
    reasons = [event["reason"] for event in events if event["kind"] == "crash"]
    assert reasons == ["its process was sent SIGTERM, and not by its supervisor"]
    assert record.digests == attempt(body, track=track, results="whole").digests
