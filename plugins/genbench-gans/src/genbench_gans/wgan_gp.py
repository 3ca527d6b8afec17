"""WGAN-GP. Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville, "Improved Training of Wasserstein GANs", NeurIPS 2017,
arXiv:1704.00028.

Algorithm 1 with its default values. The networks are DCGAN-shaped as in the authors' MNIST and CIFAR-10 releases (64 maps,
z of 128 normal dimensions; kernels of 4 pixels here, 5 there), and the critic has no normalisation: the penalty is on the
gradient at each input by itself, which BatchNorm would mix (section 4, "No critic batch normalization"). ``network=resnet`` is the
pair of section 5.4 (`genbench_gans.resnet`), which the authors' gan_cifar_resnet.py trains with ``width=128 lr=2e-4 linear_decay=true``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import ceil, log2
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers, full_precision
from genbench_gans import resnet


class WGANGP(nn.Module):
    """Generator G and critic D. In ``dcgan``, `width` is the number of maps at half the image's size and doubles at each halving; in
    ``resnet`` it is the number everywhere. D has `width_D` where that is given. `blocks` is described in `genbench_gans.resnet`.
    """

    def __init__(
        self,
        image: ImageSpec,
        z_dim: int = 128,
        network: Literal["dcgan", "resnet"] = "dcgan",
        width: int = 64,
        width_D: int | None = None,
        blocks: resnet.Blocks = "authors",
        batch_size: int = 64,
        n_critic: int = 5,
        gp_weight: float = 10.0,
        lr: float = 1e-4,
        beta1: float = 0.0,
        beta2: float = 0.9,
        linear_decay: bool = False,
    ) -> None:
        super().__init__()
        self.z_dim, self.batch_size, self.n_critic, self.gp_weight = z_dim, batch_size, n_critic, gp_weight
        self.lr, self.betas, self.linear_decay = lr, (beta1, beta2), linear_decay
        if network == "resnet":
            self.G: nn.Module = resnet.Generator(image, z_dim, width, blocks)
            self.D: nn.Module = resnet.Discriminator(image, width_D or width, blocks, pool="mean")
        else:
            self.G = Generator(image, z_dim, width)
            self.D = Critic(image, width_D or width)
            self.apply(initialise)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {"D": Adam(self.D.parameters(), self.lr, self.betas), "G": Adam(self.G.parameters(), self.lr, self.betas)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Algorithm 1, one turn of the outer loop."""
        if self.linear_decay:
            for optimizer in optimizers.values():
                optimizer.lr = self.lr * (1 - batches.progress)
        # lines 2-9: n_critic steps of D(x~) - D(x) + lambda (||grad D(x^)|| - 1)^2
        for _ in range(self.n_critic):
            real = next(batches).images  # (B, C, H, W) in [-1, 1]
            with torch.no_grad():
                fake = self.G(self.latent(len(real)))
            wasserstein = self.D(real).mean() - self.D(fake).mean()
            penalty = gradient_penalty(self.D, real, fake)
            optimizers["D"].minimize(self.gp_weight * penalty - wasserstein)
        # lines 10-12: one step of -D(G(z))
        loss_G = -self.D(self.G(self.latent(self.batch_size))).mean()
        optimizers["G"].minimize(loss_G)
        return {"wasserstein": wasserstein.detach(), "penalty": penalty.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(self.latent(n))
        return images

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z ~ N(0, I)."""
        return torch.randn(n, self.z_dim, device=next(self.parameters()).device)


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Critic, two batches (B, C, H, W) -> E (||grad D(x^)||_2 - 1)^2 at x^ = eps x + (1 - eps) x~. Equation 3; lines 5-7."""
    with full_precision():
        eps = torch.rand(len(real), 1, 1, 1, device=real.device)
        x_hat = (eps * real.float() + (1 - eps) * fake.float()).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
        return (gradient.flatten(1).norm(2, dim=1) - 1).square().mean()


class Generator(nn.Module):
    """(B, z_dim) z -> (B, C, H, W) images in [-1, 1]. A size that is no power of two is cropped from the next one."""

    def __init__(self, image: ImageSpec, z_dim: int, width: int) -> None:
        super().__init__()
        self.size = image.size
        depth = halvings(image.size)
        maps = [width * 2**i for i in reversed(range(depth))]
        side = 2 ** ceil(log2(image.size)) >> depth
        self.project = nn.Sequential(nn.Linear(z_dim, maps[0] * side**2, bias=False), nn.Unflatten(1, (maps[0], side, side)))
        self.hidden = nn.Sequential(nn.BatchNorm2d(maps[0]), nn.ReLU(inplace=True))
        for i, o in pairwise(maps):
            self.hidden.extend([nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)])
        self.output = nn.Sequential(nn.ConvTranspose2d(maps[-1], image.channels, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """z -> images."""
        images: Tensor = self.output(self.hidden(self.project(z)))
        return images[:, :, : self.size, : self.size]


class Critic(nn.Module):
    """(B, C, H, W) images -> (B,) float32 scores, unbounded."""

    def __init__(self, image: ImageSpec, width: int) -> None:
        super().__init__()
        depth = halvings(image.size)
        maps = [image.channels] + [width * 2**i for i in range(depth)]
        self.net = nn.Sequential()
        for i, o in pairwise(maps):
            self.net.extend([nn.Conv2d(i, o, 4, 2, 1), nn.LeakyReLU(0.2)])
        self.net.extend([nn.Flatten(), nn.Linear(maps[-1] * (image.size >> depth) ** 2, 1)])

    def forward(self, images: Tensor) -> Tensor:
        """Images -> scores."""
        scores: Tensor = self.net(images)
        return scores.float().flatten()


def halvings(size: int) -> int:
    """Image size -> stride-2 layers of each network: down to maps of 4x4, but two at least (8x8 ends at 2x2)."""
    return max(2, ceil(log2(size)) - 2)


def initialise(module: nn.Module) -> None:
    """He et al. 2015, as in the authors' release; biases zero."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, a=0.2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
