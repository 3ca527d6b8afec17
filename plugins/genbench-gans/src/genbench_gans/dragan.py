"""DRAGAN. Kodali, Abernethy, Hays & Kira, "On Convergence and Stability of GANs", 2017, arXiv:1705.07215.

The non-saturating game under the paper's penalty, which keeps D's gradient at norm k = 1 around real images only:

    lambda E_{x ~ P_real, delta} (||grad_x D(x + delta)||_2 - k)^2

The paper draws delta from N(0, c I) and leaves c to the scale of the data. Here delta is the authors' (github.com/kodalinaveen3/DRAGAN):
half the batch's standard deviation times uniform noise in [0, 1], shrunk by one uniform number per image; Adam, its betas, z and the
batch size are theirs too. G is DCGAN's. D is DCGAN's without BatchNorm, which would let one image's gradient depend on the others
(the same critic as `wgan-gp`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers, full_precision
from genbench_gans.dcgan import Generator, initialise
from genbench_gans.wgan_gp import Critic as Discriminator


class DRAGAN(nn.Module):
    """DCGAN's G, and D without BatchNorm; `noise` is the size of the region around real images, in standard deviations of the data."""

    def __init__(
        self,
        image: ImageSpec,
        gp_weight: float = 10.0,
        noise: float = 0.5,
        z_dim: int = 100,
        width: int = 64,
        batch_size: int = 128,
        lr: float = 1e-4,
        beta1: float = 0.5,
        beta2: float = 0.9,
    ) -> None:
        super().__init__()
        self.gp_weight, self.noise, self.z_dim, self.batch_size = gp_weight, noise, z_dim, batch_size
        self.lr, self.betas = lr, (beta1, beta2)
        self.G = Generator(image, z_dim, width)
        self.D = Discriminator(image, width)
        self.apply(initialise)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {"D": Adam(self.D.parameters(), self.lr, self.betas), "G": Adam(self.G.parameters(), self.lr, self.betas)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """A step of D under the penalty, then a step of G through the updated D."""
        real = next(batches).images  # (B, C, H, W) in [-1, 1]
        fake = self.G(self.latent(len(real)))
        # D: ascend log D(x) + log(1 - D(G(z))) - lambda (||grad D(x + delta)|| - 1)^2
        loss_D = softplus(-self.D(real)).mean() + softplus(self.D(fake.detach())).mean()
        penalty = local_penalty(self.D, real, self.noise)
        optimizers["D"].minimize(loss_D + self.gp_weight * penalty)
        # G: ascend log D(G(z)), the non-saturating form
        loss_G = softplus(-self.D(fake)).mean()
        optimizers["G"].minimize(loss_G)
        return {"loss_D": loss_D.detach(), "penalty": penalty.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(self.latent(n))
        return images

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z, uniform in [-1, 1]."""
        return torch.rand(n, self.z_dim, device=next(self.parameters()).device) * 2 - 1


def local_penalty(D: Callable[[Tensor], Tensor], real: Tensor, noise: float) -> Tensor:
    """D's logits, real images (B, C, H, W) -> E (||grad_x D(x + delta)||_2 - 1)^2, delta = alpha noise std(x) u; alpha and u uniform."""
    with full_precision():
        real = real.float()
        alpha = torch.rand(len(real), 1, 1, 1, device=real.device)
        delta = alpha * noise * real.std() * torch.rand_like(real)
        x = (real + delta).requires_grad_()
        (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        return (gradient.flatten(1).norm(2, dim=1) - 1).square().mean()
