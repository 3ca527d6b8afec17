"""Conditional GAN. Mirza & Osindero, "Conditional Generative Adversarial Nets", 2014, arXiv:1411.1784.

Equation 2, the game of two players who are both told the class y, and the networks of section 4.1 for MNIST: y enters as a one-hot
vector, through a hidden layer of its own, into G's rectifiers and into D's maxout layers; dropout in both. `loss` chooses what G
descends, as in gan.py: ``minimax`` is log(1 - D(G(z|y))), equation 2; ``non-saturating`` is -log D(G(z|y)).

Departure: Adam, as in gan.py. With the paper's momentum SGD (rate 0.1, momentum 0.5) D wins within some hundred steps, after which
either game teaches G nothing or diverges. Initial weights are uniform as in the first GAN's release, which this work extends.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers
from genbench_gans.gan import Maxout, generator_loss, minimax_value


class CGAN(nn.Module):
    """Multilayer perceptrons G and D; `hidden_*` are G's first layers, `maxout` and `maxout_y` D's, for z or x and for y."""

    def __init__(
        self,
        image: ImageSpec,
        loss: Literal["minimax", "non-saturating"] = "minimax",
        z_dim: int = 100,
        hidden_z: int = 200,
        hidden_y: int = 1000,
        width: int = 1200,
        maxout: int = 240,
        maxout_y: int = 50,
        dropout: float = 0.5,
        batch_size: int = 100,
        lr: float = 2e-4,
        beta1: float = 0.5,
    ) -> None:
        super().__init__()
        self.loss, self.z_dim, self.batch_size, self.lr, self.betas = loss, z_dim, batch_size, lr, (beta1, 0.999)
        self.G = Generator(image, z_dim, hidden_z, hidden_y, width, dropout)
        self.D = Discriminator(image, maxout, maxout_y, dropout)
        for net, irange in ((self.G, 0.05), (self.D, 0.005)):
            for layer in net.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.uniform_(layer.weight, -irange, irange)
                    nn.init.zeros_(layer.bias)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {name: Adam(net.parameters(), self.lr, self.betas) for name, net in (("D", self.D), ("G", self.G))}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """A step of D, then a step of G through the updated D, for the classes of one batch."""
        batch = next(batches)
        x, y = (batch.images + 1) / 2, batch.labels  # (B, C, H, W) in [0, 1], where the paper's sigmoids live; (B,)
        fake = self.G(self.latent(len(x)), y)
        value = minimax_value(self.D(x, y), self.D(fake.detach(), y))
        optimizers["D"].minimize(-value)  # D: ascend V(D, G), equation 2
        loss_G = generator_loss(self.D(fake, y), self.loss)
        optimizers["G"].minimize(loss_G)
        return {"value": value.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int, labels: Tensor) -> Tensor:
        """n, labels (n,) -> (n, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(self.latent(n), labels)
        return images * 2 - 1

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z, uniform in the unit hypercube."""
        return torch.rand(n, self.z_dim, device=next(self.parameters()).device)


class Generator(nn.Module):
    """(B, z_dim) z, (B,) classes -> (B, C, H, W) images in [0, 1]."""

    def __init__(self, image: ImageSpec, z_dim: int, hidden_z: int, hidden_y: int, width: int, dropout: float) -> None:
        super().__init__()
        self.classes = image.num_classes
        self.z = nn.Sequential(nn.Linear(z_dim, hidden_z), nn.ReLU(), nn.Dropout(dropout))
        self.y = nn.Sequential(nn.Linear(self.classes, hidden_y), nn.ReLU(), nn.Dropout(dropout))
        self.joint = nn.Sequential(
            nn.Linear(hidden_z + hidden_y, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, prod(image.shape)), nn.Sigmoid(), nn.Unflatten(1, image.shape),
        )  # fmt: skip

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """z, classes -> images."""
        images: Tensor = self.joint(torch.cat([self.z(z), self.y(one_hot(y, self.classes).to(z.dtype))], dim=1))
        return images


class Discriminator(nn.Module):
    """(B, C, H, W) images in [0, 1], (B,) classes -> (B,) logits: D(x|y) = sigmoid(logit)."""

    def __init__(self, image: ImageSpec, maxout: int, maxout_y: int, dropout: float) -> None:
        super().__init__()
        self.classes = image.num_classes
        self.x = nn.Sequential(nn.Flatten(), Maxout(prod(image.shape), maxout, pieces=5), nn.Dropout(dropout))
        self.y = nn.Sequential(Maxout(self.classes, maxout_y, pieces=5), nn.Dropout(dropout))
        self.joint = nn.Sequential(Maxout(maxout + maxout_y, maxout, pieces=4), nn.Dropout(dropout), nn.Linear(maxout, 1), nn.Flatten(0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images, classes -> logits."""
        logits: Tensor = self.joint(torch.cat([self.x(x), self.y(one_hot(y, self.classes).to(x.dtype))], dim=1))
        return logits
