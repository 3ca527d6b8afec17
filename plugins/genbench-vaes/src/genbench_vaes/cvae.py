"""Conditional variational autoencoder.

Kihyuk Sohn, Honglak Lee and Xinchen Yan, "Learning Structured Output Representation using Deep Conditional Generative Models", NeurIPS
2015, eq. 4, where the condition is the class y and the output the image x:

    maximise  E_q(z|x,y)[log p(x|z,y)] - KL(q(z|x,y) || p(z|y)),   p(z|y) = N(0, I)

The prior is independent of the condition, a choice that section 4.1 leaves. With it this is the model M2 of Diederik P. Kingma, Danilo J.
Rezende, Shakir Mohamed and Max Welling, "Semi-supervised Learning with Deep Generative Models", NeurIPS 2014, arXiv:1406.5298, eq. 6,
trained on labelled images alone: z is left with what the class does not say, the style.

The class enters the encoder as constant planes beside the image's channels, the decoder as a one-hot vector beside z. Kingma et al.'s
networks are MLPs and Sohn et al. fill in images, so those of `conv-vae` stand here; 50 latents and Adam at 3e-4 are Kingma et al.'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.conv_vae import decoder, encoder
from genbench_vaes.observation import Likelihood, Observation, kl_divergence, log_weights, reparameterise


class CVAE(nn.Module):
    """`width` channels after the first convolution, doubling with each; `sigma` of the Gaussian likelihood, None: the optimal one."""

    def __init__(
        self, image: ImageSpec, z_dim: int = 50, width: int = 64,
        likelihood: Likelihood = "gaussian", sigma: float | None = None, lr: float = 3e-4, batch_size: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.z_dim, self.num_classes, self.lr, self.batch_size = z_dim, image.num_classes, lr, batch_size
        self.encoder = encoder(replace(image, channels=image.channels + image.num_classes), width, 2 * z_dim)
        self.decoder = decoder(image, width, z_dim + image.num_classes)
        self.observation = Observation(likelihood, sigma)
        self.density, self.prior = self.observation.density, "N(0, I)"

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over both networks."""
        return {"VAE": torch.optim.Adam(self.parameters(), lr=self.lr)}

    def posterior(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [-1, 1], (B,) int64 -> mu, log sigma^2 of q(z|x,y), each (B, z_dim)."""
        planes = one_hot(labels, self.num_classes).to(images)[:, :, None, None].expand(-1, -1, *images.shape[2:])
        mu, logvar = self.encoder(torch.cat([images, planes], dim=1)).float().chunk(2, dim=1)
        return mu, logvar

    def output(self, z: Tensor, labels: Tensor) -> Tensor:
        """(B, z_dim), (B,) int64 -> what `observation` takes for p(x|z,y) (B, C, H, W)."""
        return self.decoder(torch.cat([z, one_hot(labels, self.num_classes).to(z)], dim=1))

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Ascend eq. 4 with one sample of z per image."""
        batch = next(batches)
        mu, logvar = self.posterior(batch.images, batch.labels)
        z = reparameterise(mu, logvar)
        reconstruction = -self.observation.log_prob(batch.images, self.output(z, batch.labels)).mean()
        kl = kl_divergence(mu, logvar).mean()
        loss = reconstruction + kl
        optimizers["VAE"].minimize(loss)
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": kl.detach()}

    def sample(self, n: int, labels: Tensor) -> Tensor:
        """n, (n,) int64 -> decoder means (n, C, H, W) in [-1, 1] of z ~ N(0, I) and these classes."""
        return self.decode(torch.randn(n, self.z_dim, device=labels.device), labels)

    def encode(self, images: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W), (B,) int64 -> mean of q(z|x,y) (B, z_dim)."""
        return self.posterior(images, labels)[0]

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """(B, z_dim), (B,) int64 -> mean of p(x|z,y) (B, C, H, W) in [-1, 1]."""
        return self.observation.mean(self.output(z, labels))

    def reconstruct(self, images: Tensor, labels: Tensor) -> Tensor:
        """Decode the posterior's mean under the image's own class."""
        return self.decode(self.encode(images, labels), labels)

    def log_weights(self, images: Tensor, k: int, labels: Tensor) -> Tensor:
        """(B, C, H, W), k, (B,) int64 -> log p(x, z|y) / q(z|x,y) (k, B) in nats: of bounds of log p(x|y)."""
        mu, logvar = self.posterior(images, labels)
        return log_weights(mu, logvar, lambda z: self.observation.log_prob(images, self.output(z, labels)), k)
