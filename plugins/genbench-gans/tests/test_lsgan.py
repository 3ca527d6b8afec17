"""LSGAN against equations 2, 8 and 9 and theorem 1's divergence."""

from __future__ import annotations

import pytest
import torch
from genbench_gans.lsgan import LSGAN, discriminator_loss, generator_loss
from torch import nn

from genbench import Batch, ImageSpec
from genbench.model import Optimizers


class Batches:
    """One batch for ever."""

    progress = 0.0

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        return Batch(self.images)


def test_losses_of_given_scores():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 3.0])
    # equation 9, a = 0, b = c = 1: ((2 - 1)^2 + (0.5 - 1)^2) / 4 + ((-1)^2 + 3^2) / 4 and ((-2)^2 + 2^2) / 4
    assert discriminator_loss(real, fake, a=0, b=1).item() == pytest.approx(1.25 / 4 + 10 / 4)
    assert generator_loss(fake, c=1).item() == pytest.approx(2)
    # equation 8, a = -1, b = 1, c = 0
    assert discriminator_loss(real, fake, a=-1, b=1).item() == pytest.approx(1.25 / 4 + 16 / 4)
    assert generator_loss(fake, c=0).item() == pytest.approx(10 / 4)
    assert discriminator_loss(real, fake, a=-1, b=1) != discriminator_loss(fake, real, a=-1, b=1)


def test_the_gradient_does_not_vanish_on_the_right_side_of_the_boundary():
    # a fake that D calls real (score 5) is still pulled back to c, in proportion to its distance
    fake = torch.tensor([5.0, 0.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(generator_loss(fake, c=1), fake)
    assert gradient.tolist() == [2.0, -0.5]


def test_the_game_with_b_minus_c_1_and_b_minus_a_2_is_a_pearson_divergence():
    # four points, real images in proportion p, fakes in proportion q; a = -1, b = 1, c = 0
    p, q = torch.tensor([4, 3, 2, 1]), torch.tensor([1, 1, 2, 6])
    scores = torch.zeros(4, requires_grad=True)
    for _ in range(300):
        loss = discriminator_loss(scores.repeat_interleave(p), scores.repeat_interleave(q), a=-1, b=1)
        (gradient,) = torch.autograd.grad(loss, scores)
        scores.data -= gradient
    p, q = p / 10, q / 10
    assert torch.allclose(scores, (p - q) / (p + q), atol=1e-5)  # equation 5: (b p + a q) / (p + q)
    # equations 4, 6, 7: what G descends at D*, with the term on real images that G cannot change, is half of chi^2(p + q || 2 q)
    C = generator_loss(scores.repeat_interleave((10 * p).long()), c=0) + generator_loss(scores.repeat_interleave((10 * q).long()), c=0)
    assert (2 * C).item() == pytest.approx(((2 * q - (p + q)).square() / (p + q)).sum().item(), abs=1e-5)


def test_a_step_reports_the_losses_of_the_coding_asked_for():
    torch.manual_seed(0)
    model = LSGAN(ImageSpec(1, 8), a=-2.0, b=3.0, c=0.5, z_dim=4, width=4, batch_size=6)
    nn.init.zeros_(model.D.net[-1].weight)  # D says 0 of everything, until its step
    optimizers = Optimizers(model.configure_optimizers())
    optimizers["D"].lr = 0.0
    scalars = model.training_step(Batches(torch.rand(6, 1, 8, 8)), optimizers)
    assert scalars["loss_D"].item() == pytest.approx((3**2 + 2**2) / 2)
    assert scalars["loss_G"].item() == pytest.approx(0.5**2 / 2)


def test_defaults_are_equation_9s_and_the_releases():
    model = LSGAN(ImageSpec(3, 64), z_dim=100)
    assert (model.a, model.b, model.c, model.batch_size) == (0, 1, 1, 64)
    # DCGAN's networks: the counts of the authors' Torch release as counted for PyTorch's port, examples/dcgan
    assert sum(p.numel() for p in model.G.parameters()) == 3_576_704
    assert sum(p.numel() for p in model.D.parameters()) == 2_765_568
    for optimizer in model.configure_optimizers().values():
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (2e-4, (0.5, 0.999))
