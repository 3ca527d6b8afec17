"""GAN. Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville & Bengio, "Generative Adversarial Nets",
NeurIPS 2014, arXiv:1406.2661.

Algorithm 1, its value function (equation 1) and the networks of the authors' MNIST release (github.com/goodfeli/adversarial,
mnist.yaml): two rectified layers and a sigmoid in G, two maxout layers under dropout in D, momentum SGD. `loss` chooses what G
descends: ``minimax`` is log(1 - D(G(z))), the game as published; ``non-saturating`` is -log D(G(z)), which section 3 offers for
"much stronger gradients early in learning".
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers


class GAN(nn.Module):
    """Multilayer perceptrons G (two layers of `width` units) and D (two of `maxout` units, each the largest of 5)."""

    def __init__(
        self,
        image: ImageSpec,
        loss: Literal["minimax", "non-saturating"] = "minimax",
        k: int = 1,
        z_dim: int = 100,
        width: int = 1200,
        maxout: int = 240,
        dropout: float = 0.5,
        batch_size: int = 100,
        lr: float = 2e-4,
        beta1: float = 0.5,
    ) -> None:
        super().__init__()
        self.loss, self.k, self.z_dim, self.batch_size = loss, k, z_dim, batch_size
        self.lr, self.betas = lr, (beta1, 0.999)
        pixels = prod(image.shape)
        self.G = nn.Sequential(
            nn.Linear(z_dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, pixels), nn.Sigmoid(),
            nn.Unflatten(1, image.shape),
        )  # fmt: skip
        self.D = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.4 * dropout), Maxout(pixels, maxout), nn.Dropout(dropout), Maxout(maxout, maxout),
            nn.Dropout(dropout), nn.Linear(maxout, 1), nn.Flatten(0),
        )  # fmt: skip
        for net, irange in ((self.G, 0.05), (self.D, 0.005)):
            for layer in net.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.uniform_(layer.weight, -irange, irange)
                    nn.init.zeros_(layer.bias)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {name: Adam(net.parameters(), self.lr, self.betas) for name, net in (("D", self.D), ("G", self.G))}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Algorithm 1: k steps of D, then one of G."""
        for _ in range(self.k):
            real = (next(batches).images + 1) / 2  # (B, C, H, W) in [0, 1], where the paper's sigmoids live
            with torch.no_grad():
                fake = self.G(self.latent(len(real)))
            value = minimax_value(self.D(real), self.D(fake))
            optimizers["D"].minimize(-value)  # D: ascend V(D, G)
        loss_G = generator_loss(self.D(self.G(self.latent(self.batch_size))), self.loss)
        optimizers["G"].minimize(loss_G)
        return {"value": value.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(self.latent(n))
        return images * 2 - 1

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z, uniform in [-1, 1]."""
        return torch.rand(n, self.z_dim, device=next(self.parameters()).device) * 2 - 1


def minimax_value(real: Tensor, fake: Tensor) -> Tensor:
    """Logits of D at x and at G(z), (B,) each -> V(D, G) = E log D(x) + E log(1 - D(G(z))). Equation 1."""
    # log sigmoid(a) = -softplus(-a), log(1 - sigmoid(a)) = -softplus(a): finite where D is certain
    return -softplus(-real.float()).mean() - softplus(fake.float()).mean()


def generator_loss(fake: Tensor, loss: str) -> Tensor:
    """Logits of D at G(z), (B,) -> what G descends: E log(1 - D(G(z))) (minimax) or -E log D(G(z)) (non-saturating)."""
    return -softplus(fake.float()).mean() if loss == "minimax" else softplus(-fake.float()).mean()


class Maxout(nn.Module):
    """(B, inputs) -> (B, units): each unit the largest of `pieces` affine maps. Goodfellow et al. 2013, arXiv:1302.4389."""

    def __init__(self, inputs: int, units: int, pieces: int = 5) -> None:
        super().__init__()
        self.affine = nn.Linear(inputs, units * pieces)
        self.pieces = pieces

    def forward(self, features: Tensor) -> Tensor:
        """Features -> the largest piece of each unit."""
        return torch.amax(self.affine(features).unflatten(1, (-1, self.pieces)), dim=2)
