"""Training images, dealt out as if they were new: every score of quality is excellent, and memorisation must be told from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers


class TrainCopy(nn.Module):
    """Deals training images like cards, in an order drawn at the start of each draw: none twice before all were dealt.

    The one training step draws and keeps up to `max_images`, in whole batches of one epoch, so that none comes twice. A draw
    starts where the module is put in ``eval()`` mode and may take several calls of `sample`. `num_available` is the largest number
    of images a draw can give without repetition.
    """

    images: Tensor

    def __init__(self, image: ImageSpec, max_images: int = 50_000, batch_size: int = 50) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.finished = False
        self.num_batches = max(1, min(max_images, image.num_train or max_images) // batch_size)
        self.register_buffer("images", torch.empty(0, *image.shape, dtype=torch.uint8))
        self._order: Tensor | None = None
        self._dealt = 0

    @property
    def num_available(self) -> int:
        """Images kept; 0 before training."""
        return len(self.images)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """None: there is nothing to learn."""
        return {}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Keep the images of an epoch, as the uint8 they came from."""
        drawn = [((next(batches).images.float() + 1) * 127.5).round().to(torch.uint8) for _ in range(self.num_batches)]
        self.images = torch.cat(drawn).contiguous()
        self.finished = True
        return {}

    def train(self, mode: bool = True) -> TrainCopy:
        """Change mode; the next `sample` starts a new draw."""
        self._order, self._dealt = None, 0
        super().train(mode)
        return self

    def sample(self, n: int) -> Tensor:
        """n -> the next n images (n, C, H, W) in [-1, 1] of this draw."""
        if self._order is None:
            self._order = torch.randperm(self.num_available, device=self.images.device)
        turn = torch.arange(self._dealt, self._dealt + n, device=self.images.device) % self.num_available
        self._dealt += n
        return self.images[self._order[turn]].float() / 127.5 - 1

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # A fresh model does not know how many images there are: make room for them first.
        if prefix + "images" in state_dict:
            self.images = torch.empty_like(state_dict[prefix + "images"], device=self.images.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
