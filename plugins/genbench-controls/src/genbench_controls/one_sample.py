"""One training image, over and over: the most collapsed of generators, and a copyist."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers


class OneSample(nn.Module):
    """x = the first image of the first batch drawn, so the seed of the run chooses it."""

    image: Tensor

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.finished = False
        self.register_buffer("image", torch.zeros(image.shape))

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """None: there is nothing to learn."""
        return {}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Keep one image."""
        self.image.copy_(next(batches).images[0])
        self.finished = True
        return {}

    def sample(self, n: int) -> Tensor:
        """n -> n times the image (n, C, H, W) in [-1, 1]."""
        return self.image.expand(n, *self.image.shape).clone()
