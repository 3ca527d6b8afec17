"""AC-GAN. Odena, Olah & Shlens, "Conditional Image Synthesis with Auxiliary Classifier GANs", ICML 2017, arXiv:1610.09585.

G is told a class, D must name it: beside the source of an image (equation 2), D's last layer gives the class (equation 3). D ascends
L_S + L_C, G ascends L_C - L_S. `loss` chooses G's part of L_S: ``minimax`` is the paper's, log P(S = fake); ``non-saturating`` is
-log P(S = real).

Networks and training of the appendix for CIFAR-10 (kernels of 5, 384-192-96 maps in G; kernels of 3, dropout and 16 to 512 maps in
D). Other sizes double G's first maps of 4x4 log2(size) - 2 times, and keep D's six layers, as the appendix does at 128 pixels. Of its
grids, the learning rate is the middle one (2e-4) and the activation noise in D is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import ceil, log2
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers
from genbench_gans.gan import generator_loss, minimax_value


class ACGAN(nn.Module):
    """`width_G` maps in G at half the image's size, doubled at each halving; `width_D` maps in D's first layer, doubled in each."""

    def __init__(
        self,
        image: ImageSpec,
        loss: Literal["minimax", "non-saturating"] = "minimax",
        z_dim: int = 100,
        width_G: int = 96,
        width_D: int = 16,
        dropout: float = 0.5,
        batch_size: int = 100,
        lr: float = 2e-4,
        beta1: float = 0.5,
    ) -> None:
        super().__init__()
        self.loss, self.z_dim, self.batch_size, self.lr, self.betas = loss, z_dim, batch_size, lr, (beta1, 0.999)
        self.G = Generator(image, z_dim, width_G)
        self.D = Discriminator(image, width_D, dropout)
        self.apply(initialise)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {name: Adam(net.parameters(), self.lr, self.betas) for name, net in (("D", self.D), ("G", self.G))}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """A step of D, then a step of G through the updated D, for the classes of one batch."""
        batch = next(batches)
        real, c = batch.images, batch.labels  # (B, C, H, W) in [-1, 1], (B,)
        fake = self.G(self.latent(len(real)), c)
        (source_real, class_real), (source_fake, class_fake) = self.D(real), self.D(fake.detach())
        L_S = minimax_value(source_real, source_fake)  # equation 2
        L_C = class_likelihood(class_real, c) + class_likelihood(class_fake, c)  # equation 3
        optimizers["D"].minimize(-(L_S + L_C))

        source_fake, class_fake = self.D(fake)  # of L_C - L_S, the terms in which G has a part
        loss_G = generator_loss(source_fake, self.loss) - class_likelihood(class_fake, c)
        optimizers["G"].minimize(loss_G)
        return {"L_S": L_S.detach(), "L_C": L_C.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int, labels: Tensor) -> Tensor:
        """n, labels (n,) -> (n, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(self.latent(n), labels)
        return images

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z ~ N(0, I)."""
        return torch.randn(n, self.z_dim, device=next(self.parameters()).device)


def class_likelihood(logits: Tensor, c: Tensor) -> Tensor:
    """(B, K) logits, (B,) classes -> E log P(C = c | X), a half of equation 3."""
    return -cross_entropy(logits, c)


class Generator(nn.Module):
    """(B, z_dim) z, (B,) classes -> (B, C, H, W) images in [-1, 1]. A size that is no power of two is cropped from the next one."""

    def __init__(self, image: ImageSpec, z_dim: int, width: int) -> None:
        super().__init__()
        self.size, self.classes = image.size, image.num_classes
        maps = [width * 2**i for i in reversed(range(max(1, ceil(log2(image.size)) - 2)))]
        self.net = nn.Sequential(nn.Linear(z_dim + self.classes, maps[0] * 16), nn.Unflatten(1, (maps[0], 4, 4)), nn.ReLU(inplace=True))
        for i, o in pairwise(maps):
            self.net.extend([nn.ConvTranspose2d(i, o, 5, 2, 2, 1), nn.BatchNorm2d(o), nn.ReLU(inplace=True)])
        self.net.extend([nn.ConvTranspose2d(maps[-1], image.channels, 5, 2, 2, 1), nn.Tanh()])

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """z, classes -> images."""
        images: Tensor = self.net(torch.cat([z, one_hot(c, self.classes).to(z.dtype)], dim=1))
        return images[:, :, : self.size, : self.size]


class Discriminator(nn.Module):
    """(B, C, H, W) images -> (B,) float32 logits of being real, (B, K) float32 logits of the class."""

    def __init__(self, image: ImageSpec, width: int, dropout: float) -> None:
        super().__init__()
        maps = [image.channels] + [width * 2**i for i in range(6)]
        self.net = nn.Sequential()
        for layer, (i, o) in enumerate(pairwise(maps)):
            self.net.append(nn.Conv2d(i, o, 3, stride=1 if layer % 2 else 2, padding=1))
            self.net.append(nn.BatchNorm2d(o) if layer else nn.Identity())
            self.net.extend([nn.LeakyReLU(0.2, inplace=True), nn.Dropout(dropout)])
        self.net.extend([nn.Flatten(), nn.Linear(maps[-1] * ceil(image.size / 8) ** 2, 1 + image.num_classes)])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> source, class."""
        logits: Tensor = self.net(images).float()
        return logits[:, 0], logits[:, 1:]


def initialise(module: nn.Module) -> None:
    """The appendix's: weights from a zero-centred normal of standard deviation 0.02, biases zero."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
