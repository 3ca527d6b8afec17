"""Controls: what they draw is known exactly or in distribution."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from genbench_controls import genbench_models
from genbench_controls.pca_gaussian import leading_components, principal_components
from torch import Tensor, nn

from genbench import Batch, ImageSpec, Optimizers

SPECS = {spec.name: spec for spec in genbench_models()}


class Rows:
    """Batches of `size` rows in turn, over and over; counts what was drawn."""

    progress = 0.0

    def __init__(self, train: Tensor, holdout: Tensor, size: int = 50) -> None:
        self.train, self._holdout, self.size, self.drawn = train, holdout, size, 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        index = torch.arange(self.drawn, self.drawn + self.size) % len(self.train)
        self.drawn += self.size
        return Batch(self.train[index])

    @property
    def holdout(self) -> Batch:
        return Batch(self._holdout)


def images(n: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """(n, C, H, W) on the 256 levels k -> 2k/255 - 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator).float() * (2 / 255) - 1


def trained(name: str, spec: ImageSpec, batches: Rows, **hparams: object) -> nn.Module:
    model = SPECS[name].cls(spec, **hparams).to(memory_format=torch.channels_last)
    assert model.finished is False
    with torch.autocast("cpu", torch.bfloat16):
        model.training_step(batches, Optimizers(model.configure_optimizers()))
    assert model.finished is True
    assert batches.drawn > 0
    return model.eval()


@pytest.mark.parametrize("name", SPECS)
def test_samples_differ_but_where_one_image_is_all_there_is(name: str) -> None:
    """In colour too, and the same under the same seed."""
    model = trained(name, ImageSpec(3, 16, num_train=60), Rows(images(60, 3, 16), images(30, 3, 16, 1)))
    with torch.inference_mode():
        drawn = model.sample(20)
    assert len(drawn.flatten(1).unique(dim=0)) == (1 if name in ("mean-image", "one-sample") else 20)


def test_only_real_holdout_declares_the_holdout_split() -> None:
    assert {name for name, spec in SPECS.items() if spec.holdout} == {"real-holdout"}
    assert {spec.family for spec in SPECS.values()} == {"control"}


def test_noise() -> None:
    """Mean 0 and variance 1/3 of the uniform law, independent pixels."""
    model = trained("noise", ImageSpec(3, 8), Rows(images(60, 3, 8), images(1, 3, 8)))
    torch.manual_seed(0)
    drawn = model.sample(20_000).flatten(1)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.002)
    assert float(drawn.var()) == pytest.approx(1 / 3, abs=0.002)
    assert float(torch.corrcoef(drawn[:, :2].T)[0, 1]) == pytest.approx(0, abs=0.03)


def quantised(drawn: Tensor) -> list[bytes]:
    """Images -> the bytes that the harness's quantisation makes of them, in order."""
    return [row.numpy().tobytes() for row in ((drawn + 1) * 127.5 + 0.5).floor().to(torch.uint8).flatten(1)]


def test_real_holdout_deals_each_image_once() -> None:
    """Exactly the holdout images, none of train, over several calls of one draw; the order depends on the seed alone."""
    holdout = images(30, 3, 8, 1)
    model = trained("real-holdout", ImageSpec(3, 8), Rows(images(60, 3, 8), holdout))
    assert model.num_available == 30
    orders = []
    for seed in (0, 1, 0):
        model.eval()
        parts = []
        for chunk, n in enumerate((12, 12, 6)):
            torch.manual_seed(100 * seed + chunk)
            parts += quantised(model.sample(n))
        assert sorted(parts) == sorted(quantised(holdout))
        orders.append(parts)
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != quantised(holdout)
    assert len(set(quantised(model.sample(25)))) == 25


@pytest.mark.parametrize("name", ["real-holdout", "train-copy"])
def test_none_to_deal_before_training(name: str) -> None:
    assert SPECS[name].cls(ImageSpec(1, 8)).num_available == 0


def test_train_copy_deals_the_images_of_its_batches_once() -> None:
    """Exactly the training images, none of holdout; those of a last, partial batch were never drawn."""
    train = images(130, 3, 8)
    batches = Rows(train, images(30, 3, 8, 1))
    model = trained("train-copy", ImageSpec(3, 8, num_train=130), batches)
    assert batches.drawn == model.num_available == 100
    orders = []
    for seed in (0, 1, 0):
        model.eval()
        parts = []
        for chunk in range(2):
            torch.manual_seed(100 * seed + chunk)
            parts += quantised(model.sample(50))
        assert sorted(parts) == sorted(quantised(train[:100]))
        orders.append(parts)
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("name", ["train-copy", "per-pixel-histogram", "mean-image"])
def test_at_most_max_images_are_drawn(name: str) -> None:
    for num_train, max_images, drawn in ((120, 50_000, 100), (900, 200, 200), (0, 150, 150), (20, 50_000, 50)):
        batches = Rows(images(200, 1, 8), images(1, 1, 8))
        trained(name, ImageSpec(1, 8, num_train=num_train), batches, max_images=max_images)
        assert batches.drawn == drawn


def test_per_pixel_histogram_has_each_pixels_levels_and_no_dependence() -> None:
    """Two pixels that always agree in training: their levels and shares stay, their agreement goes."""
    train = torch.full((100, 1, 8, 8), -1.0)
    train[:30, 0, 0, 0] = train[:30, 0, 2, 5] = 101 * 2 / 255 - 1  # level 101 in 30 %, 0 in the others
    train[:, 0, 7, 7] = 1.0
    model = trained("per-pixel-histogram", ImageSpec(1, 8, num_train=100), Rows(train, train[:1]))
    torch.manual_seed(0)
    drawn = ((model.sample(20_000) + 1) * 127.5).round()
    for y, x in ((0, 0), (2, 5)):
        assert set(drawn[:, 0, y, x].tolist()) == {0.0, 101.0}
        assert float((drawn[:, 0, y, x] == 101).float().mean()) == pytest.approx(0.3, abs=0.015)
    assert (drawn[:, 0, 7, 7] == 255).all()
    assert (drawn[:, 0, 0, 1] == 0).all()
    assert float(torch.corrcoef(torch.stack([drawn[:, 0, 0, 0], drawn[:, 0, 2, 5]]))[0, 1]) == pytest.approx(0, abs=0.03)


def test_mean_image() -> None:
    """Pixel order survives channels_last; the mean is over the images drawn."""
    train = images(100, 3, 8)
    model = trained("mean-image", ImageSpec(3, 8, num_train=100), Rows(train.to(memory_format=torch.channels_last), train[:1]))
    torch.testing.assert_close(model.sample(3), train.mean(0, keepdim=True).expand(3, 3, 8, 8), atol=1e-6, rtol=0)


def test_one_sample_is_the_first_training_image() -> None:
    train = images(100, 3, 8)
    model = trained("one-sample", ImageSpec(3, 8), Rows(train, images(10, 3, 8, 1)))
    assert quantised(model.sample(4)) == 4 * quantised(train[:1])


def test_pca_gaussian_is_the_gaussian_of_its_images() -> None:
    """Images from a known Gaussian well inside [-1, 1]: the factor gives the sample moments exactly, the samples in distribution."""
    torch.manual_seed(0)
    mixing = 0.05 * torch.randn(64, 64) / 8
    mixing[:, 0] += 0.1
    centre = torch.linspace(-0.5, 0.5, 64)
    train = (centre + torch.randn(3000, 64) @ mixing.T).view(-1, 1, 8, 8)
    model = trained("pca-gaussian", ImageSpec(1, 8, num_train=3000), Rows(train, train[:1], size=100))
    rows = train.flatten(1)
    torch.testing.assert_close(model.mean, rows.mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.factor @ model.factor.T, torch.cov(rows.T), atol=1e-6, rtol=0)
    with torch.inference_mode():
        drawn = model.sample(40_000).flatten(1)
    torch.testing.assert_close(drawn.mean(0), centre, atol=0.01, rtol=0)
    expected = mixing @ mixing.T
    assert float((torch.cov(drawn.T) - expected).norm() / expected.norm()) < 0.05


def test_pca_gaussian_keeps_channels_apart() -> None:
    """A red set stays red: pixel order survives channels_last."""
    train = torch.full((100, 3, 8, 8), -0.5) + 0.1 * torch.rand(100, 3, 8, 8)
    train[:, 0] += 1
    model = trained("pca-gaussian", ImageSpec(3, 8, num_train=100), Rows(train.to(memory_format=torch.channels_last), train))
    torch.testing.assert_close(model.sample(500).mean((0, 2, 3)), torch.tensor([0.55, -0.45, -0.45]), atol=0.02, rtol=0)


def test_pca_gaussian_draws_no_more_than_it_needs() -> None:
    for num_train, drawn in ((120, 150), (0, 100), (900, 100)):
        batches = Rows(images(200, 1, 8), images(1, 1, 8))
        trained("pca-gaussian", ImageSpec(1, 8, num_train=num_train), batches, max_images=100 if num_train != 120 else 20_000)
        assert batches.drawn == drawn


def test_principal_components_are_ordered() -> None:
    """Variances 9 and 1 along known axes."""
    centred = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    factor = principal_components(centred)
    torch.testing.assert_close(factor @ factor.T, torch.diag(torch.tensor([6.0, 2 / 3])))
    torch.testing.assert_close(factor.norm(dim=0), torch.tensor([math.sqrt(2 / 3), math.sqrt(6)]))


def test_leading_components() -> None:
    """The truncated covariance is the best approximation of its rank (Eckart and Young): equal to the exact one's leading part."""
    torch.manual_seed(0)
    scales = torch.cat([torch.tensor([8.0, 5.0, 3.0]), torch.full((37,), 0.1)])
    centred = torch.randn(500, 40) * scales @ torch.linalg.qr(torch.randn(40, 40)).Q
    centred -= centred.mean(0)
    factor = leading_components(centred, 3)
    exact = principal_components(centred)[:, -3:]
    assert factor.shape == (40, 3)
    torch.testing.assert_close(factor @ factor.T, exact @ exact.T, atol=1e-3, rtol=1e-4)
    fewer = leading_components(centred[:5] - centred[:5].mean(0), 30)
    assert fewer.shape == (40, 30)
    torch.testing.assert_close(fewer @ fewer.T, torch.cov(centred[:5].T), atol=1e-3, rtol=1e-4)


def test_large_images_are_low_rank() -> None:
    """3072 pixel-channels: the 5 asked-for components hold the variance of the 5 largest singular values."""
    torch.manual_seed(0)
    train = (0.02 * torch.randn(40, 8) * torch.arange(1, 9) @ torch.randn(8, 3072)).clamp(-1, 1).view(-1, 3, 32, 32)
    model = trained("pca-gaussian", ImageSpec(3, 32, num_train=40), Rows(train, train[:1], size=40), components=5)
    assert model.factor.shape == (3072, 5)
    rows = train.flatten(1)
    lengths = torch.linalg.svdvals(rows - rows.mean(0))
    assert float(model.factor.square().sum()) == pytest.approx(float(lengths[:5].square().sum() / 39), rel=1e-3)
