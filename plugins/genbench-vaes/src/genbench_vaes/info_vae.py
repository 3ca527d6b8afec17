"""InfoVAE with maximum mean discrepancy.

Shengjia Zhao, Jiaming Song and Stefano Ermon, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders", AAAI 2019,
arXiv:1706.02262, eq. 6 with MMD as the divergence of the aggregate posterior q(z) from the prior:

    maximise  E_q(z|x)[log p(x|z)] - (1 - alpha) KL(q(z|x) || p(z)) - (alpha + lambda - 1) MMD(q(z) || p(z))

alpha = 0 and lambda = 1 is a VAE, alpha = 1 the "MMD-VAE", which leaves each q(z|x) alone and asks only that together they make the prior.
The defaults 0 and 1000 are the paper's for MNIST. The kernel is that of the authors' code, exp(-|z - z'|^2 / d^2) for d latents, and
so are the estimator (all pairs of the minibatch and as many draws from the prior), 20 latents, Adam at 1e-3 and minibatches of 200. Its
networks are two convolutions and a layer of 1024 a side for 28 x 28; those of `conv-vae` stand here, which fit every size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.conv_vae import decoder, encoder
from genbench_vaes.observation import Likelihood, Observation, kl_divergence, log_weights, reparameterise


class InfoVAE(nn.Module):
    """`alpha` and `lam` of eq. 6; `width` channels after the first convolution; `sigma` of the Gaussian, None: the optimal one."""

    def __init__(
        self, image: ImageSpec, alpha: float = 0.0, lam: float = 1000.0, z_dim: int = 20, width: int = 64,
        likelihood: Likelihood = "gaussian", sigma: float | None = None, lr: float = 1e-3, batch_size: int = 200,
    ) -> None:  # fmt: skip
        super().__init__()
        self.alpha, self.lam, self.z_dim, self.lr, self.batch_size = alpha, lam, z_dim, lr, batch_size
        self.encoder = encoder(image, width, 2 * z_dim)
        self.decoder = decoder(image, width, z_dim)
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
        """Ascend eq. 6 with one sample of z per image."""
        images = next(batches).images
        mu, logvar = self.posterior(images)
        z = reparameterise(mu, logvar)
        reconstruction = -self.observation.log_prob(images, self.decoder(z)).mean()
        kl = kl_divergence(mu, logvar).mean()
        mmd = maximum_mean_discrepancy(z, torch.randn_like(z))
        loss = reconstruction + (1 - self.alpha) * kl + (self.alpha + self.lam - 1) * mmd
        optimizers["VAE"].minimize(loss)
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": kl.detach(), "mmd": mmd.detach()}

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
        """(B, C, H, W), k -> log p(x, z) / q(z|x) (k, B) in nats; alpha and lambda have no part in a bound of log p(x)."""
        return log_weights(*self.posterior(images), lambda z: self.observation.log_prob(images, self.decoder(z)), k)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(n, d), (m, d) -> exp(-|x_i - y_j|^2 / d^2) (n, m)."""
    return torch.exp(-(x[:, None] - y).square().sum(2) / x.shape[1] ** 2)


def maximum_mean_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """(n, d), (m, d) -> squared MMD over all pairs, each point with itself included: at least 0, and 0 for the same points."""
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()
