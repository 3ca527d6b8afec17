"""SNGAN. Miyato, Kataoka, Koyama & Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
arXiv:1802.05957.

Every layer of D is divided by its largest singular value (equation 8), which one power iteration a forward pass follows while the
weights move (Algorithm 1). Hinge loss (equations 16 and 17), the ResNets of table 4 (`genbench_gans.resnet`), Adam (2e-4, 0, 0.9) and
five steps of D for one of G. The learning rate falls linearly to zero over the budget, as in the authors' CIFAR-10 configuration
(github.com/pfnet-research/sngan_projection). Departures from that release: D sees real and fake images in one pass, so that a step
of D is one power iteration, not two; G learns from as many images a step as D sees real ones (there twice as many).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu
from torch.nn.utils.parametrize import register_parametrization
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers, full_precision
from genbench_gans.resnet import Blocks, Discriminator, Generator


class SNGAN(nn.Module):
    """G with `width_G` maps against a spectrally normalised D with `width_D`; `blocks` is described in `genbench_gans.resnet`."""

    def __init__(
        self,
        image: ImageSpec,
        z_dim: int = 128,
        width_G: int = 256,
        width_D: int = 128,
        blocks: Blocks = "authors",
        batch_size: int = 64,
        n_dis: int = 5,
        lr: float = 2e-4,
        beta1: float = 0.0,
        beta2: float = 0.9,
        linear_decay: bool = True,
    ) -> None:
        super().__init__()
        self.z_dim, self.batch_size, self.n_dis = z_dim, batch_size, n_dis
        self.lr, self.betas, self.linear_decay = lr, (beta1, beta2), linear_decay
        self.G = Generator(image, z_dim, width_G, blocks)
        self.D = Discriminator(image, width_D, blocks, wrap=spectral_norm)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {"D": Adam(self.D.parameters(), self.lr, self.betas), "G": Adam(self.G.parameters(), self.lr, self.betas)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """n_dis steps of D, then one of G."""
        if self.linear_decay:
            for optimizer in optimizers.values():
                optimizer.lr = self.lr * (1 - batches.progress)
        for _ in range(self.n_dis):
            real = next(batches).images  # (B, C, H, W) in [-1, 1]
            with torch.no_grad():
                fake = self.G(self.latent(len(real)))
            loss_D = hinge_loss(*self.D(torch.cat([real, fake])).chunk(2))
            optimizers["D"].minimize(loss_D)
        loss_G = -self.D(self.G(self.latent(self.batch_size))).mean()  # equation 17
        optimizers["G"].minimize(loss_G)
        return {"loss_D": loss_D.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(self.latent(n))
        return images

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z ~ N(0, I)."""
        return torch.randn(n, self.z_dim, device=next(self.parameters()).device)


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logits of D at x and at G(z), (B,) each -> what D descends: E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))). Equation 16, negated."""
    return relu(1 - real).mean() + relu(1 + fake).mean()


def spectral_norm(layer: nn.Module) -> nn.Module:
    """Layer -> the layer, its weight W replaced by W / sigma(W) wherever it is used."""
    register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return layer


class SpectralNorm(nn.Module):
    """Weight (out, ...) -> weight / sigma, the largest singular value of W = weight as an (out, rest) matrix. Algorithm 1, equation 8.

    `u` (out,) follows the first left singular vector: one power iteration each time the weight is read in training.
    """

    u: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("u", normalize(torch.randn_like(weight.detach().flatten(1)[:, 0]), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """Weight -> weight / sigma."""
        with full_precision():
            W = weight.flatten(1)
            with torch.no_grad():  # step 1; the gradient takes u and v as constants
                v = normalize(W.T @ self.u, dim=0)
                u = normalize(W @ v, dim=0)
                if self.training:
                    self.u.copy_(u)
            sigma = u @ (W @ v)  # step 2
            return weight / sigma
