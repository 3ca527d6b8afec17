"""Independent pixels, each from the histogram of its levels in the training images: all that marginals can tell."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers


class PerPixelHistogram(nn.Module):
    """Draws every pixel-channel's level from its own 256 training counts, independent of all others.

    The one training step draws up to `max_images`, in whole batches of one epoch.
    """

    cumulative: Tensor

    def __init__(self, image: ImageSpec, max_images: int = 50_000, batch_size: int = 50) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.finished = False
        self.shape = image.shape
        self.num_batches = max(1, min(max_images, image.num_train or max_images) // batch_size)
        # (P, 256) images whose level is at most v; before training, one of each level
        self.register_buffer("cumulative", torch.arange(1, 257).repeat(prod(image.shape), 1))

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """None: counting is all."""
        return {}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Count the levels of an epoch's images."""
        counts = torch.zeros_like(self.cumulative)
        one = torch.ones((), dtype=counts.dtype, device=counts.device)
        for _ in range(self.num_batches):
            levels = ((next(batches).images.float() + 1) * 127.5).round().long().flatten(1).T
            counts.scatter_add_(1, levels, one.expand_as(levels))
        self.cumulative.copy_(counts.cumsum(1))
        self.finished = True
        return {}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]; the level of the k-th of the sorted training levels of a pixel, k uniform."""
        k = torch.randint(int(self.cumulative[0, -1]), (len(self.cumulative), n), device=self.cumulative.device)
        levels = torch.searchsorted(self.cumulative, k, right=True)
        return levels.T.reshape(n, *self.shape).float() / 127.5 - 1
