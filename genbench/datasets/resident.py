"""Training batches from one uint8 tensor that lives on the device: a gather a batch, no DataLoader, no workers.

The n-th batch is a function of (seed, n) alone, so a resumed run sees the batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from genbench import machine
from genbench.budget import Meter
from genbench.datasets import ImageData, Split
from genbench.devices import part_of
from genbench.model import Batch
from genbench.seeds import stream

RESIDENT_LIMIT = 0.5
"""A split that takes more than this share of the device's free memory is gathered from its memory map instead."""


class TrainingBatches:
    """Endless, seeded batches of the train split; see `genbench.model.Batches`.

    With several `ranks` each gets its part of every batch, the `rank`-th; whole batches are counted. Raises GenbenchError where
    a batch has no equal parts.
    """

    def __init__(
        self, data: ImageData, *, batch_size: int, seed: int, meter: Meter, device: torch.device, flip: bool = False,
        rank: int = 0, ranks: int = 1,
    ) -> None:  # fmt: skip
        self.progress = 0.0
        self.drawn = 0
        """Batches drawn so far: the whole state of the sampler."""
        self._data = data
        self._source = data.grey or data.train
        self._shape = data.train.images.shape[1:]
        self._batch = min(batch_size, len(data.train))
        self.part = part_of(self._batch, ranks, "the model")
        """Images of a batch that come here: all of it where there is one rank."""
        self._offset = rank * self.part
        self._per_epoch = len(data.train) // self._batch
        self._seed = stream(seed, "data")
        self._meter = meter
        self._device = device
        self._flip = flip
        self._rows = _rows(self._source, device)
        self._labels = None if data.train.labels is None else torch.from_numpy(np.ascontiguousarray(data.train.labels)).to(device)
        self._epoch = -1
        self._order = self._mirrored = torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        epoch, position = divmod(self.drawn, self._per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        start = position * self._batch + self._offset
        window = slice(start, start + self.part)
        index = self._order[window]
        self.drawn += 1
        self._meter.images += self._batch
        images = to_unit(self._gather(index))
        if self._data.grey is not None:
            images = self._black_or_white(images)
        if self._flip:
            images = torch.where(self._mirrored[window, None, None, None], images.flip(3), images)
        return Batch(images, None if self._labels is None else self._labels.index_select(0, index))

    @property
    def holdout(self) -> Batch:
        """All images carved from train for validation, at once; not counted against the budget."""
        split = self._data.holdout
        images = to_unit(torch.from_numpy(np.ascontiguousarray(split.images)).to(self._device))
        return Batch(images, None if split.labels is None else torch.from_numpy(np.ascontiguousarray(split.labels)).to(self._device))

    def _shuffle(self, epoch: int) -> None:
        generator = torch.Generator().manual_seed((self._seed + epoch) & (2**63 - 1))
        self._order = torch.randperm(len(self._data.train), generator=generator).to(self._device)
        if self._flip:
            self._mirrored = (torch.rand(len(self._data.train), generator=generator) < 0.5).to(self._device)
        self._epoch = epoch

    def _black_or_white(self, images: Tensor) -> Tensor:
        """Levels in [-1, 1] -> -1 or 1, white with probability (x + 1) / 2; a function of (seed, n) like the batch itself."""
        generator = torch.Generator(self._device).manual_seed(stream(self._seed, f"white/{self.drawn}"))
        threshold = torch.rand((self._batch, *images.shape[1:]), generator=generator, device=self._device).mul_(2).sub_(1)
        threshold = threshold[self._offset : self._offset + self.part]
        return torch.where(threshold < images, 1.0, -1.0).to(memory_format=torch.channels_last)

    def _gather(self, index: Tensor) -> Tensor:
        channels, height, width = self._shape
        if self._rows is None:
            # In file order, for the disk's sake, then back into the batch's.
            ascending, back = np.unique(index.cpu().numpy(), return_inverse=True)
            images = np.asarray(self._source.images[ascending])[back]
            return torch.from_numpy(images).to(self._device, memory_format=torch.channels_last)
        # Rows are stored H, W, C: the view below is channels_last at no cost.
        return self._rows.index_select(0, index).view(-1, height, width, channels).permute(0, 3, 1, 2)


def to_unit(images: Tensor) -> Tensor:
    """uint8 images -> float32 in [-1, 1]: level k becomes 2k/255 - 1."""
    return images.to(torch.float32).mul_(2 / 255).sub_(1)


def _rows(split: Split, device: torch.device) -> Tensor | None:
    if split.images.nbytes > RESIDENT_LIMIT * _free_bytes(device):
        return None
    images = np.ascontiguousarray(np.moveaxis(split.images, 1, -1)).reshape(len(split), -1)
    return torch.from_numpy(images).to(device)


def _free_bytes(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else machine.free_bytes()
