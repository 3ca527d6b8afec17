"""Maximum mean discrepancy by hand, and the three terms of eq. 6 with their weights."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_vaes.info_vae import InfoVAE, kernel, maximum_mean_discrepancy
from torch import Tensor

from genbench import Batch, ImageSpec, Optimizers


class OneBatch:
    progress = 0.0

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __next__(self) -> Batch:
        return Batch(self.images)


def test_kernel() -> None:
    """exp(-25 / d^2) at a distance of 5, d = 2."""
    x, y = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    expected = torch.tensor([[-25, 0, -1], [-13, -2, -1]]) / 4
    torch.testing.assert_close(kernel(x, y), expected.exp())


def test_discrepancy() -> None:
    torch.manual_seed(0)
    x = torch.randn(30, 3)
    torch.testing.assert_close(maximum_mean_discrepancy(x, x), torch.tensor(0.0), atol=1e-6, rtol=0)
    # one point against one at a distance of 5: 1 + 1 - 2 exp(-25/4)
    found = maximum_mean_discrepancy(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    assert float(found) == pytest.approx(2 - 2 * math.exp(-25 / 4))
    # 0 and 2 against 1, d = 1: (1 + e^-4) / 2 + 1 - 2 e^-1
    found = maximum_mean_discrepancy(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0]]))
    assert float(found) == pytest.approx((1 + math.exp(-4)) / 2 + 1 - 2 * math.exp(-1))


def test_discrepancy_sees_shift_and_spread() -> None:
    torch.manual_seed(0)
    prior, codes = torch.randn(400, 2), torch.randn(400, 2)
    shifted = [float(maximum_mean_discrepancy(codes + shift, prior)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert shifted == sorted(shifted)
    assert shifted[1] > 5 * shifted[0] > 0
    assert float(maximum_mean_discrepancy(3 * codes, prior)) > 5 * shifted[0]
    torch.testing.assert_close(maximum_mean_discrepancy(codes + 7, prior + 7), maximum_mean_discrepancy(codes, prior), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("alpha", "lam", "on_kl", "on_mmd"), [(0.0, 1.0, 1.0, 0.0), (1.0, 10.0, 0.0, 10.0), (0.25, 5.0, 0.75, 4.25)])
def test_weights_of_the_terms(alpha: float, lam: float, on_kl: float, on_mmd: float) -> None:
    """A VAE at alpha = 0 and lambda = 1; the MMD-VAE at alpha = 1."""
    torch.manual_seed(0)
    images = torch.rand(16, 1, 8, 8) * 2 - 1
    model = InfoVAE(ImageSpec(1, 8), alpha=alpha, lam=lam, z_dim=3, width=8)
    found = model.training_step(OneBatch(images), Optimizers(model.configure_optimizers()))
    assert float(found["kl"]) > 0.01
    assert float(found["mmd"]) > 0.01
    torch.testing.assert_close(found["loss"], found["reconstruction"] + on_kl * found["kl"] + on_mmd * found["mmd"])


def test_discrepancy_draws_the_codes_to_the_prior() -> None:
    """Its gradient moves codes that lie off the origin back to it."""
    torch.manual_seed(0)
    codes = (torch.randn(200, 2) + 1.5).requires_grad_()
    (slope,) = torch.autograd.grad(maximum_mean_discrepancy(codes, torch.randn(200, 2)), codes)
    assert bool((slope.mean(0) > 0).all())


def test_defaults_are_the_papers() -> None:
    model = InfoVAE(ImageSpec(1, 32))
    assert (model.alpha, model.lam, model.batch_size) == (0.0, 1000.0, 200)
