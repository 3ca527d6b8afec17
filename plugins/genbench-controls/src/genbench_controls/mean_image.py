"""The mean of the training images, over and over: no diversity, and yet the nearest image to most."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers


class MeanImage(nn.Module):
    """x = mean. The one training step draws up to `max_images`, in whole batches of one epoch."""

    mean: Tensor

    def __init__(self, image: ImageSpec, max_images: int = 50_000, batch_size: int = 50) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.finished = False
        self.num_batches = max(1, min(max_images, image.num_train or max_images) // batch_size)
        self.register_buffer("mean", torch.zeros(image.shape))

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """None: an average is all."""
        return {}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Average an epoch's images."""
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        images = 0
        for _ in range(self.num_batches):
            batch = next(batches).images
            total += batch.sum(0, dtype=torch.float64)
            images += len(batch)
        self.mean.copy_(total / images)
        self.finished = True
        return {}

    def sample(self, n: int) -> Tensor:
        """n -> n times the mean (n, C, H, W) in [-1, 1]."""
        return self.mean.expand(n, *self.mean.shape).clone()
