"""Scores of generated images: one pass through the extractor for all metrics, reference work kept between runs, a protocol hash each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genbench.datasets import Split
from genbench.errors import GenbenchError
from genbench.extractors import Extractor, ExtractorSpec
from genbench.kept import Arrays, Kept
from genbench.metrics import Evidence, ImageSet, Measurement, MetricSpec
from genbench.records import Score, SplitName
from genbench.reference import Reference
from genbench.seeds import stream
from genbench.track import PROTOCOL, short_hash
from genbench.view import SplitView, View, extract

QUANTISATION = "clip [-1, 1], floor(255 (x + 1) / 2 + 0.5), uint8"
DTYPE = "float32 features, float64 statistics"
_FLOOR_SEED = 0


class Scorer:
    """Scores images against one reference with one extractor. What depends on real images alone is computed once and kept.

    `weights` is a path for an extractor whose weights do not ship. `cache` is a folder for what is kept between processes; None
    keeps it in memory. Raises GenbenchError before any compute where the extractor's weights are missing.
    """

    def __init__(
        self,
        reference: Reference,
        extractor: ExtractorSpec,
        metrics: Sequence[MetricSpec],
        *,
        device: torch.device,
        weights: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        extractor.require(weights)
        self.reference, self.spec, self.metrics, self.device = reference, extractor, tuple(metrics), device
        self._weights = weights
        self._kept = Kept(cache)
        self._splits = {name: self._split(name) for name in reference.splits}
        self._samples: dict[tuple[str, int], View] = {}

    @cached_property
    def extractor(self) -> Extractor:
        """The network, loaded when first needed."""
        return self.spec.load(self.device, self._weights)

    def score(self, images: NDArray[np.uint8], seed: int, *, asked: Split | None = None) -> list[Score]:
        """(N, C, H, W) uint8 images -> every metric's scores, with floors and protocol hashes; `seed` of the metrics' own streams.

        `asked`: images a conditional model made on request, with the labels asked for. A metric that lacks what it needs is left out.
        """
        self._check(images)
        fake = self._view(images, None if asked is None or asked.images is not images else asked.labels)
        requested = None if asked is None else fake if asked.images is images else self._view(asked.images, asked.labels)
        found, shared = [], _Shared(seed)
        for metric in self.metrics:
            if self._missing(metric, requested):
                continue
            floors = self._floor(metric, len(images))
            for measurement in self._measure(metric, fake, requested, seed, shared):
                found.append(self._describe(metric, measurement, len(images), floors.get(measurement.name)))
        return found

    def fid(self, images: NDArray[np.uint8]) -> float:
        """(N, C, H, W) uint8 images, N >= 2 -> FID against the reference: the cheap one for curves; lower is better."""
        from genbench.metrics.fid import Gaussian

        self._check(images)
        if len(images) < 2:
            raise GenbenchError(f"FID needs at least 2 images, got {len(images)}")
        return Gaussian.of(*self._view(images).moments[:2]).distance(self._gaussian)

    @cached_property
    def _gaussian(self) -> Any:
        from genbench.metrics.fid import Gaussian

        return Gaussian.of(*self._splits[self.reference.of].moments[:2])

    def flags(self, images: NDArray[np.uint8]) -> list[str]:
        """(N, C, H, W) uint8 images -> what a reader of their scores should know: ``collapsed``, ``blank``, ``duplicates 12 %``."""
        self._check(images)
        found = []
        if len(images) > 1 and images.std(axis=0, dtype=np.float32).mean() < 1:
            found.append("collapsed")  # the images differ by less than a level
        if np.ptp(images.reshape(len(images), -1), axis=1).max(initial=0) <= 1:
            found.append("blank")  # each image is of one level throughout
        duplicates = 1 - len({image.tobytes() for image in images}) / max(1, len(images))
        if duplicates > 0.01:
            found.append(f"duplicates {duplicates:.0%}".replace("%", " %"))
        return found

    @property
    def labels_named(self) -> bool:
        """True where the extractor's logits name the dataset's own classes."""
        return bool(self.spec.labels_of) and self.spec.labels_of == self.reference.spec.name and self.spec.num_classes > 0

    def _missing(self, metric: MetricSpec, asked: ImageSet | None) -> list[str]:
        """What the metric needs and is not there."""
        there = {
            "real": True,
            "train": "train" in self._splits,
            "holdout": "holdout" in self._splits and len(self._splits["holdout"].images) > 0,
            "labels": self.reference.real.labels is not None,
            "asked": asked is not None,
        }
        return [need for need in metric.needs if not there[need]]

    def _measure(self, metric: MetricSpec, fake: ImageSet, asked: ImageSet | None, seed: int, shared: _Shared) -> Iterator[Measurement]:
        evidence = Evidence(
            fake=fake,
            real=self._splits[self.reference.of],
            second=self._splits[self.reference.second],
            reference=self.reference.of,
            seed=stream(seed, metric.name),
            labels_named=self.labels_named,
            train=self._splits.get("train"),
            holdout=self._splits.get("holdout"),
            test=self._splits.get("test"),
            asked=asked,
            noise=partial(self._noise, len(fake.images)),
            remember=lambda key, compute: self._kept.get({"what": "remembered", "key": key, **self._identity(metric)}, compute),
            share=shared,
        )
        yield from map(_finite, metric.compute(evidence))

    def _noise(self, n: int) -> ImageSet:
        return self._view(np.random.default_rng(_FLOOR_SEED).integers(0, 256, (n, *self.reference.shape), dtype=np.uint8))

    def _floor(self, metric: MetricSpec, n: int) -> dict[str, float | None]:
        """Every value of a metric for a seeded random sample of n real images that are not the reference."""

        def compute() -> Arrays:
            sample = self._sample(self.reference.second if metric.floor == "second" else "holdout", n)
            asked = sample if sample.labels is not None else None
            measured = () if self._missing(metric, asked) else self._measure(metric, sample, asked, _FLOOR_SEED, _Shared(_FLOOR_SEED))
            return {m.name: np.array(np.nan if m.value is None else m.value) for m in measured}

        values = self._kept.get({"what": "floors", "n": n, **self._identity(metric)}, compute)
        return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}

    def _sample(self, split: SplitName, n: int) -> View:
        """A seeded random subset of a split, of n images or of all there are."""
        if (split, n) not in self._samples:
            whole = self.reference.splits[split]
            some = np.sort(np.random.default_rng(_FLOOR_SEED).permutation(len(whole.images))[:n])
            labels = None if whole.labels is None else whole.labels[some]
            self._samples = {(split, n): self._view(np.ascontiguousarray(whole.images[some]), labels)}  # the last one only
        return self._samples[split, n]

    def _view(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None) -> View:
        return View(lambda some: extract(self.extractor, some, self.device), images, labels)

    def _split(self, name: SplitName) -> SplitView:
        split, buffered = self.reference.splits[name], name == self.reference.of

        def keep(what: str, compute: Callable[[], Arrays]) -> Arrays:
            return self._kept.get({"what": what, "split": name, "buffered": buffered, **self._identity()}, compute)

        return SplitView(lambda images: extract(self.extractor, images, self.device), split, keep, buffered)

    def _identity(self, metric: MetricSpec | None = None) -> dict[str, Any]:
        """All that features of real images, or a metric's values for them, depend on."""
        identity: dict[str, Any] = {
            "data": self.reference.digest,
            "extractor": [self.spec.name, self.spec.version, self.extractor.digest],
            "dtype": DTYPE,
            "device": self.device.type,
        }
        if metric is None:
            return identity
        return identity | {"metric": [metric.name, metric.version], "reference": self.reference.of, "labels_named": self.labels_named}

    def _describe(self, metric: MetricSpec, m: Measurement, n_fake: int, floor: float | None) -> Score:
        split = m.split or self.reference.of
        n_real = len(self.reference.splits[split]) if m.n_real is None else m.n_real
        n_fake = n_fake if m.n_fake is None else m.n_fake
        extractor = None if m.pixels_only else [self.spec.name, self.spec.version, self.extractor.digest]
        protocol = short_hash({
            "protocol": PROTOCOL,
            "dataset": self.reference.digest,
            "split": split,
            "n_real": n_real,
            "n_fake": n_fake,
            "resize": self.reference.resize,
            "quantisation": QUANTISATION,
            "extractor": extractor,
            "dtype": DTYPE,
            "metric": [metric.name, metric.version, m.name],
        })  # fmt: skip
        return Score(
            name=m.name, value=m.value, better=m.better, unit=m.unit, interval=m.interval, floor=floor,
            extractor=None if m.pixels_only else self.spec.name, split=split, n_real=n_real, n_fake=n_fake, protocol=protocol, note=m.note,
        )  # fmt: skip

    def _check(self, images: NDArray[np.uint8]) -> None:
        expected = self.reference.shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or len(images) == 0:
            shape = " × ".join(map(str, expected))
            needed = f"{self.reference.name} at {expected[1]} pixels needs uint8 N × {shape}"
            raise GenbenchError(f"images are {images.dtype} {' × '.join(map(str, images.shape))}; {needed}")


class _Shared:
    """`Evidence.share` of one scoring: each key computed once, from its own random stream."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._found: dict[str, Any] = {}

    def __call__(self, key: str, compute: Callable[[int], Any]) -> Any:
        if key not in self._found:
            self._found[key] = compute(stream(self._seed, key))
        return self._found[key]


def _finite(m: Measurement) -> Measurement:
    """A value that is not finite becomes None with a note: records hold strict JSON."""
    if m.value is not None and not math.isfinite(m.value):
        return replace(m, value=None, interval=None, note=f"{m.value} {m.note}".strip())
    return m if m.interval is None or all(map(math.isfinite, m.interval)) else replace(m, interval=None)
