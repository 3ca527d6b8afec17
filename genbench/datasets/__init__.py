"""Datasets: where images come from, how they are split, and how they reach a track's resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SplitName = Literal["train", "holdout", "test"]


@dataclass(frozen=True)
class Split:
    """`images` (N, C, H, W) uint8 (an array or a memory map); `labels` (N,) int64 or None."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset as a plugin registers it.

    `load(root)` returns the source's own ``{"train": Split, "test": Split}`` at native resolution; `root` is the data
    root (``GENBENCH_DATA``). It raises GenbenchError, in one line that says how to get the data, where it is missing.
    `holdout` images are carved from train by a seeded permutation.
    """

    name: str
    load: Callable[[Path], Mapping[str, Split]]
    channels: int
    native_size: int
    num_classes: int = 0
    holdout: int = 0
    resize: Literal["pad", "area", "exact"] = "exact"
    """How a track's `size` is reached: zero padding, area reduction after a centre crop, or not at all."""
    licence: str = ""
    url: str = ""
    description: str = ""
    class_names: tuple[str, ...] = field(default=())
    dynamic: bool = False
    """Black and white images drawn from grey levels as probabilities of white: training images anew for every batch, all others once."""


@dataclass(frozen=True)
class ImageData:
    """A dataset prepared for a track: three splits at one resolution, and a digest over all of it."""

    name: str
    """As the track writes it: ``mnist``, ``folder:PATH``."""
    spec: DatasetSpec
    size: int
    train: Split
    holdout: Split
    test: Split
    digest: str
    """SHA-256 over shapes, pixels and labels of the three splits."""
    resize: str
    """What was done to reach `size`, in words: ``zero-padded 28 → 32``; empty where nothing was."""
    grey: Split | None = None
    """Of a dynamic dataset: the levels that training batches are drawn from. `train` then is one such drawing."""

    @property
    def channels(self) -> int:
        """1 or 3."""
        return int(self.train.images.shape[1])

    @property
    def num_classes(self) -> int:
        """0 where the data has no labels."""
        return self.spec.num_classes

    def split(self, name: SplitName) -> Split:
        """The split of that name."""
        return {"train": self.train, "holdout": self.holdout, "test": self.test}[name]
