"""Likelihoods, divergence and importance weights against torch.distributions and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_vaes.observation import Observation, discretised_logistic, kl_divergence, log_weights, reparameterise
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal
from torch.distributions import kl_divergence as exact_kl


def test_divergence() -> None:
    torch.manual_seed(0)
    mu, logvar = torch.randn(5, 3), torch.randn(5, 3)
    expected = exact_kl(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_divergence(mu, logvar), expected)
    # by hand: mu 2, sigma^2 1: 2; mu 0, sigma^2 e: (e - 2) / 2
    by_hand = kl_divergence(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(by_hand, torch.tensor([2 + (math.e - 2) / 2, 0.0]))


def test_bernoulli() -> None:
    torch.manual_seed(0)
    images, output = torch.randint(0, 2, (4, 3, 2, 2)) * 2.0 - 1, torch.randn(4, 3, 2, 2)
    expected = Independent(Bernoulli(logits=output), 3).log_prob((images + 1) / 2)
    torch.testing.assert_close(Observation("bernoulli").log_prob(images, output), expected)
    # a black pixel under probability 1/4 of white: log 3/4; a white one: log 1/4
    logit = torch.full((2, 1, 1, 1), -math.log(3))
    pixel = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(Observation("bernoulli").log_prob(pixel, logit), torch.tensor([0.75, 0.25]).log())


def test_gaussian_of_fixed_sigma() -> None:
    torch.manual_seed(0)
    observation = Observation("gaussian", sigma=0.3)
    images, output = torch.rand(4, 3, 2, 2) * 2 - 1, torch.randn(4, 3, 2, 2)
    expected = Independent(Normal(torch.tanh(output / 2), 0.3), 3).log_prob(images)
    torch.testing.assert_close(observation.log_prob(images, output), expected)
    assert observation.training
    assert float(observation.variance) == pytest.approx(0.09)


def test_optimal_sigma() -> None:
    """-log p is then D/2 (1 + log 2 pi MSE), gradient included; in eval mode the running mean is used and left alone."""
    torch.manual_seed(0)
    observation = Observation("gaussian")
    images, output = torch.rand(4, 1, 3, 3) * 2 - 1, torch.randn(4, 1, 3, 3, requires_grad=True)
    loss = -observation.log_prob(images, output).mean()
    mse = (images - torch.tanh(output / 2)).square().mean()
    closed = 4.5 * (1 + torch.log(2 * math.pi * mse))
    torch.testing.assert_close(loss, closed)
    torch.testing.assert_close(*(torch.autograd.grad(value, output)[0] for value in (loss, closed)))
    torch.testing.assert_close(observation.variance, mse.detach())
    observation.log_prob(images, torch.zeros_like(images))
    torch.testing.assert_close(observation.variance, (mse.detach() + images.square().mean()) / 2)
    observation.eval()
    before = observation.variance.clone()
    expected = Independent(Normal(torch.tanh(output / 2), before.sqrt()), 3).log_prob(images)
    torch.testing.assert_close(observation.log_prob(images, output), expected)
    assert torch.equal(observation.variance, before)


LEVELS = torch.arange(256) / 127.5 - 1


@pytest.mark.parametrize("mean", [-1.0, -0.3, 0.0, 0.999, 1.0])
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, -2.0, 0.0, 3.0])
def test_logistic_is_a_distribution_over_levels(mean: float, log_scale: float) -> None:
    """Sums to one over the 256 levels; each level has the difference of the distribution function at its edges."""
    found = discretised_logistic(LEVELS, torch.tensor(mean), torch.tensor(log_scale))
    assert found.isfinite().all()
    torch.testing.assert_close(found.double().exp().sum(), torch.tensor(1.0, dtype=torch.float64), atol=5e-5, rtol=0)
    edges = (torch.arange(257, dtype=torch.float64) / 127.5 - 1 - 1 / 255 - mean) / math.exp(log_scale)
    edges[0], edges[-1] = -math.inf, math.inf
    expected = torch.sigmoid(edges).diff()
    torch.testing.assert_close(found.double().exp(), expected, atol=2e-5, rtol=1e-3)


def test_logistic_by_hand() -> None:
    """s = 1: black is everything below -1 + 1/255, white everything above 1 - 1/255."""
    x = torch.tensor([-1.0, 1.0, LEVELS[100]])
    found = discretised_logistic(x, torch.tensor([0.5, 0.5, 0.0]), torch.tensor(0.0))
    middle = 1 / (1 + math.exp(-(float(x[2]) + 1 / 255))) - 1 / (1 + math.exp(-(float(x[2]) - 1 / 255)))
    expected = [1 / (1 + math.exp(1.5 - 1 / 255)), 1 / (1 + math.exp(0.5 - 1 / 255)), middle]
    torch.testing.assert_close(found.exp(), torch.tensor(expected), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("log_scale", [-12.0, -2.0, 6.0])
def test_logistic_has_finite_gradients_at_the_extremes(log_scale: float) -> None:
    """Far from the level, and at levels 0 and 255; the mean is drawn towards the pixel."""
    observation = Observation("logistic")
    observation.log_scale.data.fill_(log_scale)
    images = torch.tensor([-1.0, 1.0, -1.0, 1.0, LEVELS[128]]).view(5, 1, 1, 1)
    output = torch.tensor([30.0, -30.0, -30.0, 30.0, 3.0]).view(5, 1, 1, 1).requires_grad_()
    total = observation.log_prob(images, output).sum()
    slope_output, slope_scale = torch.autograd.grad(total, [output, observation.log_scale])
    assert total.isfinite()
    assert slope_output.isfinite().all()
    assert slope_scale.isfinite()
    assert float(slope_output[4].detach()) < 0


def test_logistic_scale_is_learnt_or_fixed() -> None:
    learnt, fixed = Observation("logistic"), Observation("logistic", sigma=0.1)
    assert [name for name, p in learnt.named_parameters() if p.requires_grad] == ["log_scale"]
    assert not any(p.requires_grad for p in fixed.parameters())
    assert learnt.density == "discrete"
    images, output = LEVELS.view(4, 1, 8, 8), torch.zeros(4, 1, 8, 8)
    expected = discretised_logistic(LEVELS, torch.tensor(0.0), torch.tensor(math.log(0.1))).view(4, 64).sum(1)
    torch.testing.assert_close(fixed.log_prob(images, output), expected)


def test_mean() -> None:
    output = torch.tensor([-100.0, 0.0, math.log(3), 100.0])
    torch.testing.assert_close(Observation("bernoulli").mean(output), torch.tensor([-1.0, 0.0, 0.5, 1.0]))


@pytest.mark.parametrize(("likelihood", "sigma"), [("poisson", None), ("gaussian", 0.0), ("gaussian", -1.0), ("gaussian", math.nan)])
def test_refusals(likelihood: str, sigma: float | None) -> None:
    with pytest.raises(ValueError, match=r"likelihood|sigma"):
        Observation(likelihood, sigma)  # type: ignore[arg-type]


def test_reparameterise() -> None:
    torch.manual_seed(0)
    z = reparameterise(torch.tensor([1.0, -2.0]).expand(200_000, 2), torch.tensor([0.0, math.log(9)]).expand(200_000, 2))
    torch.testing.assert_close(z.mean(0), torch.tensor([1.0, -2.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(z.std(0), torch.tensor([1.0, 3.0]), atol=0.03, rtol=0)


def test_linear_gaussian() -> None:
    """x = W z + b + sigma e, z ~ N(0, I): log p(x) = log N(b, W W^T + sigma^2 I).

    Under the exact posterior every weight is log p(x); under another q their mean is log p(x) - KL(q || posterior), and the
    importance-weighted bound lies between.
    """
    torch.manual_seed(0)
    W, b, sigma = torch.tensor([[1.0], [2.0], [-0.5]]), torch.tensor([0.1, -0.2, 0.3]), 0.7
    x = torch.randn(6, 3)
    evidence = MultivariateNormal(b, W @ W.T + sigma**2 * torch.eye(3)).log_prob(x)
    precision = 1 + (W.square().sum() / sigma**2)
    mu, logvar = (x - b) @ W / sigma**2 / precision, torch.full((6, 1), -math.log(precision))

    def log_likelihood(z: torch.Tensor) -> torch.Tensor:
        return Independent(Normal(z @ W.T + b, sigma), 1).log_prob(x)

    torch.testing.assert_close(log_weights(mu, logvar, log_likelihood, 4), evidence.expand(4, 6), atol=1e-4, rtol=0)
    off_mu, off_logvar = mu + 0.2, logvar + 0.5
    weights = log_weights(off_mu, off_logvar, log_likelihood, 20_000)
    gap = exact_kl(Normal(off_mu, (off_logvar / 2).exp()), Normal(mu, (logvar / 2).exp())).sum(1)
    torch.testing.assert_close(weights.mean(0), evidence - gap, atol=0.03, rtol=0)
    torch.testing.assert_close(weights.logsumexp(0) - math.log(20_000), evidence, atol=0.03, rtol=0)
