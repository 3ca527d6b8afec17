"""DCGAN. Radford, Metz & Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", ICLR 2016, arXiv:1511.06434.

The architecture guidelines of section 3: strided convolutions in place of pooling, BatchNorm in both networks except at G's output
and D's input, no hidden fully connected layers, ReLU and tanh in G, LeakyReLU in D. Figure 1's shape for every size: G starts from
4x4 maps and doubles them log2(size) - 2 times (from 2x2 at 8 pixels, since a single layer makes no discriminator).
Training as in section 4. Kernels of 4 pixels and 64 maps are those of the authors' Torch release (github.com/soumith/dcgan.torch);
figure 1 draws kernels of 5 and, as ``width=128``, twice the maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import ceil, log2

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers


class DCGAN(nn.Module):
    """G and D mirror each other; `width` is the number of maps at half the image's size and doubles at each halving."""

    def __init__(
        self, image: ImageSpec, z_dim: int = 100, width: int = 64, batch_size: int = 128, lr: float = 2e-4, beta1: float = 0.5
    ) -> None:
        super().__init__()
        self.z_dim, self.batch_size, self.lr, self.betas = z_dim, batch_size, lr, (beta1, 0.999)
        self.G = Generator(image, z_dim, width)
        self.D = Discriminator(image, width)
        self.apply(initialise)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {"D": Adam(self.D.parameters(), self.lr, self.betas), "G": Adam(self.G.parameters(), self.lr, self.betas)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """A step of D, then a step of G through the updated D."""
        real = next(batches).images  # (B, C, H, W) in [-1, 1]
        fake = self.G(self.latent(len(real)))
        # D: ascend log D(x) + log(1 - D(G(z))); each batch has its own BatchNorm statistics
        loss_D = softplus(-self.D(real)).mean() + softplus(self.D(fake.detach())).mean()
        optimizers["D"].minimize(loss_D)
        # G: ascend log D(G(z)), the non-saturating form
        loss_G = softplus(-self.D(fake)).mean()
        optimizers["G"].minimize(loss_G)
        return {"loss_D": loss_D.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(self.latent(n))
        return images

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z, uniform in [-1, 1]."""
        return torch.rand(n, self.z_dim, device=next(self.parameters()).device) * 2 - 1


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
        self.output = nn.Sequential(nn.ConvTranspose2d(maps[-1], image.channels, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """z -> images."""
        images: Tensor = self.output(self.hidden(self.project(z)))
        return images[:, :, : self.size, : self.size]


class Discriminator(nn.Module):
    """(B, C, H, W) images -> (B,) float32 logits: D(x) = sigmoid(logit)."""

    def __init__(self, image: ImageSpec, width: int) -> None:
        super().__init__()
        depth = halvings(image.size)
        maps = [width * 2**i for i in range(depth)]
        self.net = nn.Sequential(nn.Conv2d(image.channels, maps[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True))
        for i, o in pairwise(maps):
            self.net.extend([nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2, inplace=True)])
        self.net.extend([nn.Flatten(), nn.Linear(maps[-1] * (image.size >> depth) ** 2, 1, bias=False)])

    def forward(self, images: Tensor) -> Tensor:
        """Images -> logits."""
        logits: Tensor = self.net(images)
        return logits.float().flatten()


def halvings(size: int) -> int:
    """Image size -> stride-2 layers of each network: down to maps of 4x4, but two at least (8x8 ends at 2x2)."""
    return max(2, ceil(log2(size)) - 2)


def initialise(module: nn.Module) -> None:
    """Section 4: all weights from a zero-centred normal of standard deviation 0.02 (BatchNorm's scale around 1)."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
