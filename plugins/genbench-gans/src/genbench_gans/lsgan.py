"""LSGAN. Mao, Li, Xie, Lau, Wang & Smolley, "Least Squares Generative Adversarial Networks", ICCV 2017, arXiv:1611.04076.

Equation 2, with the coding of equation 9 by default: D regresses fakes on a = 0 and real images on b = 1, G wants its fakes at c = 1.
Equation 8's coding is a = -1, b = 1, c = 0, for which the game minimises a Pearson chi-squared divergence (section 3.2).

The networks are DCGAN's, D's output linear, and the settings those of the authors' comparisons on DCGAN's networks
(github.com/xudonmao/LSGAN, stability_comparison: Adam at 2e-4, batches of 64, z of 1024 uniform dimensions). The generator of their LSUN
scenes (112 pixels, twelve layers, learning rate 1e-3) is not here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers
from genbench_gans.dcgan import Discriminator, Generator, initialise


class LSGAN(nn.Module):
    """DCGAN's G and D; `a` and `b` are D's targets for fake and real images, `c` is what G wants D to say of fakes."""

    def __init__(
        self, image: ImageSpec, a: float = 0.0, b: float = 1.0, c: float = 1.0, z_dim: int = 1024, width: int = 64,
        batch_size: int = 64, lr: float = 2e-4, beta1: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.a, self.b, self.c, self.z_dim, self.batch_size = a, b, c, z_dim, batch_size
        self.lr, self.betas = lr, (beta1, 0.999)
        self.G = Generator(image, z_dim, width)
        self.D = Discriminator(image, width)
        self.apply(initialise)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {"D": Adam(self.D.parameters(), self.lr, self.betas), "G": Adam(self.G.parameters(), self.lr, self.betas)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """A step of D, then a step of G through the updated D. Equation 2, first and second line."""
        real = next(batches).images  # (B, C, H, W) in [-1, 1]
        fake = self.G(self.latent(len(real)))
        loss_D = discriminator_loss(self.D(real), self.D(fake.detach()), self.a, self.b)
        optimizers["D"].minimize(loss_D)
        loss_G = generator_loss(self.D(fake), self.c)
        optimizers["G"].minimize(loss_G)
        return {"loss_D": loss_D.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(self.latent(n))
        return images

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z, uniform in [-1, 1]."""
        return torch.rand(n, self.z_dim, device=next(self.parameters()).device) * 2 - 1


def discriminator_loss(real: Tensor, fake: Tensor, a: float, b: float) -> Tensor:
    """D(x), D(G(z)), (B,) each -> 1/2 E (D(x) - b)^2 + 1/2 E (D(G(z)) - a)^2."""
    return 0.5 * (real - b).square().mean() + 0.5 * (fake - a).square().mean()


def generator_loss(fake: Tensor, c: float) -> Tensor:
    """D(G(z)) (B,) -> 1/2 E (D(G(z)) - c)^2."""
    return 0.5 * (fake - c).square().mean()
