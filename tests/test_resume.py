"""A training that is saved, rebuilt in fresh objects and continued gives the bits of one that never stopped."""

import math
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

import genbench.train as train_module
from genbench import resume, states
from genbench.budget import Budget, Ledger, Meter
from genbench.checkpoint import state_digest
from genbench.datasets.resident import TrainingBatches
from genbench.errors import GenbenchError
from genbench.model import ImageSpec, Optimizers
from genbench.train import Point, train
from genbench.witness import Witness, forget, noted, undone
from tests.toys import Autoencoder, make_data

CPU = torch.device("cpu")
IMAGE = ImageSpec(3, 8)
MAKE = {
    "adam": lambda p: torch.optim.Adam(p, 1e-2, betas=(0.5, 0.9)),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, 1e-2, amsgrad=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
}


def built(optimizer, steps, seed=0):
    torch.manual_seed(seed)
    model = Autoencoder(IMAGE).to(memory_format=torch.channels_last)
    model.configure_optimizers = lambda: {"all": MAKE[optimizer](model.parameters())}
    meter = Meter(Budget.parse(f"{steps}steps"))
    batches = TrainingBatches(make_data(), batch_size=10, seed=0, meter=meter, device=CPU, flip=True)
    return model, Optimizers(model.configure_optimizers()), batches, meter


@pytest.mark.parametrize("optimizer", MAKE)
def test_continued_training_is_bit_equal(optimizer, tmp_path):
    torch.manual_seed(0)
    model, optimizers, batches, meter = built(optimizer, 23)
    train(model, optimizers, batches, meter, device=CPU)
    expected = state_digest(model)

    model, optimizers, batches, meter = built(optimizer, 13)
    train(model, optimizers, batches, meter, device=CPU)
    point = Point(0.5, 1.5, 13, 130, 99.0, {"loss": 0.25})
    resume.save(tmp_path, model, optimizers, batches, meter, [point], [make_data().test.images])

    model, optimizers, batches, meter = built(optimizer, 23, seed=9)
    points, drawn, _ = resume.restore(tmp_path, model, optimizers, batches, meter)
    assert (points, len(drawn)) == ([point], 1)
    assert (drawn[0] == make_data().test.images).all()
    assert (meter.steps, meter.images, batches.drawn) == (13, 130, 13)
    train(model, optimizers, batches, meter, device=CPU)
    assert meter.steps == 23
    assert state_digest(model) == expected


def test_seconds_spent_before_are_charged(tmp_path):
    model, optimizers, batches, meter = built("adam", 5)
    train(model, optimizers, batches, meter, device=CPU)
    spent = meter.seconds
    resume.save(tmp_path, model, optimizers, batches, meter, [], [])
    model, optimizers, batches, meter = built("adam", 5)
    resume.restore(tmp_path, model, optimizers, batches, meter)
    assert meter.seconds == spent > 0
    assert meter.exhausted


def damage(place, kind):
    tensors, said = place / "state.safetensors", place / "state.json"
    match kind:
        case "no json":
            said.unlink()
        case "half the tensors":
            tensors.write_bytes(tensors.read_bytes()[:-100])
        case "a flipped bit":
            content = bytearray(tensors.read_bytes())
            content[-7] ^= 1
            tensors.write_bytes(content)
        case "an edited number":
            said.write_bytes(said.read_bytes().replace(b'"drawn": 5', b'"drawn": 4'))
        case "garbage":
            said.write_text("{")
        case "empty":
            tensors.write_bytes(b"")


DAMAGES = ["no json", "half the tensors", "a flipped bit", "an edited number", "garbage", "empty"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_state_is_none(kind, tmp_path):
    model, optimizers, batches, meter = built("adam", 5)
    train(model, optimizers, batches, meter, device=CPU)
    resume.save(tmp_path, model, optimizers, batches, meter, [], [])
    damage(states.saved(tmp_path)[0], kind)
    model, optimizers, batches, meter = built("adam", 5)
    before = state_digest(model)
    assert resume.restore(tmp_path, model, optimizers, batches, meter) is None
    assert state_digest(model) == before
    assert meter.steps == 0


@pytest.mark.parametrize("kind", DAMAGES)
def test_two_states_are_kept_and_a_damaged_one_falls_back_to_the_one_before(kind, tmp_path):
    for steps in (3, 4, 5):
        model, optimizers, batches, meter = built("adam", steps)
        train(model, optimizers, batches, meter, device=CPU)
        resume.save(tmp_path, model, optimizers, batches, meter, [], [])
    assert [int(path.name.partition("-")[0]) for path in states.saved(tmp_path)] == [5, 4]
    damage(states.saved(tmp_path)[0], kind)
    model, optimizers, batches, meter = built("adam", 9)
    resume.restore(tmp_path, model, optimizers, batches, meter)
    assert meter.steps == batches.drawn == 4


def test_what_a_kill_between_write_and_rename_leaves_is_ignored(tmp_path):
    model, optimizers, batches, meter = built("adam", 5)
    train(model, optimizers, batches, meter, device=CPU)
    resume.save(tmp_path, model, optimizers, batches, meter, [], [])
    (place,) = states.saved(tmp_path)
    place.rename(tmp_path / ".new-77")
    assert states.saved(tmp_path) == []
    assert resume.restore(tmp_path, model, optimizers, batches, meter) is None


def test_a_state_that_cannot_be_read_back_is_an_error(tmp_path, monkeypatch):
    model, optimizers, batches, meter = built("adam", 5)
    written = resume.write_atomic
    monkeypatch.setattr(resume, "write_atomic", lambda path, content: written(path, content[: len(content) // 2]))
    with pytest.raises(GenbenchError, match="can't be read back"):
        resume.save(tmp_path, model, optimizers, batches, meter, [], [])


def test_other_threads_are_refused(tmp_path):
    model, optimizers, batches, meter = built("adam", 5)
    resume.save(tmp_path, model, optimizers, batches, meter, [], [])
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with pytest.raises(GenbenchError, match=rf"threads {before}.*here it is threads {before + 1}"):
            resume.restore(tmp_path, model, optimizers, batches, meter)
    finally:
        torch.set_num_threads(before)


def test_a_gpus_generator_goes_on_on_another_gpu(tmp_path, monkeypatch):
    """No GPU is needed: there are said to be some, and their generators are kept here."""
    states = {0: torch.tensor([9], dtype=torch.uint8), 2: torch.tensor([7], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device.index])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device.index: state}))
    resume.save(tmp_path, *built("adam", 5), [], [], device=torch.device("cuda:2"))
    assert resume.restore(tmp_path, *built("adam", 5), device=torch.device("cuda:0")) is not None
    assert states[0].tolist() == [7]
    others = {"rng/1/cpu": torch.get_rng_state(), "rng/1/cuda": torch.tensor([5], dtype=torch.uint8)}
    resume.save(tmp_path, *built("adam", 5), [], [], others, 2, torch.device("cuda:0"))
    assert resume.restore(tmp_path, *built("adam", 5), 1, 2, torch.device("cuda:3")) is not None
    assert (states[3].tolist(), states[0].tolist()) == ([5], [7])


def test_a_run_on_a_cpu_asks_no_gpu(tmp_path, monkeypatch):
    """Whoever asks a GPU starts CUDA, for which a run on a CPU has no memory."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: pytest.fail("CUDA was asked"))
    resume.save(tmp_path, *built("adam", 5), [], [])
    assert resume.restore(tmp_path, *built("adam", 5)) is not None


def test_on_a_gpu_threads_do_not_matter_and_another_torch_does(tmp_path, monkeypatch):
    """No GPU is needed: the model is only said to be on one."""
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    model, optimizers, batches, meter = built("adam", 5)
    resume.save(tmp_path, model, optimizers, batches, meter, [], [], device=gpu)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert resume.restore(tmp_path, *built("adam", 5), device=gpu) == ([], [], None)
        monkeypatch.setattr(torch, "__version__", "9.9")
        with pytest.raises(GenbenchError, match=r"here it is torch 9\.9"):
            resume.restore(tmp_path, *built("adam", 5), device=gpu)
    finally:
        torch.set_num_threads(before)


def test_points_without_a_number_are_kept(tmp_path):
    """Of a model that has no likelihood on a track that ranks by one, or whose bound is infinite at one point."""
    model, optimizers, batches, meter = built("adam", 5)
    point = Point(0.5, 1.5, 2, 20, 99.0, {"loss": 0.25, "holdout_nll": math.inf})
    last = Point(0.75, 2.0, 3, 30, 99.0, {"loss": 0.2})
    resume.save(tmp_path, model, optimizers, batches, meter, [point], [], last=last)
    told = resume.restore(tmp_path, *built("adam", 5))
    assert math.isnan(told.points[0].losses["holdout_nll"])
    assert told.points[0].losses["loss"] == 0.25
    assert told.last == last


# ---- what a crash costs ---------------------------------------------------------------------------------------------


def test_seconds_that_a_crash_undid_are_charged_and_listed(tmp_path):
    meter = Meter(Budget.parse("10s"))
    meter.restore(Ledger(4.0, 40, 400, 0.0, 1.0, 0.0, 0.5))
    witness = Witness(tmp_path / "1")
    for step in range(1, 4):
        witness.note(4.0 + step / 4, 40 + step, 400 + 10 * step)
    assert noted(tmp_path / "1") == (4.75, 43, 430)
    assert undone(tmp_path / "2", meter.seconds) == 0.75
    meter.charge_lost(0.75)
    assert (meter.seconds, meter.ledger().lost, meter.steps) == (4.75, 1.25, 40)
    assert undone(tmp_path / "4", meter.seconds) == 0.0  # it is paid
    assert undone(tmp_path / "1", 0.0) == 0.0  # the first attempt has none before it
    forget(tmp_path)
    assert noted(tmp_path / "1") is None
    assert undone(tmp_path / "2", 0.0) == 0.0


@pytest.mark.parametrize("spent", [(math.nan, 1, 1), (math.inf, 1, 1), (-1.0, 1, 1), (1.0, -1, 1)])
def test_what_no_training_notes_counts_for_nothing(tmp_path, spent):
    Witness(tmp_path / "1").note(*spent)
    assert noted(tmp_path / "1") is None


def test_a_witness_outlives_its_process(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from genbench.witness import Witness\n"
        "w = Witness(Path(sys.argv[1])); w.note(1.5, 7, 70); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "1")]).returncode == -9
    assert noted(tmp_path / "1") == (1.5, 7, 70)


def test_saving_is_due_by_its_cost_and_within_a_minute():
    now = [0.0]
    cadence = resume.Cadence(lambda: now[0])

    def waits(cost):
        with cadence.saving():
            now[0] += cost
        began = now[0]
        while not cadence.due():
            now[0] += 0.25
        return now[0] - began

    assert waits(0.0) == 0.5
    assert waits(0.1) == pytest.approx(10, abs=0.3)  # one per cent
    assert waits(30.0) == pytest.approx(60, abs=0.3)  # a minute of work, whatever it costs


def test_training_saves_between_steps_and_off_the_clock(monkeypatch):
    monkeypatch.setattr(train_module, "TICK", 0.0)
    model, optimizers, batches, meter = built("adam", 6)
    saved = []

    def save(points, last):
        before = meter.seconds
        time.sleep(0.02)
        assert last.steps == meter.steps
        saved.append((meter.steps, len(points), meter.seconds - before))

    train(model, optimizers, batches, meter, device=CPU, at=(0.5, 1.0), save_due=lambda: meter.steps % 2 == 0, save=save)
    assert saved == [(2, 0, 0.0), (4, 1, 0.0), (6, 1, 0.0)]  # the last before the last point is taken


def test_moments_take_their_parameters_layout(tmp_path):
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizers = Optimizers({"all": torch.optim.Adam(conv.parameters())})
    optimizers["all"].minimize(conv(torch.ones(1, 3, 5, 5)).sum())
    _, _, batches, meter = built("adam", 5)
    resume.save(tmp_path, conv, optimizers, batches, meter, [], [])
    fresh = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizers = Optimizers({"all": torch.optim.Adam(fresh.parameters())})
    resume.restore(tmp_path, fresh, optimizers, batches, meter)
    moments = optimizers["all"].torch.state[fresh.weight]
    assert moments["exp_avg"].stride() == fresh.weight.stride()
    assert moments["exp_avg"].is_contiguous(memory_format=torch.channels_last)
