"""Images and what an extractor sees in them: each image goes through it once, whatever number of metrics asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genbench.datasets import Split
from genbench.extractors import Extractor
from genbench.kept import Arrays

Seen = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Features (N, d) and logits (N, K) or None."""
BATCH = 250
"""Images in one call of the extractor."""
MOST_BUFFERED = 50_000
"""Reference images whose features are kept; of more, only moments and logits."""


def extract(extractor: Extractor, images: NDArray[np.uint8], device: torch.device) -> Iterator[Seen]:
    """(N, C, H, W) uint8 images -> batches of features (B, d) and logits (B, K) or None."""
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start : start + BATCH])).to(device).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            features, logits = extractor(batch)
            yield features.float().cpu().numpy(), None if logits is None else logits.float().cpu().numpy()


See = Callable[[NDArray[np.uint8]], Iterator[Seen]]
Keep = Callable[[str, Callable[[], Arrays]], Arrays]


class View:
    """Images in memory, seen through ``see(images)``, which yields batches; features and logits come from one pass."""

    def __init__(self, see: See, images: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> None:
        self.images, self.labels = images, labels
        self._see = see

    @cached_property
    def _seen(self) -> Seen:
        return _concatenate(self._see(self.images), len(self.images))

    @property
    def features(self) -> NDArray[np.float32]:
        """(N, d)."""
        return self._seen[0]

    @property
    def logits(self) -> NDArray[np.float32] | None:
        """(N, K), or None."""
        return self._seen[1]

    @cached_property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Mean (d,), covariance (d, d), N."""
        from genbench.metrics.fid import moments

        return moments([self.features])

    def some(self, index: NDArray[np.int64]) -> View:
        """The images at these places, seen anew."""
        return _some(self._see, self.images, self.labels, index)


class SplitView:
    """A split of real images: what the extractor sees in it is kept. Moments need no buffer of features where there are too many.

    ``keep(what, compute)`` returns kept arrays, or computes and keeps them.
    """

    def __init__(self, see: See, split: Split, keep: Keep, buffered: bool) -> None:
        self.images, self.labels = split.images, split.labels
        self._see, self._keep = see, keep
        self._buffered = buffered and len(split.images) <= MOST_BUFFERED

    @property
    def features(self) -> NDArray[np.float32]:
        """(N, d)."""
        return self._all["features"]

    @cached_property
    def logits(self) -> NDArray[np.float32] | None:
        """(N, K), or None; with features at hand none is extracted anew."""
        return (self._all if self._buffered else self._summary).get("logits")

    @cached_property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Mean (d,), covariance (d, d), N."""
        s = self._summary
        return s["mean"], s["covariance"], len(self.images)

    def some(self, index: NDArray[np.int64]) -> View:
        """The images at these places, seen anew."""
        return _some(self._see, self.images, self.labels, index)

    @cached_property
    def _all(self) -> Arrays:
        """Features and logits of every image."""

        def compute() -> Arrays:
            features, logits = _concatenate(self._see(self.images), len(self.images))
            return {"features": features} | ({} if logits is None else {"logits": logits})

        return self._keep("features", compute)

    @cached_property
    def _summary(self) -> Arrays:
        """Mean and covariance of the features, and the logits."""
        from genbench.metrics.fid import Moments

        def compute() -> Arrays:
            stream, logits = Moments(), []
            parts: Any = [(self.features, None)] if self._buffered else self._see(self.images)
            for features, part in parts:
                stream.update(features)
                if part is not None:
                    logits.append(part)
            mean, covariance, _ = stream.result()
            return {"mean": mean, "covariance": covariance} | ({"logits": np.concatenate(logits)} if logits else {})

        return self._keep("summary", compute)


def _some(see: See, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, index: NDArray[np.int64]) -> View:
    return View(see, np.ascontiguousarray(images[index]), None if labels is None else labels[index])


def _concatenate(parts: Iterator[Seen], n: int) -> Seen:
    """Batches -> all n, written where they belong: a list of them and their concatenation would be twice the memory."""
    features: NDArray[np.float32] | None = None
    logits: NDArray[np.float32] | None = None
    start = 0
    for seen, classified in parts:
        stop = start + len(seen)
        if features is None:
            features = np.empty((n, seen.shape[1]), np.float32)
            logits = None if classified is None else np.empty((n, classified.shape[1]), np.float32)
        features[start:stop] = seen
        if logits is not None:
            logits[start:stop] = classified
        start = stop
    if features is None or start != n:
        raise ValueError(f"{n} images gave features of {start}")
    return features, logits
