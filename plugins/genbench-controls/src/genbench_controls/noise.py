"""Uniform noise: the far end of every table."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers


class Noise(nn.Module):
    """Every pixel-channel independent and uniform on [-1, 1]; learns nothing."""

    low: Tensor

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.finished = False
        self.register_buffer("low", torch.full(image.shape, -1.0))

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """None: there is nothing to learn."""
        return {}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Draw a batch, so that an images budget is charged, and ignore it."""
        next(batches)
        self.finished = True
        return {}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]."""
        return self.low + 2 * torch.rand(n, *self.low.shape, device=self.low.device)
