"""WGAN-GP against Algorithm 1 and its penalty's closed forms."""

from __future__ import annotations

import pytest
import torch
from genbench_gans.wgan_gp import WGANGP, gradient_penalty
from torch import Tensor, nn

from genbench import Batch, ImageSpec
from genbench.model import Optimizers


class Batches:
    """Batches of a fixed set of images, drawn at random; counts the images drawn."""

    progress = 0.0

    def __init__(self, images: Tensor, batch_size: int) -> None:
        self.images, self.batch_size, self.drawn = images, batch_size, 0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        self.drawn += self.batch_size
        return Batch(self.images[torch.randint(len(self.images), (self.batch_size,))])


def build(**hparams: object) -> WGANGP:
    torch.manual_seed(0)
    return WGANGP(ImageSpec(1, 8), **{"z_dim": 6, "width": 4, "batch_size": 4, **hparams})


def test_a_turn_of_the_loop_draws_n_critic_batches():
    model = build()
    batches = Batches(torch.zeros(8, 1, 8, 8), 4)
    model.training_step(batches, Optimizers(model.configure_optimizers()))
    assert batches.drawn == 5 * 4


def test_gradient_penalty_of_a_linear_critic():
    # D(x) = w.x has gradient w everywhere: the penalty is (||w|| - 1)^2 whatever the images
    w = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    real, fake = torch.rand(5, 3, 8, 8), torch.rand(5, 3, 8, 8)
    penalty = gradient_penalty(lambda x: (x * w).flatten(1).sum(1), real, fake)
    assert penalty.item() == pytest.approx((w.norm().item() - 1) ** 2, rel=1e-5)


def test_gradient_penalty_is_taken_between_real_and_fake_for_each_image():
    # D(x) = |x|^2 / 2 has gradient x^: with fake = 0 it is eps * real, one eps for a whole image, uniform in [0, 1]
    real = torch.zeros(20_000, 1, 2, 2)
    real[:, 0, 0, 0], real[:, 0, 1, 1] = 3.0, 4.0
    torch.manual_seed(0)
    penalty = gradient_penalty(lambda x: x.square().flatten(1).sum(1) / 2, real, torch.zeros_like(real))
    # E (5 eps - 1)^2 = 25/3 - 5 + 1
    assert penalty.item() == pytest.approx(13 / 3, rel=0.02)


def test_gradient_penalty_is_differentiable_and_exact_under_autocast():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1), nn.Flatten(0))
    real, fake = torch.rand(6, 1, 4, 4), torch.rand(6, 1, 4, 4)

    def gradients(enabled: bool) -> Tensor:
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            penalty = gradient_penalty(net, real, fake)
        return torch.cat([g.flatten() for g in torch.autograd.grad(penalty, [net[1].weight, net[3].weight])])

    assert gradients(False).norm() > 0.01
    assert torch.equal(gradients(True), gradients(False))


def test_wgan_gp_defaults_are_algorithm_1s():
    model = WGANGP(ImageSpec(1, 32), width=4)
    assert (model.gp_weight, model.n_critic, model.batch_size) == (10.0, 5, 64)
    for optimizer in model.configure_optimizers().values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"]) == (1e-4, (0.0, 0.9))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.D.modules())


def test_the_critic_reaches_the_penalised_distance_between_two_points():
    # x and y are sqrt(64 * 0.5^2) = 4 apart. A slope g between them gains 4 g - 10 (g - 1)^2, most at g = 1 + 4/20: 4.8, penalty 0.04
    model = build(width=8, batch_size=32, lr=1e-3, n_critic=200)
    nn.init.zeros_(model.G.output[0].weight)  # holds G at y = 0
    batches = Batches(torch.full((4, 1, 8, 8), 0.5), 32)
    scalars = model.training_step(batches, Optimizers(model.configure_optimizers()))
    assert scalars["wasserstein"].item() == pytest.approx(4.8, rel=0.08)
    assert scalars["penalty"].item() == pytest.approx(0.04, abs=0.03)


@pytest.mark.parametrize("size", [12, 28, 33])
def test_sizes_that_are_no_power_of_two_are_cut_from_the_next_one(size):
    model = WGANGP(ImageSpec(3, size), z_dim=6, width=4).eval()
    with torch.inference_mode():
        images = model.sample(2)
        assert model.D(images).shape == (2,)
    assert images.shape == (2, 3, size, size)
