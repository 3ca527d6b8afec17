import numpy as np
import pytest
import torch
from torch import nn

from genbench.datasets.resident import to_unit
from genbench.errors import GenbenchError
from genbench.model import ImageSpec
from genbench.sample import draw, quantise

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
