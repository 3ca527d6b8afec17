"""Beta-VAE.

Irina Higgins, Loic Matthey, Arka Pal, Christopher Burgess, Xavier Glorot, Matthew Botvinick, Shakir Mohamed and Alexander Lerchner,
"beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework", ICLR 2017, eq. 4:

    maximise  E_q(z|x)[log p(x|z)] - beta KL(q(z|x) || N(0, I))

The networks are those of its appendix A.1 for 64 x 64 images (3D chairs, CelebA): convolutions 4 x 4 of stride 2 with 32, 32, 64 and 64
channels, a layer of 256, 32 latents, ReLU, no normalisation; the decoder is the reverse; Adam at 1e-4. Other sizes have one
convolution for every factor of two above 4 pixels, the first half of them 32 wide. A beta of 1 is a VAE; the larger, the fewer
latents are used and the softer the images.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.observation import Likelihood, Observation, kl_divergence, log_weights, reparameterise


class BetaVAE(nn.Module):
    """`width` channels in the first half of the convolutions, twice that in the second; `sigma` of the Gaussian, None: optimal."""

    def __init__(
        self, image: ImageSpec, beta: float = 4.0, z_dim: int = 32, width: int = 32, hidden: int = 256,
        likelihood: Likelihood = "bernoulli", sigma: float | None = None, lr: float = 1e-4, batch_size: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.beta, self.z_dim, self.lr, self.batch_size = beta, z_dim, lr, batch_size
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
        kl = kl_divergence(mu, logvar).mean()
        loss = reconstruction + self.beta * kl
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
        """(B, C, H, W), k -> log p(x, z) / q(z|x) (k, B) in nats; beta has no part in a bound of log p(x)."""
        return log_weights(*self.posterior(images), lambda z: self.observation.log_prob(images, self.decoder(z)), k)


def halvings(size: int) -> int:
    """How often a size can be halved without going below 4: log2(size) - 2 for powers of two."""
    count = 0
    while size % 2 == 0 and size // 2 >= 4:
        size, count = size // 2, count + 1
    return count


def encoder(image: ImageSpec, widths: list[int], hidden: int, out: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, out)."""
    layers: list[nn.Module] = []
    channels = image.channels
    for width in widths:
        layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()]
        channels = width
    features = channels * (image.size >> len(widths)) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, out))


def decoder(image: ImageSpec, widths: list[int], hidden: int, z_dim: int) -> nn.Sequential:
    """(B, z_dim) -> (B, C, H, W): the encoder's reverse."""
    channels, size = [image.channels, *widths], image.size >> len(widths)
    features = (channels[-1], size, size)
    layers: list[nn.Module] = [nn.Linear(z_dim, hidden), nn.ReLU(), nn.Linear(hidden, channels[-1] * size**2), nn.Unflatten(1, features)]
    for level in reversed(range(len(widths))):
        layers += [nn.ReLU(), nn.ConvTranspose2d(channels[level + 1], channels[level], 4, stride=2, padding=1)]
    return nn.Sequential(*layers)
