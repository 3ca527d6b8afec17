"""A Gaussian with the mean and the principal components of the training images: all that second-order statistics can tell.

Up to 1024 pixel-channels the covariance is exact. Above, it is truncated to the leading components, found by subspace iteration:
N. Halko, P.-G. Martinsson and J. A. Tropp, "Finding structure with randomness", SIAM Review 2011, arXiv:0909.4061, algorithm 4.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers, full_precision

EXACT = 1024
"""Pixel-channels up to which the whole covariance is used."""


class PCAGaussian(nn.Module):
    """x = mean + factor e, e ~ N(0, I), clipped to [-1, 1]; covariance = factor factor^T.

    The one training step draws all its images: `max_images`, or as many as the training split has. `components` counts only above
    1024 pixel-channels.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, image: ImageSpec, components: int = 512, max_images: int = 20_000, batch_size: int = 100) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.finished = False
        self.shape = image.shape
        self.num_images = min(max_images, image.num_train or max_images)
        pixels = prod(image.shape)
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("factor", torch.zeros(pixels, pixels if pixels <= EXACT else min(components, pixels)))

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """None: the fit is in closed form."""
        return {}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Draw the images, fit the Gaussian, be done."""
        drawn: list[Tensor] = []
        while sum(map(len, drawn)) < self.num_images:
            drawn.append(next(batches).images.flatten(1).float())
        with full_precision():
            images = torch.cat(drawn)[: self.num_images]
            self.mean.copy_(images.mean(0))
            images -= self.mean
            exact = images.shape[1] <= EXACT
            self.factor.copy_(principal_components(images) if exact else leading_components(images, self.factor.shape[1]))
        self.finished = True
        return {"variance": self.factor.square().sum()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]."""
        with full_precision():
            noise = torch.randn(n, self.factor.shape[1], device=self.factor.device)
            images: Tensor = self.mean + noise @ self.factor.T
        return images.clamp(-1, 1).view(n, *self.shape)


def principal_components(centred: Tensor) -> Tensor:
    """(N, d) of mean zero -> F (d, d) float32 with F F^T their covariance (N - 1), components in ascending order."""
    centred = centred.double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(centred) - 1))
    factor: Tensor = vectors * values.clamp(min=0).sqrt()
    return factor.float()


def leading_components(centred: Tensor, k: int, iterations: int = 4) -> Tensor:
    """(N, d) of mean zero, k -> F (d, k) float32 with F F^T their covariance (N - 1) truncated to its k leading components."""
    basis = torch.randn(centred.shape[1], min(k + 10, centred.shape[1]), device=centred.device)
    for _ in range(iterations):
        basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q
    _, lengths, axes = torch.linalg.svd(centred @ basis, full_matrices=False)
    factor = basis @ (axes.T * lengths / (len(centred) - 1) ** 0.5)
    return nn.functional.pad(factor[:, :k], (0, max(0, k - factor.shape[1])))  # fewer than k where there are fewer images
