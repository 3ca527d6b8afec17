"""A training that is saved, rebuilt in fresh objects and continued gives the bits of one that never stopped."""

import pytest
import torch
from torch import nn

from genbench import resume
from genbench.budget import Budget, Meter
from genbench.checkpoint import state_digest
from genbench.datasets.resident import TrainingBatches
from genbench.model import ImageSpec, Optimizers
from genbench.train import Point, train
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
    points, drawn = resume.restore(tmp_path, model, optimizers, batches, meter)
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


@pytest.mark.parametrize("damage", ["absent", "half", "garbage"])
def test_half_a_state_is_none(damage, tmp_path):
    model, optimizers, batches, meter = built("adam", 5)
    resume.save(tmp_path, model, optimizers, batches, meter, [], [])
    if damage == "absent":
        (tmp_path / "state.json").unlink()
    elif damage == "half":
        file = tmp_path / "state.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    else:
        (tmp_path / "state.json").write_text("{")
    before = state_digest(model)
    assert resume.restore(tmp_path, model, optimizers, batches, meter) is None
    assert state_digest(model) == before
    assert meter.steps == 0


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
