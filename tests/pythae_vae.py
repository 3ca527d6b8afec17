"""A published library's model as a plugin: the VAE of pythae, arXiv:2206.08309, whose images lie in [0, 1].

pythae keeps networks and loss, genbench brings data, optimizer steps, clock and scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pythae.models import VAE, VAEConfig
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers, full_precision


class PythaeVAE(nn.Module):
    """pythae's default encoder and decoder: a layer of 512 ReLU units a side."""

    family, prior = "vae", "N(0, I)"

    def __init__(self, image: ImageSpec, z_dim: int = 16, lr: float = 1e-3, batch_size: int = 64) -> None:
        super().__init__()
        self.z_dim, self.lr, self.batch_size = z_dim, lr, batch_size
        self.vae = VAE(VAEConfig(input_dim=image.shape, latent_dim=z_dim, reconstruction_loss="bce"))

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over both networks."""
        return {"VAE": torch.optim.Adam(self.parameters(), self.lr)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """pythae computes its loss, genbench minimises it."""
        with full_precision():  # torch refuses the cross-entropy of probabilities under autocast
            out = self.vae({"data": (next(batches).images + 1) / 2})
        optimizers["VAE"].minimize(out.loss)
        return {"loss": out.loss.detach(), "reconstruction": out.recon_loss.detach(), "kl": out.reg_loss.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> decoder means (n, C, H, W) in [-1, 1] of z ~ N(0, I)."""
        z = torch.randn(n, self.z_dim, device=next(self.parameters()).device)
        return self.decode(z)

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> mean of q(z|x) (B, z_dim)."""
        mu: Tensor = self.vae.encoder((images + 1) / 2).embedding
        return mu

    def decode(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C, H, W) in [-1, 1]."""
        images: Tensor = self.vae.decoder(z).reconstruction
        return images * 2 - 1

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior's mean."""
        return self.decode(self.encode(images))
