"""Evidence from plain arrays, for tests of the metrics' hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genbench.metrics import Evidence, Measurement


@dataclass
class Seen:
    """Features (N, d) and, where a test needs them, logits (N, K), images (N, C, H, W) and labels (N,)."""

    features: np.ndarray
    logits: np.ndarray | None = None
    images: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.images is None:
            self.images = np.zeros((len(self.features), 1, 4, 4), np.uint8)

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray, int]:
        x = self.features.astype(np.float64)
        return x.mean(axis=0), np.cov(x, rowvar=False).reshape(x.shape[1], -1), len(x)

    def some(self, index: np.ndarray) -> Seen:
        return Seen(*(None if array is None else array[index] for array in (self.features, self.logits, self.images, self.labels)))


def evidence(fake: Seen, real: Seen, second: Seen | None = None, **options: Any) -> Evidence:
    """Fake against real (test) images; `second` are train images."""
    second = second or real
    given = {"reference": "test", "seed": 0, "labels_named": True, "train": second, "test": real} | options
    return Evidence(fake=fake, real=real, second=second, **given)


def by_name(measurements: Any) -> dict[str, Measurement]:
    return {m.name: m for m in measurements}
