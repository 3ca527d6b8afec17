"""Convolutional variational autoencoder.

The objective is Kingma and Welling's (arXiv:1312.6114), the networks follow the plain VAE of Anders Boesen Lindbo Larsen,
Søren Kaae Sønderby, Hugo Larochelle and Ole Winther, "Autoencoding beyond pixels using a learned similarity metric", ICML 2016,
arXiv:1512.09300, table 1: strided convolutions with batch normalisation and ReLU, doubling in width while they halve the image, and
their mirror image as decoder.

    maximise  E_q(z|x)[log p(x|z)] - KL(q(z|x) || N(0, I))

Departures: one halving for every factor of two above 4 pixels (three at 32) in place of three at 64, kernels of 4 in place of 5 (a
stride of 2 divides them, which avoids checkerboards), the features enter the linear layer to mu and log sigma^2 directly, Adam in
place of RMSprop.

With `prior="gmm"` the networks stand still in the last `prior_share` of the budget while a mixture of Gaussians is fitted to samples
of q(z|x), and takes the place of N(0, I): the ex-post density estimation of Ghosh et al. 2020, arXiv:1903.12436, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.observation import Likelihood, Observation, kl_divergence, log_weights, reparameterise
from genbench_vaes.prior import LatentGMM


class ConvVAE(nn.Module):
    """`width` channels after the first convolution, doubling with each; `sigma` of the Gaussian likelihood, None: the optimal one."""

    def __init__(
        self, image: ImageSpec, z_dim: int = 128, width: int = 64,
        likelihood: Likelihood = "gaussian", sigma: float | None = None, lr: float = 3e-4, batch_size: int = 64,
        prior: Literal["normal", "gmm"] = "normal", components: int = 20, prior_share: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.z_dim, self.lr, self.batch_size = z_dim, lr, batch_size
        self.encoder = encoder(image, width, 2 * z_dim)
        self.decoder = decoder(image, width, z_dim)
        self.observation = Observation(likelihood, sigma)
        self.density, self.prior = self.observation.density, f"GMM({components})" if prior == "gmm" else "N(0, I)"
        self.prior_share, self.mixture = prior_share, LatentGMM(z_dim, components) if prior == "gmm" else None

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over both networks."""
        return {"VAE": torch.optim.Adam(self.parameters(), lr=self.lr)}

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [-1, 1] -> mu, log sigma^2 of q(z|x), each (B, z_dim)."""
        mu, logvar = self.encoder(images).float().chunk(2, dim=1)
        return mu, logvar

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Algorithm 1 of Kingma and Welling: minibatch, noise, gradient of the estimator, update."""
        images = next(batches).images
        if self.mixture is not None and batches.progress >= 1 - self.prior_share:
            return {"log_prior": self.fit_prior(self.mixture, images)}
        mu, logvar = self.posterior(images)
        z = reparameterise(mu, logvar)
        reconstruction = -self.observation.log_prob(images, self.decoder(z)).mean()
        kl = kl_divergence(mu, logvar).mean()
        loss = reconstruction + kl
        optimizers["VAE"].minimize(loss)
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": kl.detach()}

    @torch.no_grad()
    def fit_prior(self, mixture: LatentGMM, images: Tensor) -> Tensor:
        """(B, C, H, W) -> mean log p(z) () of the latents so far; the encoder stands still, batch statistics too."""
        self.encoder.eval()
        z = reparameterise(*self.posterior(images))
        self.encoder.train(self.training)
        return mixture.fit(z)

    def sample(self, n: int) -> Tensor:
        """n -> decoder means (n, C, H, W) in [-1, 1] of z from the prior."""
        if self.mixture is not None:
            return self.decode(self.mixture.sample(n))
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

        def log_likelihood(z: Tensor) -> Tensor:
            log_prob = self.observation.log_prob(images, self.decoder(z))
            if self.mixture is None:
                return log_prob
            # `log_weights` takes p(z) for N(0, I): put the mixture in its place.
            return log_prob + self.mixture.log_prob(z) + 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

        return log_weights(*self.posterior(images), log_likelihood, k)


def halvings(size: int) -> int:
    """How often a size can be halved without going below 4: log2(size) - 2 for powers of two."""
    count = 0
    while size % 2 == 0 and size // 2 >= 4:
        size, count = size // 2, count + 1
    return count


def encoder(image: ImageSpec, width: int, out: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, out)."""
    layers: list[nn.Module] = []
    channels, levels = image.channels, halvings(image.size)
    for level in range(levels):
        wider = width * 2**level
        layers += [nn.Conv2d(channels, wider, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
        channels = wider
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (image.size >> levels) ** 2, out))


def decoder(image: ImageSpec, width: int, z_dim: int) -> nn.Sequential:
    """(B, z_dim) -> (B, C, H, W): the encoder's mirror image."""
    levels = halvings(image.size)
    channels, size = width * 2 ** max(levels - 1, 0), image.size >> levels
    layers: list[nn.Module] = [nn.Linear(z_dim, channels * size**2), nn.Unflatten(1, (channels, size, size))]
    layers += [nn.BatchNorm2d(channels), nn.ReLU()]
    for level in reversed(range(1, levels)):
        narrower = width * 2 ** (level - 1)
        layers += [nn.ConvTranspose2d(channels, narrower, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(narrower), nn.ReLU()]
        channels = narrower
    if not levels:
        return nn.Sequential(*layers, nn.Conv2d(channels, image.channels, 3, padding=1))
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, image.channels, 4, stride=2, padding=1))
