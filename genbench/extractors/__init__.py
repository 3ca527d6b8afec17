"""Extractors: what turns images into the features and logits that FID, IS and their kin are computed from."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from genbench.datasets import DatasetSpec

_WORD = re.compile(r"[^\W\d_]{2}")
"""Two letters: what tells the name of a class from its number."""


class Extractor(Protocol):
    """A network in eval mode, or another function of images, on its device."""

    digest: str
    """SHA-256 of its weights, or of what they follow from."""

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, H, W) uint8, C 1 or 3 -> features (B, d) float32 and logits (B, K) float32, or None where it is no classifier."""
        ...


@dataclass(frozen=True)
class ExtractorSpec:
    """An extractor as a plugin registers it.

    `load(device, weights)` builds it; `weights` is a path given by the user or None. `require(weights)` raises
    GenbenchError, before any compute, where its weights are absent and cannot be had. One without weights has `fit(device,
    images)` instead, which makes it from the reference's train split, (N, C, H, W) uint8. `version` changes whenever its output does.
    """

    name: str
    load: Callable[[torch.device, Path | None], Extractor]
    require: Callable[[Path | None], None]
    dim: int
    description: str
    num_classes: int = 0
    """Classes of its logits; 0: no classifier."""
    labels_of: str = ""
    """Dataset whose labels its logits name (``mnist``); the class histogram and label agreement need it."""
    accuracy: float | None = None
    """Test accuracy of a bundled in-domain classifier, in [0, 1]."""
    version: str = "1"
    class_names: tuple[str, ...] = ()
    """Of its logits, in their order."""
    fit: Callable[[torch.device, NDArray[np.uint8]], Extractor] | None = None

    def names_labels_of(self, dataset: DatasetSpec) -> bool:
        """True where the logits name this dataset's own classes: by `labels_of`, or by the same words in the same order.

        Numbers are no words: "0" to "9" may be digits in one folder and anything in another.
        """
        if not self.num_classes:
            return False
        named = bool(self.class_names) and self.class_names == dataset.class_names and all(map(_WORD.search, self.class_names))
        return named or (bool(self.labels_of) and self.labels_of == dataset.name)
