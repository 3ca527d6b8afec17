"""GAN against Algorithm 1, its value function and its propositions."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_gans.gan import GAN, Maxout, generator_loss, minimax_value
from torch import Tensor

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


def test_minimax_value_of_given_logits():
    # D(x) = 3/4, 1/2 and D(G(z)) = 1/4, 1/5: ln(3/8)/2 + ln(3/4 * 4/5)/2
    real, fake = torch.tensor([math.log(3), 0.0]), torch.tensor([-math.log(3), -math.log(4)])
    assert minimax_value(real, fake).item() == pytest.approx(math.log(3 / 8) / 2 + math.log(3 / 5) / 2, abs=1e-6)
    assert minimax_value(fake, real).item() != pytest.approx(minimax_value(real, fake).item(), abs=0.1)


def test_generator_losses_of_given_logits_and_their_gradients_where_D_is_sure():
    fake = torch.tensor([-math.log(3), math.log(4)])  # D(G(z)) = 1/4, 4/5
    assert generator_loss(fake, "minimax").item() == pytest.approx(math.log(3 / 4 * 1 / 5) / 2, abs=1e-6)
    assert generator_loss(fake, "non-saturating").item() == pytest.approx(-math.log(1 / 4 * 4 / 5) / 2, abs=1e-6)
    # the gradient with respect to the logit is -D for minimax, which vanishes as D rejects, and D - 1 for the other
    for loss, slope in (("minimax", -0.01), ("non-saturating", -0.99)):
        sure = torch.tensor([-math.log(99)], requires_grad=True)  # D(G(z)) = 0.01
        (gradient,) = torch.autograd.grad(generator_loss(sure, loss), sure)
        assert gradient.item() == pytest.approx(slope, abs=1e-6)


def test_losses_stay_finite_where_D_is_certain():
    assert minimax_value(torch.tensor([-1e4]), torch.tensor([1e4])).item() == -2e4
    assert generator_loss(torch.tensor([1e4]), "minimax").item() == -1e4


def test_the_best_discriminator_is_p_over_p_plus_q():
    # proposition 1 on three points: ascend V over free logits, weighting each point by its probability
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.2, 0.6])
    counts_p, counts_q = (p * 10).round().long(), (q * 10).round().long()
    logits = torch.zeros(3, requires_grad=True)
    for _ in range(400):
        value = minimax_value(logits.repeat_interleave(counts_p), logits.repeat_interleave(counts_q))
        (gradient,) = torch.autograd.grad(value, logits)
        logits.data += 5 * gradient
    assert torch.allclose(logits.sigmoid(), p / (p + q), atol=1e-4)
    # theorem 1: V(D*, G) = -log 4 + 2 JSD(p, q)
    m = (p + q) / 2
    jsd = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2
    assert value.item() == pytest.approx((2 * jsd - math.log(4)).item(), abs=1e-5)


def test_the_value_of_the_game_is_minus_log_4_where_D_cannot_tell():
    assert minimax_value(torch.zeros(5), torch.zeros(3)).item() == pytest.approx(-math.log(4), abs=1e-6)


def test_maxout_takes_the_largest_of_each_units_pieces():
    layer = Maxout(2, 2, pieces=3)
    with torch.no_grad():
        layer.affine.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, -1], [2, 0], [0, 0], [0, -3]]))
        layer.affine.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0.5, 0]))
    assert layer(torch.tensor([[1.0, 4.0], [-2.0, -1.0]])).tolist() == [[4.0, 2.0], [3.0, 3.0]]


def test_gan_draws_k_batches_for_the_discriminator():
    model = GAN(ImageSpec(1, 8), k=3, z_dim=6, width=16, maxout=8, batch_size=4)
    batches = Batches(torch.zeros(8, 1, 8, 8), 4)
    model.training_step(batches, Optimizers(model.configure_optimizers()))
    assert batches.drawn == 12


def test_gan_has_the_released_networks_at_28_pixels():
    model = GAN(ImageSpec(1, 28))
    # mnist.yaml: 100-1200-1200-784 and 784-(240x5)-(240x5)-1
    assert sum(p.numel() for p in model.G.parameters()) == 101 * 1200 + 1201 * 1200 + 1201 * 784
    assert sum(p.numel() for p in model.D.parameters()) == 785 * 1200 + 241 * 1200 + 241
