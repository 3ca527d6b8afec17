"""Extractors: networks that turn images into the features and logits that FID, IS and their kin are computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Extractor(Protocol):
    """A network in eval mode on its device."""

    digest: str
    """SHA-256 of its weights."""

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, H, W) uint8, C 1 or 3 -> features (B, d) float32 and logits (B, K) float32, or None where it is no classifier."""
        ...


@dataclass(frozen=True)
class ExtractorSpec:
    """An extractor as a plugin registers it.

    `load(device, weights)` builds it; `weights` is a path given by the user or None. `require(weights)` raises
    GenbenchError, before any compute, where its weights are absent and cannot be had. `version` changes whenever its
    output does.
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
