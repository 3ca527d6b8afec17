"""Variational autoencoder.

Diederik P. Kingma and Max Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114. Algorithm 1 with the
estimator of eq. 10 and one sample of z per image (L = 1):

    maximise  E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)),   p(z) = N(0, I),  q(z|x) = N(mu(x), diag sigma^2(x))

Encoder and decoder are the MLPs of the paper's appendix C (one tanh layer of 500 units; Bernoulli outputs, or Gaussian ones with
their means squashed by a sigmoid), trained by Adagrad on minibatches of 100. Weights start from torch's default, which
unlike the paper's N(0, 0.01) suits every image size. `activation="relu"` makes it the VAE of many a later comparison;
`lr_decay` cuts the learning rate as pythae's reproduction does (Chadebec et al. 2022, arXiv:2206.08309).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.observation import Likelihood, Observation, kl_divergence, log_weights, reparameterise

Activation = Literal["tanh", "relu"]
CUTS = (0.4, 0.7)
"""Shares of the budget at which the learning rate is multiplied by `lr_decay`: passes 200 and 350 of pythae's 500."""


class VAE(nn.Module):
    """Two MLPs. `hidden` units in each of `depth` layers a side; `sigma` of the Gaussian likelihood, None: the optimal one."""

    def __init__(
        self, image: ImageSpec, z_dim: int = 20, hidden: int = 500, depth: int = 1, activation: Activation = "tanh",
        likelihood: Likelihood = "bernoulli", sigma: float | None = None,
        optimizer: Literal["adagrad", "adam"] = "adagrad", lr: float = 0.02, lr_decay: float = 1.0, batch_size: int = 100,
    ) -> None:  # fmt: skip
        super().__init__()
        self.z_dim, self.optimizer, self.lr, self.lr_decay, self.batch_size = z_dim, optimizer, lr, lr_decay, batch_size
        pixels = prod(image.shape)
        self.encoder = nn.Sequential(nn.Flatten(), *mlp(pixels, *[hidden] * depth, 2 * z_dim, activation=activation))
        self.decoder = nn.Sequential(*mlp(z_dim, *[hidden] * depth, pixels, activation=activation), nn.Unflatten(1, image.shape))
        self.observation = Observation(likelihood, sigma)
        self.density, self.prior = self.observation.density, "N(0, I)"

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over both networks."""
        kind = torch.optim.Adagrad if self.optimizer == "adagrad" else torch.optim.Adam
        return {"VAE": kind(self.parameters(), lr=self.lr)}

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [-1, 1] -> mu, log sigma^2 of q(z|x), each (B, z_dim)."""
        mu, logvar = self.encoder((images + 1) / 2).float().chunk(2, dim=1)
        return mu, logvar

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Algorithm 1: minibatch, noise, gradient of the estimator, update."""
        optimizers["VAE"].lr = self.lr * self.lr_decay ** sum(batches.progress >= cut for cut in CUTS)
        images = next(batches).images
        mu, logvar = self.posterior(images)
        z = reparameterise(mu, logvar)
        reconstruction = -self.observation.log_prob(images, self.decoder(z)).mean()
        kl = kl_divergence(mu, logvar).mean()
        loss = reconstruction + kl
        optimizers["VAE"].minimize(loss)
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": kl.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> decoder means (n, C, H, W) in [-1, 1] of z ~ N(0, I)."""
        return self.decode(torch.randn(n, self.z_dim, device=self.observation.variance.device))

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> mean of q(z|x) (B, z_dim)."""
        return self.posterior(images)[0]

    def decode(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> mean of p(x|z) (B, C, H, W) in [-1, 1]."""
        return self.observation.mean(self.decoder(z))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior's mean."""
        return self.decode(self.encode(images))

    def log_weights(self, images: Tensor, k: int) -> Tensor:
        """(B, C, H, W), k -> log p(x, z) / q(z|x) (k, B) in nats."""
        return log_weights(*self.posterior(images), lambda z: self.observation.log_prob(images, self.decoder(z)), k)


def mlp(*widths: int, activation: Activation = "tanh") -> list[nn.Module]:
    """Linear layers from each width to the next, the activation between them."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.Tanh() if activation == "tanh" else nn.ReLU()]
    return layers[:-1]
