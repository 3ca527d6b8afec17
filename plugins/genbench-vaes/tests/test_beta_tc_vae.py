"""The decomposition of the KL term against integration on a grid, and the bias of its minibatch estimate."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_vaes.beta_tc_vae import BetaTCVAE, decompose
from torch import Tensor
from torch.distributions import Normal
from torch.distributions import kl_divergence as exact_kl

from genbench import Batch, ImageSpec, Optimizers

# A training set of three images with two latents, well apart and askew, so that no part vanishes.
MU = torch.tensor([[-1.0, -1.5], [0.5, 1.0], [2.0, 1.2]])
LOGVAR = torch.tensor([[-0.5, 0.2], [-1.0, -0.7], [0.3, -1.2]])


class OneBatch:
    progress = 0.0

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __next__(self) -> Batch:
        return Batch(self.images)


def test_parts_sum_to_the_divergence() -> None:
    """At every z to log q(z|x) - log p(z), whatever N; on average to the KL term."""
    torch.manual_seed(0)
    sigma = (LOGVAR / 2).exp()
    z = MU + sigma * torch.randn(1500, 3, 2)
    for num_train in (1, 3, 60_000):
        parts = torch.stack([torch.stack(decompose(some, MU, LOGVAR, num_train)) for some in z[:50]])
        expected = (Normal(MU, sigma).log_prob(z[:50]) - Normal(0.0, 1.0).log_prob(z[:50])).sum(2)
        torch.testing.assert_close(parts.sum(1), expected, atol=1e-4, rtol=1e-4)
    averages = torch.stack([sum(decompose(some, MU, LOGVAR, 1)) for some in z]).mean(0)
    torch.testing.assert_close(averages, exact_kl(Normal(MU, sigma), Normal(0.0, 1.0)).sum(1), atol=0.15, rtol=0)


def on_a_grid() -> tuple[float, float, float]:
    """Eq. 2 for q(z) = 1/3 sum_n q(z|x_n), integrated over [-9, 9]^2."""
    axis = torch.linspace(-9, 9, 721, dtype=torch.float64)
    cell = float(axis[1] - axis[0])
    densities = Normal(MU.double()[..., None], (LOGVAR.double() / 2).exp()[..., None]).log_prob(axis).exp()  # (image, latent, z)
    joints = [first[:, None] * second for first, second in densities]
    q = sum(joints) / 3
    marginals = [q.sum(1) * cell, q.sum(0) * cell]
    mi = sum(float((joint * (joint / q).log().nan_to_num(0, 0, 0)).sum()) * cell**2 for joint in joints) / 3
    tc = float((q * (q / (marginals[0][:, None] * marginals[1])).log()).sum()) * cell**2
    p = Normal(0.0, 1.0).log_prob(axis)
    return mi, tc, sum(float((q_k * (q_k.log() - p)).sum()) * cell for q_k in marginals)


def test_parts_are_those_of_the_aggregate_posterior() -> None:
    """The whole training set as the minibatch (each image 700 times, for as many draws of z): eq. 2's values."""
    torch.manual_seed(0)
    mu, logvar = MU.repeat(700, 1), LOGVAR.repeat(700, 1)
    z = mu + (logvar / 2).exp() * torch.randn(2100, 2)
    found = [float(part.mean()) for part in decompose(z, mu, logvar, 1)]
    expected = on_a_grid()
    assert min(expected) > 0.2
    assert found == pytest.approx(expected, abs=0.06)


def test_minibatch_estimate_is_biased() -> None:
    """1/(NM) sum_j q(z|x_j) counts every image N times too little where the minibatch is the whole set: off by log N exactly."""
    torch.manual_seed(0)
    z, d = MU + (LOGVAR / 2).exp() * torch.randn(3, 2), 2
    exact, estimated = decompose(z, MU, LOGVAR, 1), decompose(z, MU, LOGVAR, 3)
    for one, other, shift in zip(exact, estimated, [1, d - 1, -d], strict=True):
        torch.testing.assert_close(other - one, torch.full((3,), shift * math.log(3)))
    # Minibatches of 8 of 64 images: the expected log q(z) is below the true one, the mutual information above.
    mu, logvar = 2 * torch.randn(64, d), torch.full((64, d), -1.0)
    z = mu + (logvar / 2).exp() * torch.randn(64, d)
    truth = decompose(z, mu, logvar, 1)[0].mean()
    pieces = [torch.randperm(64)[:8] for _ in range(200)]
    averaged = torch.stack([decompose(z[i], mu[i], logvar[i], 64)[0].mean() for i in pieces]).mean()
    assert float(averaged) > float(truth) + 1


def test_no_gradient_depends_on_the_size_of_the_training_set() -> None:
    slopes = []
    for num_train in (1, 60_000):
        mu = MU.clone().requires_grad_()
        mi, tc, dimension_wise = decompose(mu + 0.3, mu, LOGVAR, num_train)
        slopes.append(torch.autograd.grad((mi + 6 * tc + 2 * dimension_wise).sum(), mu)[0])
    assert float(slopes[0].abs().max()) > 0.1
    torch.testing.assert_close(*slopes)


def test_each_weight_is_on_its_own_part() -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 1, 8, 8) * 2 - 1
    model = BetaTCVAE(ImageSpec(1, 8, num_train=1000), alpha=2.0, beta=6.0, gamma=0.5, z_dim=3, width=4, hidden=16)
    found = model.training_step(OneBatch(images), Optimizers(model.configure_optimizers()))
    expected = found["reconstruction"] + 2 * found["mi"] + 6 * found["tc"] + 0.5 * found["dimension_wise_kl"]
    torch.testing.assert_close(found["loss"], expected)
    parts = [float(found[name]) for name in ("mi", "tc", "dimension_wise_kl")]
    assert len({round(part, 2) for part in parts}) == 3


def test_published_networks() -> None:
    """Parameters of github.com/rtqichen/beta-tcvae's ConvEncoder and ConvDecoder, less 704 biases before batch normalisation in each."""
    model = BetaTCVAE(ImageSpec(1, 64))
    encoder, decoder = (sum(p.numel() for p in net.parameters()) for net in (model.encoder, model.decoder))
    assert encoder + 704 == 651_860
    assert decoder + 704 == 646_721
    assert (model.beta, model.alpha, model.gamma, model.batch_size) == (6.0, 1.0, 1.0, 2048)
