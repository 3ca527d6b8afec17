"""Regularised autoencoder.

Partha Ghosh, Mehdi S. M. Sajjadi, Antonio Vergari, Michael Black and Bernhard Schölkopf, "From Variational to Deterministic
Autoencoders", ICLR 2020, arXiv:1903.12436. Section 3, eq. 11, for a deterministic encoder E and decoder D:

    minimise  ||x - D(E(x))||^2 + beta 1/2 ||z||^2 + lambda L_REG,   z = E(x)

L_REG smooths the decoder in place of a VAE's noise. ``l2``: the decoder's squared weights; ``gp``: a gradient penalty; ``sn``: nothing, the
layers of both networks are spectrally normalised. `lam` = 0 without ``sn`` is the plain RAE. Section 4: samples are decoded
from a mixture of Gaussians fitted to z afterwards (`genbench_vaes.prior`), here in the last `prior_share` of the budget.

Networks, weights and what the paper leaves open follow the authors' MNIST release (github.com/ParthaEth/Regularized_autoencoders-RAE-),
pixels in [0, 1]. It averages over pixels and latents where eq. 11 sums: its beta 1e-4 and lambda 1e-7 at 1024 pixels and 16
latents are 0.0128 and 1.0e-4 here. Its gradient penalty is ||grad_z ||D(z)||^2||^2, one backward pass, where the paper writes
||grad D(z)||^2 of many outputs. Departure: no learning rate plateaus.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genbench import Batches, ImageSpec, Optimizers, full_precision
from genbench_vaes.prior import LatentGMM

RELEASED = {"l2": (0.0128, 1.0e-4), "gp": (0.0128, 3.2e-6), "sn": (1.152, 0.0)}
"""beta and lambda of the authors' release for each regulariser, in the units of eq. 11."""


class RAE(nn.Module):
    """`width` maps after the encoder's first convolution, doubling with each; `beta` and `lam` None: the release's values."""

    def __init__(
        self, image: ImageSpec, regulariser: Literal["l2", "gp", "sn"] = "l2", beta: float | None = None, lam: float | None = None,
        z_dim: int = 16, width: int = 128, components: int = 10, prior_share: float = 0.1, lr: float = 5e-4, batch_size: int = 100,
    ) -> None:  # fmt: skip
        super().__init__()
        self.regulariser, self.prior_share, self.lr, self.batch_size = regulariser, prior_share, lr, batch_size
        self.beta = RELEASED[regulariser][0] if beta is None else beta
        self.lam = RELEASED[regulariser][1] if lam is None else lam
        self.encoder = encoder(image, width, z_dim)
        self.decoder = nn.Sequential(decoder(image, width, z_dim), Crop(image.size), nn.Sigmoid())
        if regulariser == "sn":
            for layer in list(self.modules()):
                if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    spectral_norm(layer)
        self.mixture = LatentGMM(z_dim, components)
        self.prior = f"GMM({components})"

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over both networks."""
        return {"RAE": torch.optim.Adam(self.parameters(), lr=self.lr)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """A step on eq. 11; in the last part of the budget, a step of the mixture's fit."""
        images = next(batches).images
        if batches.progress >= 1 - self.prior_share:
            return {"log_prior": self.fit_prior(images)}
        z = self.encoder(images).float()
        if self.regulariser == "gp":
            with full_precision():
                output = self.decoder(z)
                L_REG = gradient_penalty(output, z)
        else:
            output = self.decoder(z).float()
            L_REG = sum_of_squares(self.decoder) if self.regulariser == "l2" else torch.zeros_like(z[0, 0])
        L_REC = (output - (images + 1) / 2).square().flatten(1).sum(1).mean()
        L_Z = 0.5 * z.square().sum(1).mean()
        loss = L_REC + self.beta * L_Z + self.lam * L_REG
        optimizers["RAE"].minimize(loss)
        return {"loss": loss.detach(), "L_REC": L_REC.detach(), "L_Z": L_Z.detach(), "L_REG": L_REG.detach()}

    @torch.no_grad()
    def fit_prior(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> mean log q(z) () of the latents so far; the encoder stands still, batch statistics too."""
        self.encoder.eval()
        z = self.encoder(images)
        self.encoder.train(self.training)
        return self.mixture.fit(z)

    def sample(self, n: int) -> Tensor:
        """n -> D(z) (n, C, H, W) in [-1, 1], z from the mixture."""
        return self.decode(self.mixture.sample(n))

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> z (B, z_dim)."""
        z: Tensor = self.encoder(images)
        return z.float()

    def decode(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C, H, W) in [-1, 1]."""
        return 2 * self.decoder(z).float() - 1

    def reconstruct(self, images: Tensor) -> Tensor:
        """D(E(x))."""
        return self.decode(self.encode(images))


def gradient_penalty(output: Tensor, z: Tensor) -> Tensor:
    """D(z) (B, C, H, W) and the z (B, z_dim) it was computed from -> mean ||grad_z ||D(z)||^2||^2, differentiable. The release's L_GP."""
    (gradient,) = torch.autograd.grad(output.square().sum(), z, create_graph=True)
    return gradient.square().sum(1).mean()


def sum_of_squares(net: nn.Module) -> Tensor:
    """Network -> ||theta||^2 over its weights, biases and normalisation left out. Eq. 12, Tikhonov."""
    return torch.stack([weight.square().sum() for weight in net.parameters() if weight.ndim > 1]).sum()


class Crop(nn.Module):
    """(B, C, H, W) -> the first `size` rows and columns: of a size that is no multiple of 4."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Map -> image."""
        return images[:, :, : self.size, : self.size]


def encoder(image: ImageSpec, width: int, z_dim: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, z_dim): four convolutions of stride 2, fewer below 16 pixels."""
    levels = min(4, image.size.bit_length() - 1)
    channels = [image.channels] + [width * 2**level for level in range(levels)]
    layers: list[nn.Module] = []
    for i, o in pairwise(channels):
        layers += [nn.Conv2d(i, o, 4, stride=2, padding=1), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * (image.size >> levels) ** 2, z_dim))


def decoder(image: ImageSpec, width: int, z_dim: int) -> nn.Sequential:
    """(B, z_dim) -> (B, C, H, W) logits: a quarter of the image's size, doubled twice."""
    side = -(-image.size // 4)
    layers: list[nn.Module] = [nn.Linear(z_dim, 8 * width * side**2), nn.Unflatten(1, (8 * width, side, side))]
    for i, o in pairwise((8 * width, 4 * width, 2 * width)):
        layers += [nn.ConvTranspose2d(i, o, 4, stride=2, padding=1), nn.BatchNorm2d(o), nn.ReLU()]
    # A transposed convolution of stride 1 is a convolution; "same" with a kernel of 4 pads one pixel more at the end.
    return nn.Sequential(*layers, nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(2 * width, image.channels, 4))
