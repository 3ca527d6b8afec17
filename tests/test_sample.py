import numpy as np
import pytest
import torch
from torch import nn

import genbench.sample as sample_module
from genbench.datasets.resident import to_unit
from genbench.errors import GenbenchError
from genbench.model import ImageSpec
from genbench.sample import balanced_labels, draw, marginal_labels, quantise

IMAGE = ImageSpec(1, 4)


class Uniform(nn.Module):
    def __init__(self, low=-1.0, high=1.0):
        super().__init__()
        self.low, self.high = low, high
        self.norm = nn.BatchNorm2d(1)
        self.modes = []

    def sample(self, n):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return torch.rand(n, 1, 4, 4) * (self.high - self.low) + self.low


def test_quantise_golden_values():
    levels = quantise(torch.tensor([-1.0, 1.0, 0.0, -2.0, 2.0, -1 + 0.49 * 2 / 255, -1 + 0.51 * 2 / 255]))
    assert levels.tolist() == [0, 255, 128, 0, 255, 0, 1]


def test_quantise_round_trips_all_levels():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantise(to_unit(levels)), levels)


def test_samples_repeat_with_the_seed_and_differ_without():
    model = Uniform()
    first, again, other = (draw(model, 70, seed, IMAGE, chunk=32).images for seed in (3, 3, 4))
    assert first.shape == (70, 1, 4, 4)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_first_samples_do_not_depend_on_how_many_are_drawn_in_whole_chunks():
    model = Uniform()
    assert np.array_equal(draw(model, 64, 0, IMAGE, chunk=32).images[:32], draw(model, 32, 0, IMAGE, chunk=32).images)


def test_sampling_leaves_mode_and_rng_alone():
    model = Uniform().train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draw(model, 10, 0, IMAGE)
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert model.modes == [(False, False)]


@pytest.mark.parametrize(("device", "kept"), [("cpu", []), ("cuda:1", [torch.device("cuda:1")])])
def test_sampling_asks_no_gpu_but_the_models_own_for_its_generator(monkeypatch, device, kept):
    """No GPU is needed: there are said to be two, and the model is said to be on one of them."""
    asked, put_back = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(device) or torch.tensor([7]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put_back.append((state.item(), device)))
    monkeypatch.setattr(sample_module, "_device", lambda model: torch.device(device))
    draw(Uniform(), 10, 0, IMAGE)
    assert asked == kept
    assert put_back == [(7, one) for one in kept]


def test_each_chunk_that_was_drawn_is_told():
    model, told = Uniform(), []
    draw(model, 70, 0, IMAGE, chunk=32, on_chunk=lambda: told.append(len(model.modes)))
    assert told == [1, 2, 3]


def test_clipped_share_is_measured():
    assert draw(Uniform(-1, 1), 100, 0, IMAGE).clipped == 0
    assert draw(Uniform(0, 2), 400, 0, IMAGE).clipped == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (lambda n: torch.zeros(n, 3, 4, 4), r"shape \(6, 3, 4, 4\); it must be \(6, 1, 4, 4\)"),
        (lambda n: torch.zeros(n - 1, 1, 4, 4), "shape"),
        (lambda n: torch.zeros(n, 1, 4, 4, dtype=torch.uint8), "float tensor"),
        (lambda n: np.zeros((n, 1, 4, 4)), "ndarray"),
        (lambda n: torch.full((n, 1, 4, 4), torch.nan), "NaN"),
        (lambda n: torch.full((n, 1, 4, 4), torch.inf), "infinity"),
    ],
)
def test_wrong_output_is_named(output, says):
    model = Uniform()
    model.sample = output
    with pytest.raises(GenbenchError, match=says):
        draw(model, 6, 0, IMAGE)


class Labelled(nn.Module):
    """Every image is of its label's level; takes labels by keyword alone."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.tensor(1 / 255))

    def sample(self, n, *, labels):
        assert labels.dtype == torch.int64
        return (2 * self.level * labels - 1)[:, None, None, None].expand(n, 1, 4, 4)


def test_a_conditional_model_is_given_the_labels_of_each_chunk():
    labels = np.array([3, 1, 4, 1, 5, 9, 2, 6])
    samples = draw(Labelled(), 8, 0, IMAGE, labels=labels, chunk=3)
    assert samples.images[:, 0, 2, 1].tolist() == [3, 1, 4, 1, 5, 9, 2, 6]
    assert np.array_equal(samples.labels, labels)
    assert draw(Uniform(), 8, 0, IMAGE).labels is None


def test_labels_follow_trains_frequencies_in_a_stream_of_each_chunk():
    train = np.repeat([0, 1, 3], [100, 300, 600])
    labels = marginal_labels(train, 20_000, 0)
    assert labels.dtype == np.int64
    assert np.bincount(labels) / 20_000 == pytest.approx([0.1, 0.3, 0, 0.6], abs=0.01)
    assert np.array_equal(labels[:1000], marginal_labels(train, 1000, 0))
    assert not np.array_equal(labels[:500], labels[500:1000])
    assert not np.array_equal(labels, marginal_labels(train, 20_000, 1))
    assert not np.array_equal(labels[:1000], marginal_labels(train, 1000, 0, stream_name="curve"))


def test_balanced_labels_hold_each_class_equally_often_in_random_order():
    labels = balanced_labels(10, 300, 0)
    assert np.bincount(labels).tolist() == [30] * 10
    assert not np.array_equal(labels, np.arange(300) % 10)
    assert not np.array_equal(labels, balanced_labels(10, 300, 1))
    assert np.bincount(balanced_labels(4, 10, 0)).tolist() == [3, 3, 2, 2]


def test_every_part_is_put_back_into_its_own_mode():
    model = Uniform().train()
    model.norm.eval()
    draw(model, 10, 0, IMAGE)
    assert (model.training, model.norm.training) == (True, False)
