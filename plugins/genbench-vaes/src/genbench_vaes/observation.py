"""What the models here share: the likelihood p(x|z), the KL term, and importance weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

Likelihood = Literal["bernoulli", "gaussian", "logistic"]


class Observation(nn.Module):
    """p(x|z) of images x in [-1, 1], from the decoder's output o; its mean is 2 sigmoid(o) - 1 under every likelihood.

    - ``bernoulli``: every pixel-channel (x + 1) / 2 is a probability of "white", o its logit. The density of a binary image;
      for grey pixels the cross-entropy is a loss, not a likelihood.
    - ``gaussian``: N(mean, sigma^2) on the scale [-1, 1]: squared error weighted by 1 / (2 sigma^2). `sigma` None is the
      optimal one, shared by all pixels: sigma^2 = mean squared error of the batch (Rybkin et al., "Simple and Effective VAE
      Training with Calibrated Decoders", ICML 2021, arXiv:2006.13202, eq. 6); its running mean serves in eval mode.
    - ``logistic``: the mass that a logistic distribution around the mean gives to the bin of x, one of 256 levels; the outer bins
      reach to infinity (Kingma et al. 2016, arXiv:1606.04934, section 5.2; Salimans et al. 2017, arXiv:1701.05517, eq. 2). `sigma` is its
      scale s, None: a parameter shared by all pixels, learnt from e^-2 (17 levels) on.
    """

    variance: Tensor
    num_batches: Tensor

    def __init__(self, likelihood: Likelihood, sigma: float | None = None) -> None:
        super().__init__()
        if likelihood not in ("bernoulli", "gaussian", "logistic"):
            raise ValueError(f"likelihood {likelihood!r} is none of 'bernoulli', 'gaussian', 'logistic'")
        if sigma is not None and not sigma > 0:
            raise ValueError(f"sigma {sigma} must be above 0")
        self.likelihood = likelihood
        self.density = {"bernoulli": "bernoulli", "gaussian": "continuous", "logistic": "discrete"}[likelihood]
        self.optimal = sigma is None
        self.register_buffer("variance", torch.tensor(1.0 if sigma is None else sigma**2))
        self.register_buffer("num_batches", torch.tensor(0.0))
        if likelihood == "logistic":
            self.log_scale = nn.Parameter(torch.tensor(-2.0 if sigma is None else math.log(sigma)), requires_grad=sigma is None)

    def mean(self, output: Tensor) -> Tensor:
        """Decoder's output (B, C, H, W) -> mean image in [-1, 1]."""
        return 2 * torch.sigmoid(output.float()) - 1

    def log_prob(self, images: Tensor, output: Tensor) -> Tensor:
        """(B, C, H, W) images, decoder's output -> log p(x|z) (B,) in nats. Follows the optimal sigma in training mode."""
        if self.likelihood == "bernoulli":
            return -binary_cross_entropy_with_logits(output.float(), (images + 1) / 2, reduction="none").flatten(1).sum(1)
        if self.likelihood == "logistic":
            return discretised_logistic(images, self.mean(output), self.log_scale).flatten(1).sum(1)
        errors = (images - self.mean(output)).square().flatten(1)
        variance = self.variance
        if self.optimal and self.training:
            # At the optimum d/d sigma = 0, so a detached sigma gives the gradient of D log(sigma(x)) exactly.
            variance = errors.mean().detach()
            self.num_batches += 1
            self.variance.lerp_(variance, 1 / self.num_batches.clamp(max=100))
        return -0.5 * (errors.sum(1) / variance + errors.shape[1] * (variance.log() + math.log(2 * math.pi)))


def discretised_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Images in [-1, 1], locations in [-1, 1], log s -> log P(level of x) per value: Salimans et al. 2017, eq. 2, on 256 levels.

    With a and b the edges of the bin in units of s, sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)): a product,
    whose logarithm cannot underflow. The bin of level 0 has b = -infinity, that of level 255 a = infinity.
    """
    inverse = torch.exp(-log_scale)
    centred = (x - mean) * inverse
    half = inverse / 255
    above_0, below_255 = x > -1 + 1 / 255, x < 1 - 1 / 255
    log_upper, log_lower = logsigmoid(centred + half) * below_255, logsigmoid(half - centred) * above_0
    return log_upper + log_lower + torch.log(-torch.expm1(-2 * half)) * (above_0 & below_255)


def reparameterise(mu: Tensor, logvar: Tensor) -> Tensor:
    """z = mu + sigma * eps, eps ~ N(0, I): Kingma & Welling 2014, section 2.4."""
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """(B, d), (B, d) -> KL(N(mu, exp(logvar)) || N(0, I)) (B,) in nats: Kingma & Welling 2014, appendix B."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)


def log_weights(mu: Tensor, logvar: Tensor, log_likelihood: Callable[[Tensor], Tensor], k: int) -> Tensor:
    """Posterior (B, d), (B, d), z -> log p(x|z), k -> log p(x|z) p(z) / q(z|x) (k, B) in nats, z ~ q(z|x).

    Their mean over k estimates the ELBO, their logmeanexp the importance-weighted bound (Burda et al. 2016,
    arXiv:1509.00519, eq. 8).
    """
    weights = []
    for _ in range(k):
        z = reparameterise(mu, logvar)
        # log N(z; 0, I) - log N(z; mu, sigma^2): the constants cancel
        log_ratio = 0.5 * ((z - mu).square() / logvar.exp() + logvar - z.square()).sum(1)
        weights.append(log_likelihood(z) + log_ratio)
    return torch.stack(weights)
