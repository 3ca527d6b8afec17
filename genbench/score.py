"""Scores of generated images: one pass through the extractor for all metrics, reference work kept between runs, a protocol hash each."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from genbench.datasets import ImageData
from genbench.errors import GenbenchError
from genbench.extractors import Extractor, ExtractorSpec
from genbench.metrics import Evidence, ImageSet, Measurement, MetricSpec
from genbench.records import Score, write_atomic
from genbench.seeds import stream
from genbench.track import PROTOCOL, short_hash

Seen = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Features (N, d) and logits (N, K) or None."""
Arrays = Mapping[str, NDArray[Any]]
QUANTISATION = "clip [-1, 1], floor(255 (x + 1) / 2 + 0.5), uint8"
DTYPE = "float32 features, float64 statistics"
BATCH = 250
"""Images in one call of the extractor."""
_FLOOR_SEED = 0
_log = logging.getLogger(__name__)


class Scorer:
    """Scores images against one dataset with one extractor. What depends on real images alone is computed once and kept.

    `reference` is the split that `fid` and its kin compare with. `weights` is a path for an extractor whose weights do not
    ship. `cache` is a folder for what is kept between processes; None keeps it in memory. Raises GenbenchError before any
    compute where the extractor's weights are missing.
    """

    def __init__(
        self,
        data: ImageData,
        extractor: ExtractorSpec,
        metrics: Sequence[MetricSpec],
        *,
        reference: Literal["test", "train"] = "test",
        device: torch.device,
        weights: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        extractor.require(weights)
        self.data, self.spec, self.metrics, self.reference, self.device = data, extractor, tuple(metrics), reference, device
        self._weights = weights
        self._kept = Kept(cache)
        self._splits = {name: _Split(self, name) for name in ("train", "test")}
        self._subsets: dict[int, _Images] = {}

    @cached_property
    def extractor(self) -> Extractor:
        """The network, loaded when first needed."""
        return self.spec.load(self.device, self._weights)

    def score(self, images: NDArray[np.uint8], seed: int) -> list[Score]:
        """(N, C, H, W) uint8 images -> every metric's scores, with floors and protocol hashes; `seed` of the metrics' own streams."""
        self._check(images)
        fake = _Images(self, images)
        found = []
        for metric in self.metrics:
            floors = self._floor(metric, len(images))
            for measurement in self._measure(metric, fake, seed):
                found.append(self._describe(metric, measurement, len(images), floors.get(measurement.name)))
        return found

    def fid(self, images: NDArray[np.uint8]) -> float:
        """(N, C, H, W) uint8 images, N >= 2 -> FID against the reference: the cheap one for curves; lower is better."""
        from genbench.metrics.fid import Gaussian

        self._check(images)
        if len(images) < 2:
            raise GenbenchError(f"FID needs at least 2 images, got {len(images)}")
        return Gaussian.of(*_Images(self, images).moments[:2]).distance(self._gaussian)

    @cached_property
    def _gaussian(self) -> Any:
        from genbench.metrics.fid import Gaussian

        return Gaussian.of(*self._splits[self.reference].moments[:2])

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

    def _measure(self, metric: MetricSpec, fake: ImageSet, seed: int) -> Iterator[Measurement]:
        evidence = Evidence(
            fake=fake,
            real=self._splits[self.reference],
            train=self._splits["train"],
            test=self._splits["test"],
            reference=self.reference,
            seed=stream(seed, metric.name),
            labels_named=self.labels_named,
            noise=partial(self._noise, len(fake.images)),
            remember=lambda key, compute: self._kept.get({"what": "remembered", "key": key, **self._identity(metric)}, compute),
        )
        yield from map(_finite, metric.compute(evidence))

    @property
    def labels_named(self) -> bool:
        """True where the extractor's logits name the dataset's own classes."""
        return bool(self.spec.labels_of) and self.spec.labels_of == self.data.spec.name and self.spec.num_classes > 0

    def _noise(self, n: int) -> ImageSet:
        shape = (n, *self.data.train.images.shape[1:])
        return _Images(self, np.random.default_rng(_FLOOR_SEED).integers(0, 256, shape, dtype=np.uint8))

    def _floor(self, metric: MetricSpec, n: int) -> dict[str, float | None]:
        """Every value of a metric for a seeded random train subset of n images."""

        def compute() -> Arrays:
            measured = self._measure(metric, self._train_subset(n), _FLOOR_SEED)
            return {m.name: np.array(np.nan if m.value is None else m.value) for m in measured}

        values = self._kept.get({"what": "floors", "n": n, **self._identity(metric)}, compute)
        return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}

    def _train_subset(self, n: int) -> _Images:
        if n not in self._subsets:
            train = self.data.train.images
            some = np.sort(np.random.default_rng(_FLOOR_SEED).permutation(len(train))[:n])
            self._subsets = {n: _Images(self, np.ascontiguousarray(train[some]))}  # the last one only
        return self._subsets[n]

    def _identity(self, metric: MetricSpec | None = None) -> dict[str, Any]:
        """All that features of real images, or a metric's values for them, depend on."""
        identity: dict[str, Any] = {
            "data": self.data.digest,
            "extractor": [self.spec.name, self.spec.version, self.extractor.digest],
            "labels_named": self.labels_named,
            "dtype": DTYPE,
            "device": self.device.type,
        }
        return identity | ({} if metric is None else {"metric": [metric.name, metric.version], "reference": self.reference})

    def _describe(self, metric: MetricSpec, m: Measurement, n_fake: int, floor: float | None) -> Score:
        split = m.split or self.reference
        n_real = len(self.data.split(split)) if m.n_real is None else m.n_real
        n_fake = n_fake if m.n_fake is None else m.n_fake
        extractor = None if m.pixels_only else [self.spec.name, self.spec.version, self.extractor.digest]
        protocol = short_hash({
            "protocol": PROTOCOL,
            "dataset": self.data.digest,
            "split": split,
            "n_real": n_real,
            "n_fake": n_fake,
            "resize": self.data.resize,
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
        expected = self.data.train.images.shape[1:]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or len(images) == 0:
            shape = " × ".join(map(str, expected))
            needed = f"{self.data.name} at {self.data.size} pixels needs uint8 N × {shape}"
            raise GenbenchError(f"images are {images.dtype} {' × '.join(map(str, images.shape))}; {needed}")

    def extract(self, images: NDArray[np.uint8]) -> Iterator[Seen]:
        """(N, C, H, W) uint8 images -> batches of features (B, d) and logits (B, K) or None."""
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.array(images[start : start + BATCH])).to(self.device).to(memory_format=torch.channels_last)
            with torch.inference_mode():
                features, logits = self.extractor(batch)
                yield features.float().cpu().numpy(), None if logits is None else logits.float().cpu().numpy()


class _Images:
    """Images that are seen once: features and logits come from one pass."""

    def __init__(self, scorer: Scorer, images: NDArray[np.uint8]) -> None:
        self.images = images
        self._scorer = scorer

    @cached_property
    def _seen(self) -> Seen:
        return _concatenate(self._scorer.extract(self.images))

    @property
    def features(self) -> NDArray[np.float32]:
        return self._seen[0]

    @property
    def logits(self) -> NDArray[np.float32] | None:
        return self._seen[1]

    @cached_property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        from genbench.metrics.fid import moments

        return moments([self.features])


class _Split:
    """A split of the dataset: what the extractor sees in it is kept. The moments of train need no buffer of its features."""

    def __init__(self, scorer: Scorer, name: Literal["train", "test"]) -> None:
        self.images = scorer.data.split(name).images
        self._scorer = scorer
        self._name = name

    @property
    def features(self) -> NDArray[np.float32]:
        return self._all["features"]

    @cached_property
    def logits(self) -> NDArray[np.float32] | None:
        # With features at hand none is extracted anew
        return (self._all if self._buffered else self._summary).get("logits")

    @cached_property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        s = self._summary
        return s["mean"], s["covariance"], len(self.images)

    @property
    def _buffered(self) -> bool:
        return self._name == self._scorer.reference and len(self.images) <= 50_000

    @cached_property
    def _all(self) -> Arrays:
        """Features and logits of every image."""

        def compute() -> Arrays:
            features, logits = _concatenate(self._scorer.extract(self.images))
            return {"features": features} | ({} if logits is None else {"logits": logits})

        return self._kept("features", compute)

    @cached_property
    def _summary(self) -> Arrays:
        """Mean and covariance of the features, and the logits where they name the dataset's classes."""
        from genbench.metrics.fid import Moments

        def compute() -> Arrays:
            stream, logits = Moments(), []
            for features, part in self._scorer.extract(self.images) if not self._buffered else [(self.features, None)]:
                stream.update(features)
                if part is not None and self._scorer.labels_named:
                    logits.append(part)
            mean, covariance, _ = stream.result()
            return {"mean": mean, "covariance": covariance} | ({"logits": np.concatenate(logits)} if logits else {})

        return self._kept("summary", compute)

    def _kept(self, what: str, compute: Callable[[], Arrays]) -> Arrays:
        return self._scorer._kept.get({"what": what, "split": self._name, "buffered": self._buffered, **self._scorer._identity()}, compute)


class Kept:
    """Arrays kept by the digest of all they depend on: in memory and, where a folder is given, in npz files there."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._memory: dict[str, Arrays] = {}

    def get(self, key: Mapping[str, Any], compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of this key: from memory, from its file, or computed and stored. A damaged file is computed anew."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        if digest not in self._memory:
            found = self._read(digest)
            if found is None:
                found = dict(compute())
                self._write(digest, found)
            self._memory[digest] = found
        return self._memory[digest]

    def _read(self, digest: str) -> Arrays | None:
        if self.folder is None:
            return None
        path = self.folder / f"{digest}.npz"
        try:
            content = io.BytesIO(path.read_bytes())
        except OSError:
            return None
        try:
            with np.load(content, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}  # the zip's checksums are verified here
        except Exception as error:  # a flipped bit in a zip can raise almost anything
            _log.warning("cache file %s is damaged (%s); computing it anew", path, error)
            return None

    def _write(self, digest: str, arrays: Arrays) -> None:
        if self.folder is None:
            return
        buffer = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez(buffer, **named)
        try:
            write_atomic(self.folder / f"{digest}.npz", buffer.getvalue())
        except OSError as error:
            _log.warning("cache folder %s can't be written (%s); nothing is kept", self.folder, error.strerror or error)


def _concatenate(parts: Iterator[Seen]) -> Seen:
    features, logits = zip(*parts, strict=True)
    return np.concatenate(features), None if logits[0] is None else np.concatenate(logits)


def _finite(m: Measurement) -> Measurement:
    """A value that is not finite becomes None with a note: records hold strict JSON."""
    if m.value is not None and not math.isfinite(m.value):
        return replace(m, value=None, interval=None, note=f"{m.value} {m.note}".strip())
    return m if m.interval is None or all(map(math.isfinite, m.interval)) else replace(m, interval=None)
