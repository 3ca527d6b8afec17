"""DRAGAN's penalty against its formula, and where it is taken."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_gans.dragan import DRAGAN, local_penalty
from torch import Tensor, nn

from genbench import Batch, ImageSpec
from genbench.model import Optimizers


class Batches:
    """One batch for ever."""

    progress = 0.0

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        return Batch(self.images)


def test_penalty_of_a_linear_critic():
    # D(x) = w.x has gradient w everywhere: (||w|| - 1)^2 whatever the images and the noise
    w = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    penalty = local_penalty(lambda x: (x * w).flatten(1).sum(1), torch.rand(5, 3, 8, 8), noise=0.5)
    assert penalty.item() == pytest.approx((w.norm().item() - 1) ** 2, rel=1e-5)


def test_penalty_is_taken_within_half_a_standard_deviation_of_each_real_image():
    torch.manual_seed(0)
    real, seen = torch.randn(400, 1, 4, 4) * 3 + 7, []

    def D(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    local_penalty(D, real, noise=0.5)
    delta = (seen[0] - real) / (0.5 * real.std())  # alpha u: alpha one uniform number for an image, u one for every pixel
    assert delta.min() >= 0
    assert delta.max() <= 1 + 1e-5
    assert delta.mean().item() == pytest.approx(1 / 4, abs=0.02)
    assert delta.square().mean().item() == pytest.approx(1 / 9, abs=0.02)
    # images differ in their mean by alpha: Var(E(alpha u | alpha)) = Var(alpha) / 4, and Var(alpha u | alpha) / 16 pixels
    assert delta.flatten(1).mean(1).var().item() == pytest.approx(1 / 48 + 1 / 36 / 16, rel=0.2)


def test_without_noise_the_penalty_is_at_the_images():
    # D(x) = |x|^2 / 2 has gradient x
    real = torch.zeros(2, 1, 2, 2)
    real[0, 0, 0, 0], real[1, 0, 1, :] = 3.0, 2.0
    penalty = local_penalty(lambda x: x.square().flatten(1).sum(1) / 2, real, noise=0.0)
    assert penalty.item() == pytest.approx(((3 - 1) ** 2 + (math.sqrt(8) - 1) ** 2) / 2)


def test_penalty_is_differentiable_and_exact_under_autocast():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1), nn.Flatten(0))
    real = torch.rand(6, 1, 4, 4)

    def gradients(enabled: bool) -> Tensor:
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            penalty = local_penalty(net, real, 0.5)
        return torch.cat([g.flatten() for g in torch.autograd.grad(penalty, [net[1].weight, net[3].weight])])

    assert gradients(False).norm() > 0.01
    assert torch.equal(gradients(True), gradients(False))


def test_D_descends_the_weighted_penalty_and_reports_it_unweighted():
    # a linear D of norm 8 on images that tell it nothing: only the penalty moves it, towards norm 1
    torch.manual_seed(0)
    model = DRAGAN(ImageSpec(1, 8), z_dim=4, width=4, batch_size=6, lr=0.05)
    model.D = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Flatten(0))
    nn.init.ones_(model.D[1].weight)
    nn.init.zeros_(model.G.output[0].weight)
    batches, optimizers = Batches(torch.zeros(6, 1, 8, 8)), Optimizers(model.configure_optimizers())
    optimizers["G"].lr = 0.0
    scalars = model.training_step(batches, optimizers)
    assert scalars["penalty"].item() == pytest.approx((8 - 1) ** 2, rel=1e-5)
    assert scalars["loss_D"].item() == pytest.approx(2 * math.log(2), rel=1e-5)
    for _ in range(60):
        model.training_step(batches, optimizers)
    assert model.D[1].weight.norm().item() == pytest.approx(1, abs=0.2)


def test_defaults_are_the_releases_and_D_has_no_batch_norm():
    model = DRAGAN(ImageSpec(1, 32), width=4)
    assert (model.gp_weight, model.noise, model.batch_size) == (10.0, 0.5, 128)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.D.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.G.modules())
    for optimizer in model.configure_optimizers().values():
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (1e-4, (0.5, 0.9))
