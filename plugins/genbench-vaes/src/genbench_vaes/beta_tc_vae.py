"""Beta-TCVAE.

Ricky T. Q. Chen, Xuechen Li, Roger Grosse and David Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders",
NeurIPS 2018, arXiv:1802.04942. Over the training set the KL term of a VAE has three parts, eq. 2, which eq. 4 weighs one by one:

    maximise  E[log p(x|z)] - alpha I(z; x) - beta KL(q(z) || prod_j q(z_j)) - gamma sum_j KL(q(z_j) || p(z_j))

with q(z) = 1/N sum_n q(z|x_n): index-code mutual information, total correlation, dimension-wise KL. alpha = gamma = 1, and beta alone is
raised. q(z) is estimated on the minibatch by minibatch-weighted sampling (section 4.1): for M images of N,

    log q(z) ~ log 1/(N M) sum_j q(z|x_j),   z drawn from q(z|x_i) for one of the images, which makes it too small on average.

No gradient depends on N. The reported parts do: against the average over the minibatch's own images the first is larger by log N and the
second by (d - 1) log N, the third smaller by d log N.

The networks are the convolutional ones of the authors' code for 64 x 64 images: convolutions 4 x 4 of stride 2 with 32, 32, 64 and 64
channels and one over what is left to 512, batch normalisation and ReLU after each, 10 latents, and the reverse; Adam at 1e-3 on
minibatches of 2048. Other sizes have one convolution for every factor of two above 4 pixels, the first half of them 32 wide. A bias before
a batch normalisation does nothing and is left out. The paper's MLP for dSprites is not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.beta_vae import halvings
from genbench_vaes.observation import Likelihood, Observation, log_weights, reparameterise


class BetaTCVAE(nn.Module):
    """`width` channels in the first half of the convolutions, twice that in the second; `sigma` of the Gaussian, None: optimal."""

    def __init__(
        self, image: ImageSpec, beta: float = 6.0, alpha: float = 1.0, gamma: float = 1.0, z_dim: int = 10, width: int = 32,
        hidden: int = 512, likelihood: Likelihood = "bernoulli", sigma: float | None = None, lr: float = 1e-3, batch_size: int = 2048,
    ) -> None:  # fmt: skip
        super().__init__()
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.z_dim, self.lr, self.batch_size, self.num_train = z_dim, lr, batch_size, max(image.num_train, 1)
        widths = [width * (1 if 2 * level < halvings(image.size) else 2) for level in range(halvings(image.size))]
        self.encoder = encoder(image, widths, hidden, 2 * z_dim)
        self.decoder = decoder(image, widths, hidden, z_dim)
        self.observation = Observation(likelihood, sigma)
        self.density, self.prior = self.observation.density, "N(0, I)"

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over both networks."""
        return {"VAE": torch.optim.Adam(self.parameters(), lr=self.lr)}

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [-1, 1] -> mu, log sigma^2 of q(z|x), each (B, z_dim)."""
        mu, logvar = self.encoder(images).float().chunk(2, dim=1)
        return mu, logvar

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Ascend eq. 4 with one sample of z per image."""
        images = next(batches).images
        mu, logvar = self.posterior(images)
        z = reparameterise(mu, logvar)
        reconstruction = -self.observation.log_prob(images, self.decoder(z)).mean()
        mi, tc, dimension_wise = (part.mean() for part in decompose(z, mu, logvar, self.num_train))
        loss = reconstruction + self.alpha * mi + self.beta * tc + self.gamma * dimension_wise
        optimizers["VAE"].minimize(loss)
        scalars = {"loss": loss, "reconstruction": reconstruction, "mi": mi, "tc": tc, "dimension_wise_kl": dimension_wise}
        return {name: value.detach() for name, value in scalars.items()}

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
        """(B, C, H, W), k -> log p(x, z) / q(z|x) (k, B) in nats; alpha, beta and gamma have no part in a bound of log p(x)."""
        return log_weights(*self.posterior(images), lambda z: self.observation.log_prob(images, self.decoder(z)), k)


def decompose(z: Tensor, mu: Tensor, logvar: Tensor, num_train: int) -> tuple[Tensor, Tensor, Tensor]:
    """z_i ~ q(z|x_i), mu, log sigma^2, all (M, d), N -> mutual information, total correlation, dimension-wise KL, each (M,) in nats.

    The estimates of eq. 2 at z_i. Their sum is log q(z_i|x_i) - log p(z_i) whatever the estimate of q(z); with N = 1 that
    estimate is the average over the minibatch's own images.
    """
    # log q(z_ik|x_j) (M, M, d), up to the constant log 2 pi / 2 that every density here has
    log_q = -0.5 * ((z[:, None] - mu).square() * (-logvar).exp() + logvar)
    log_q_zx = log_q.diagonal().sum(0)  # z_i under its own x_i
    log_p = -0.5 * z.square().sum(1)
    log_nm = math.log(num_train * len(z))
    log_q_z = log_q.sum(2).logsumexp(1) - log_nm
    log_q_zk = (log_q.logsumexp(1) - log_nm).sum(1)
    return log_q_zx - log_q_z, log_q_z - log_q_zk, log_q_zk - log_p


def encoder(image: ImageSpec, widths: list[int], hidden: int, out: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, out)."""
    layers: list[nn.Module] = []
    channels = [image.channels, *widths]
    for level, width in enumerate(widths):
        layers += [nn.Conv2d(channels[level], width, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.Conv2d(channels[-1], hidden, image.size >> len(widths), bias=False), nn.BatchNorm2d(hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(hidden, out))


def decoder(image: ImageSpec, widths: list[int], hidden: int, z_dim: int) -> nn.Sequential:
    """(B, z_dim) -> (B, C, H, W): the encoder's reverse."""
    channels = [image.channels, *widths]
    layers: list[nn.Module] = [nn.Linear(z_dim, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Unflatten(1, (hidden, 1, 1))]
    layers += [nn.ConvTranspose2d(hidden, channels[-1], image.size >> len(widths), bias=not widths)]
    for level in reversed(range(len(widths))):
        layers += [nn.BatchNorm2d(channels[level + 1]), nn.ReLU()]
        layers += [nn.ConvTranspose2d(channels[level + 1], channels[level], 4, stride=2, padding=1, bias=level == 0)]
    return nn.Sequential(*layers)
