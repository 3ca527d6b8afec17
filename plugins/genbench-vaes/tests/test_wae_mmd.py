"""Algorithm 2's estimator by hand, its unbiasedness, the cost, the prior's variance and the schedule."""

from __future__ import annotations

import pytest
import torch
from genbench_vaes.wae_mmd import SCALES, WAEMMD, kernel, maximum_mean_discrepancy
from torch import Tensor

from genbench import Batch, ImageSpec, Optimizers


class OneBatch:
    def __init__(self, images: Tensor, progress: float = 0.0) -> None:
        self.images, self.progress = images, progress

    def __next__(self) -> Batch:
        return Batch(self.images)


def k(x: list[float], y: list[float], C: float) -> float:
    """The kernel of two points, in floats."""
    squared = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    return sum(s * C / (s * C + squared) for s in SCALES)


def test_kernel() -> None:
    x, y = torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    expected = [[k(a, b, 6.0) for b in y.tolist()] for a in x.tolist()]
    torch.testing.assert_close(kernel(x, y, 6.0), torch.tensor(expected))
    # at the same point one for each scale; at the squared distance C: sum of s / (1 + s)
    assert float(kernel(x[:1], x[:1], 6.0)) == len(SCALES)
    assert float(kernel(torch.zeros(1, 1), torch.full((1, 1), 2.0), 4.0)) == pytest.approx(sum(s / (1 + s) for s in SCALES))


def test_estimator_is_algorithm_2s() -> None:
    """1/(n(n-1)) sum over l != j of both samples' own pairs, - 2/n^2 over all pairs across."""
    torch.manual_seed(0)
    z, codes, n = torch.randn(4, 3).tolist(), (torch.randn(4, 3) * 2 + 1).tolist(), 4
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    within = sum(k(z[i], z[j], 6.0) + k(codes[i], codes[j], 6.0) for i, j in pairs) / (n * (n - 1))
    across = sum(k(a, b, 6.0) for a in z for b in codes) / n**2
    found = maximum_mean_discrepancy(torch.tensor(z), torch.tensor(codes), 6.0)
    assert float(found) == pytest.approx(within - 2 * across, abs=1e-5)


def test_closed_forms() -> None:
    """Two points against the same two: k(a, b) - k(a, a); against two far off: 2 k(a, b)."""
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    near = k([0, 0], [1, 2], 4.0)
    assert float(maximum_mean_discrepancy(x, x, 4.0)) == pytest.approx(near - len(SCALES), abs=1e-5)
    assert float(maximum_mean_discrepancy(x, x + 1e6, 4.0)) == pytest.approx(2 * near, abs=1e-4)


def test_estimator_is_unbiased() -> None:
    """On average 0 where both samples come from the prior, of 4 points or of 40; pairs of a point with itself would raise it."""
    torch.manual_seed(0)
    for n, repeats in ((4, 4000), (40, 400)):
        found = torch.stack([maximum_mean_discrepancy(torch.randn(n, 2), torch.randn(n, 2), 4.0) for _ in range(repeats)])
        assert float(found.min()) < 0 < float(found.max())
        assert abs(float(found.mean())) < 4 * float(found.std()) / repeats**0.5


def test_discrepancy_sees_a_shift() -> None:
    torch.manual_seed(0)
    prior, codes = torch.randn(300, 3), torch.randn(300, 3)
    shifted = [float(maximum_mean_discrepancy(prior, codes + shift, 6.0)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert shifted == sorted(shifted)
    assert shifted[1] > 5 * abs(shifted[0])
    together = maximum_mean_discrepancy(prior + 7, codes + 7, 6.0)
    torch.testing.assert_close(together, torch.tensor(shifted[0]), atol=1e-4, rtol=0)


def test_loss() -> None:
    """Squared error summed over pixels, plus lambda times the discrepancy."""
    torch.manual_seed(0)
    images = torch.rand(16, 1, 8, 8) * 2 - 1
    model = WAEMMD(ImageSpec(1, 8), lam=25.0, z_dim=3, width=8)
    with torch.no_grad():
        cost = sum((x - y).square().sum() for x, y in zip(images, model.reconstruct(images), strict=True)) / 16
    found = model.training_step(OneBatch(images), Optimizers(model.configure_optimizers()))
    torch.testing.assert_close(found["cost"], cost, rtol=1e-4, atol=0)
    torch.testing.assert_close(found["loss"], found["cost"] + 25 * found["mmd"])
    assert float(found["mmd"]) != 0


def test_prior() -> None:
    torch.manual_seed(0)
    wide = WAEMMD(ImageSpec(1, 8), sigma2=2.0, width=8)
    assert float(wide.latent(20_000).var()) == pytest.approx(2.0, rel=0.02)
    assert wide.prior == "N(0, 2 I)"
    assert WAEMMD(ImageSpec(1, 8), width=8).prior == "N(0, I)"


def test_schedule() -> None:
    """Halved at 30 of 100 epochs, a fifth of that from 50 on."""
    model = WAEMMD(ImageSpec(1, 8), width=8)
    optimizers, rates = Optimizers(model.configure_optimizers()), []
    for progress in (0.29, 0.3, 0.49, 0.5, 1.0):
        model.training_step(OneBatch(torch.zeros(4, 1, 8, 8), progress), optimizers)
        rates.append(optimizers["WAE"].lr)
    assert rates == pytest.approx([1e-3, 5e-4, 5e-4, 1e-4, 1e-4])


def test_published_encoder() -> None:
    """128, 256, 512 and 1024 channels of 4 x 4 kernels and 64 codes for CelebA, without the 1920 biases before batch normalisation."""
    model = WAEMMD(ImageSpec(3, 64), z_dim=64)
    assert sum(p.numel() for p in model.Q.parameters()) + 1920 == 12_070_592
