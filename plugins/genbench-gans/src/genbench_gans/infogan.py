"""InfoGAN. Chen, Duan, Houthooft, Schulman, Sutskever & Abbeel, "InfoGAN: Interpretable Representation Learning by Information Maximizing
Generative Adversarial Nets", NeurIPS 2016, arXiv:1606.03657.

G makes x from noise z and a code c; Q guesses c from x. Equations 5 and 6:

    L_I(G, Q) = E_{c ~ P(c), x ~ G(z, c)} log Q(c|x) + H(c) <= I(c; G(z, c)),    min_{G, Q} max_D V(D, G) - lambda L_I(G, Q)

Codes, networks and learning rates of appendix C.1 for MNIST: one categorical of 10, two uniform in [-1, 1] with a Gaussian Q, 62 noise
variables; Q shares D's trunk. 8 to 32 pixels have its two convolutions, larger images one more for every factor of two.
H(c) is kept, so that L_I is in nats and a bound: log 10 for the categorical, log 2 for each uniform.

As in the authors' release (github.com/openai/InfoGAN): the non-saturating loss for G, beta1 of 0.5, uniform z, BatchNorm before the
non-linearity, weights from N(0, 0.02^2), and a trunk that learns from L_I in D's step (Q's own layers learn in G's, equation 6's other
player). There `fix_std` is on for MNIST; the paper's Q has a standard deviation. Departure: images in [-1, 1] through tanh, not [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import ceil, log, log2, pi

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, softplus
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers


class InfoGAN(nn.Module):
    """G, and D and Q on one trunk; `width` maps at half the image's size, `hidden` units, `info_weight` lambda."""

    def __init__(
        self,
        image: ImageSpec,
        categories: int = 10,
        continuous: int = 2,
        z_dim: int = 62,
        info_weight: float = 1.0,
        fix_std: bool = False,
        width: int = 64,
        hidden: int = 1024,
        batch_size: int = 128,
        lr_D: float = 2e-4,
        lr_G: float = 1e-3,
        beta1: float = 0.5,
    ) -> None:
        super().__init__()
        self.categories, self.continuous, self.z_dim = categories, continuous, z_dim
        self.info_weight, self.fix_std, self.batch_size = info_weight, fix_std, batch_size
        self.lr_D, self.lr_G, self.betas = lr_D, lr_G, (beta1, 0.999)
        self.G = Generator(image, categories + continuous + z_dim, width, hidden)
        self.trunk = trunk(image, width, hidden)
        self.D = nn.Sequential(nn.Linear(hidden, 1), nn.Flatten(0))
        self.Q = nn.Sequential(
            nn.Linear(hidden, 128, bias=False), nn.BatchNorm1d(128), nn.LeakyReLU(0.1), nn.Linear(128, categories + 2 * continuous)
        )
        self.apply(initialise)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Equation 6's two players: D with the trunk, and G with Q."""
        return {
            "D": Adam([*self.trunk.parameters(), *self.D.parameters()], self.lr_D, self.betas),
            "G": Adam([*self.G.parameters(), *self.Q.parameters()], self.lr_G, self.betas),
        }

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """A step of D, then a step of G and Q through the updated D."""
        real = next(batches).images  # (B, C, H, W) in [-1, 1]
        latent = self.latent(len(real))
        fake = self.G(latent)
        # D and the trunk: ascend log D(x) + log(1 - D(G(z, c))), the trunk lambda L_I as well
        features = self.trunk(fake.detach())
        loss_D = softplus(-self.D(self.trunk(real)).float()).mean() + softplus(self.D(features).float()).mean()
        optimizers["D"].minimize(loss_D - self.info_weight * self.information(features, latent))
        # G and Q: ascend log D(G(z, c)) + lambda L_I
        features = self.trunk(fake)
        loss_G = softplus(-self.D(features).float()).mean()
        L_I = self.information(features, latent)
        optimizers["G"].minimize(loss_G - self.info_weight * L_I)
        return {"loss_D": loss_D.detach(), "loss_G": loss_G.detach(), "L_I": L_I.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1], every code drawn from P(c)."""
        images: Tensor = self.G(self.latent(n))
        return images

    def latent(self, n: int) -> Tensor:
        """n -> (n, categories + continuous + z_dim): one-hot code, continuous codes and noise, both uniform in [-1, 1]."""
        device = next(self.parameters()).device
        category = torch.randint(self.categories, (n,), device=device)
        uniform = torch.rand(n, self.continuous + self.z_dim, device=device) * 2 - 1
        return torch.cat([one_hot(category, self.categories), uniform], 1)

    def information(self, features: Tensor, latent: Tensor) -> Tensor:
        """The trunk's features of G(latent) -> L_I in nats. Equation 5."""
        logits, mean, logvar = self.Q(features).float().split([self.categories, self.continuous, self.continuous], 1)
        category, c, _ = latent.split([self.categories, self.continuous, self.z_dim], 1)
        if self.fix_std:
            logvar = torch.zeros_like(logvar)
        return categorical_information(logits, category) + gaussian_information(mean, logvar, c)


def categorical_information(logits: Tensor, c: Tensor) -> Tensor:
    """(B, K) logits of Q, (B, K) one-hot c, uniform on K -> E log Q(c|x) + log K, in nats."""
    return log(logits.shape[1]) - cross_entropy(logits, c)


def gaussian_information(mean: Tensor, logvar: Tensor, c: Tensor) -> Tensor:
    """(B, d) mean and log variance of Q, (B, d) c, uniform in [-1, 1] -> E log Q(c|x) + d log 2, in nats."""
    log_q = -0.5 * ((c - mean).square() / logvar.exp() + logvar + log(2 * pi))
    return log_q.sum(1).mean() + c.shape[1] * log(2)


class Generator(nn.Module):
    """(B, inputs) codes and noise -> (B, C, H, W) images in [-1, 1]. Sizes that do not halve evenly are cropped."""

    def __init__(self, image: ImageSpec, inputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.size = image.size
        maps = [width * 2**i for i in reversed(range(halvings(image.size)))]
        side = ceil(image.size / 2 ** len(maps))
        units = maps[0] * side**2
        self.net = nn.Sequential(nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU())
        self.net.extend([nn.Linear(hidden, units, bias=False), nn.BatchNorm1d(units), nn.ReLU(), nn.Unflatten(1, (maps[0], side, side))])
        for i, o in pairwise(maps):
            self.net.extend([nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()])
        self.net.extend([nn.ConvTranspose2d(maps[-1], image.channels, 4, 2, 1), nn.Tanh()])

    def forward(self, latent: Tensor) -> Tensor:
        """Codes and noise -> images."""
        images: Tensor = self.net(latent)
        return images[:, :, : self.size, : self.size]


def trunk(image: ImageSpec, width: int, hidden: int) -> nn.Sequential:
    """(B, C, H, W) images -> (B, hidden) features that D and Q share."""
    maps = [width * 2**i for i in range(halvings(image.size))]
    net = nn.Sequential(nn.Conv2d(image.channels, maps[0], 4, 2, 1), nn.LeakyReLU(0.1))
    for i, o in pairwise(maps):
        net.extend([nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.1)])
    units = maps[-1] * (image.size >> len(maps)) ** 2
    return net.extend([nn.Flatten(), nn.Linear(units, hidden, bias=False), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.1)])


def halvings(size: int) -> int:
    """Image size -> stride-2 layers of each network: two as at 28 pixels, more where that leaves maps above 8x8."""
    return max(2, ceil(log2(size)) - 3)


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02^2), BatchNorm's scales from N(1, 0.02^2), biases zero."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) else 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
