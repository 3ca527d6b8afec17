"""Scores of generated images: one pass through the extractor for all metrics, reference work kept between runs, a protocol hash each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from genbench.datasets import Split
from genbench.errors import GenbenchError
from genbench.extractors import Extractor, ExtractorSpec
from genbench.kept import Arrays, Kept
from genbench.metrics import Evidence, ImageSet, Measurement, MetricSpec, ModelEvidence
from genbench.records import Score, SplitName
from genbench.reference import Published, Reference, part
from genbench.seeds import stream
from genbench.track import PROTOCOL, short_hash
from genbench.view import See, Seen, SplitView, View, extract

QUANTISATION = "clip [-1, 1], floor(255 (x + 1) / 2 + 0.5), uint8"
LOSSY = "as found in files that may be lossy"
DTYPE = "float32 features, float64 statistics"
_FLOOR_SEED = 0
Show = Callable[[str, int, int], None]
"""``show(step, done, total)``: how far a step of long work is."""


def unseen(step: str, done: int, total: int) -> None:
    """A `Show` for nobody."""


class Scorer:
    """Scores images against one reference with one extractor. What depends on real images alone is computed once and kept.

    `weights` is a path for an extractor whose weights do not ship. `cache` is a folder for what is kept between processes; None
    keeps it in memory. `show` is told how far it is. Raises GenbenchError before any compute where the extractor's weights are missing.
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
        quantisation: str = QUANTISATION,
        show: Show = unseen,
    ) -> None:
        extractor.require(weights)
        self.reference, self.spec, self.metrics, self.device = reference, extractor, tuple(metrics), device
        self._weights, self._quantisation, self._show = weights, quantisation, show
        self._kept = Kept(cache)
        self._splits = {name: self._split(name) for name in reference.splits}
        self._samples: dict[tuple[str, int], ImageSet] = {}

    @cached_property
    def extractor(self) -> Extractor:
        """The network, loaded when first needed, or what is fitted on train, on the reference itself where there is no train."""
        if self.spec.fit is not None:
            return self.spec.fit(self.device, self.reference.splits.get("train", self.reference.real).images)
        return self.spec.load(self.device, self._weights)

    def score(self, images: NDArray[np.uint8], seed: int, *, asked: Split | None = None, model: ModelEvidence | None = None) -> list[Score]:
        """(N, C, H, W) uint8 images -> every metric's scores, with floors and protocol hashes; `seed` of the metrics' own streams.

        `asked`: images a conditional model made on request, with the labels asked for; `model`: what it says of held-out
        images. A metric that lacks what it needs is left out.
        """
        return [score for scores in self.by_metric(images, seed, asked=asked, model=model).values() for score in scores]

    def by_metric(
        self, images: NDArray[np.uint8], seed: int, *, asked: Split | None = None, model: ModelEvidence | None = None
    ) -> dict[str, list[Score]]:
        """As `score`, under the names of the metrics that the scores come from."""
        self._check(images)
        fake = self._view(images, None if asked is None or asked.images is not images else asked.labels)
        requested = None if asked is None else fake if asked.images is images else self._view(asked.images, asked.labels)
        found: dict[str, list[Score]] = {}
        shared = _Shared(seed)
        floors_shared = {"second": _Shared(_FLOOR_SEED), "holdout": _Shared(_FLOOR_SEED)}
        possible = [metric for metric in self.metrics if not self._missing(metric, requested, model)]
        for number, metric in enumerate(possible):
            self._show("metrics", number, len(possible))
            floors = self._floor(metric, len(images), floors_shared[metric.floor])
            measured = self._measure(metric, fake, self._real, requested, seed, shared, model)
            found[metric.name] = [self._describe(metric, m, len(images), floors.get(m.name)) for m in measured]
        self._show("metrics", len(possible), len(possible))
        return found

    def left_out(self, asked: Split | None = None) -> dict[str, list[str]]:
        """Metrics that can't be computed here, each with what it needs and is not there."""
        requested = None if asked is None else self._view(asked.images, asked.labels)
        return {metric.name: missing for metric in self.metrics if (missing := self._missing(metric, requested))}

    def fid(self, images: NDArray[np.uint8]) -> float:
        """(N, C, H, W) uint8 images, N >= 2 -> FID against the reference: the cheap one for curves; lower is better."""
        from genbench.metrics.fid import Gaussian, moments

        self._check(images)
        if len(images) < 2:
            raise GenbenchError(f"FID needs at least 2 images, got {len(images)}")
        streamed = moments(features for features, _ in self._see("the curve")(images))
        return Gaussian.of(*streamed[:2]).distance(self._gaussian)

    @cached_property
    def _gaussian(self) -> Any:
        from genbench.metrics.fid import Gaussian

        return Gaussian.of(*self._real.moments[:2])

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
        return self.spec.names_labels_of(self.reference.spec)

    def _missing(self, metric: MetricSpec, asked: ImageSet | None, model: ModelEvidence | None = None) -> list[str]:
        """What the metric needs and is not there."""
        real = self.reference.statistics is None
        there = {
            "real": real,
            "train": "train" in self._splits,
            "holdout": "holdout" in self._splits and len(self._splits["holdout"].images) > 0,
            "labels": real and self.reference.real.labels is not None,
            "asked": asked is not None,
            "model": model is not None,
        }
        return [need for need in metric.needs if not there[need]]

    @cached_property
    def _real(self) -> ImageSet:
        if self.reference.statistics is not None:
            return cast(ImageSet, Published(self.reference.statistics))
        return self._splits[self.reference.of]

    @cached_property
    def _floor_sets(self) -> tuple[ImageSet, ImageSet | None]:
        """Real images for floors, and what they are compared with where that is not the reference itself."""
        if self.reference.of != "all":
            return self._splits[self.reference.second], None
        if self.reference.statistics is not None:
            return self._real, None
        first, other = self.reference.halves()
        return part(self._real, first), part(self._real, other)

    def _measure(
        self, metric: MetricSpec, fake: ImageSet, real: ImageSet, asked: ImageSet | None, seed: int, shared: _Shared,
        model: ModelEvidence | None = None,
    ) -> Iterator[Measurement]:  # fmt: skip
        second, apart = self._floor_sets

        def remember(of: str, key: str, compute: Callable[[], Arrays]) -> Arrays:
            return self._kept.get({"what": "remembered", "of": of, "key": key, **self._identity(metric)}, compute)

        evidence = Evidence(
            fake=fake,
            real=real,
            second=second,
            apart=apart,
            reference=self.reference.of,
            seed=stream(seed, metric.name),
            labels_named=self.labels_named,
            metrics=tuple(each.name for each in self.metrics),
            train=self._splits.get("train"),
            holdout=self._splits.get("holdout"),
            test=self._splits.get("test"),
            asked=asked,
            model=model,
            noise=partial(self._noise, fake.images.shape),
            remember=partial(remember, "apart" if real is apart else "real"),
            remember_floor=partial(remember, "floor"),
            share=shared,
        )
        yield from map(_finite, metric.compute(evidence))

    def _noise(self, shape: tuple[int, ...]) -> ImageSet:
        return self._view(np.random.default_rng(_FLOOR_SEED).integers(0, 256, shape, dtype=np.uint8), what="noise")

    def _floor(self, metric: MetricSpec, n: int, shared: _Shared) -> dict[str, float | None]:
        """Every value of a metric for a seeded random sample of n real images that are not those they are compared with."""
        if self.reference.statistics is not None:
            return {}

        def compute() -> Arrays:
            sample = self._sample(self.reference.second if metric.floor == "second" else "holdout", n)
            asked = sample if sample.labels is not None else None
            real = self._floor_sets[1] or self._real
            measured = () if self._missing(metric, asked) else self._measure(metric, sample, real, asked, _FLOOR_SEED, shared)
            return {m.name: np.array(np.nan if m.value is None else m.value) for m in measured}

        values = self._kept.get({"what": "floors", "n": n, **self._identity(metric)}, compute)
        return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}

    def _sample(self, split: SplitName, n: int) -> ImageSet:
        """A seeded random subset of a split (of a set without splits: of its first half), of n images or of all there are."""
        if (split, n) not in self._samples and split == "all":
            rows = self.reference.halves()[0]
            self._samples = {(split, n): part(self._real, np.sort(np.random.default_rng(_FLOOR_SEED).permutation(rows)[:n]))}
        elif (split, n) not in self._samples:
            whole = self.reference.splits[split]
            some = np.sort(np.random.default_rng(_FLOOR_SEED).permutation(len(whole.images))[:n])
            labels = None if whole.labels is None else whole.labels[some]
            sample = self._view(np.ascontiguousarray(whole.images[some]), labels, what="real images for the floors")
            self._samples = {(split, n): sample}  # the last one only
        return self._samples[split, n]

    def _view(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None, what: str = "samples") -> View:
        return View(self._see(what), images, labels)

    def _see(self, what: str) -> See:
        """The extractor's view of images, told to `show` batch by batch."""

        def see(images: NDArray[np.uint8]) -> Iterator[Seen]:
            done = 0
            for seen in extract(self.extractor, images, self.device):
                done += len(seen[0])
                self._show(f"features of {what}", done, len(images))
                yield seen

        return see

    def _split(self, name: SplitName) -> SplitView:
        split = self.reference.splits[name]
        buffered = name == self.reference.of or any(name in metric.needs for metric in self.metrics)  # features, not moments alone

        def keep(what: str, compute: Callable[[], Arrays]) -> Arrays:
            return self._kept.get({"what": what, "split": name, "buffered": buffered, **self._identity()}, compute)

        return SplitView(self._see("the reference" if name == self.reference.of else f"the {name} split"), split, keep, buffered)

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
        n_real = len(self.reference.splits[split]) if m.n_real is None and split in self.reference.splits else m.n_real
        n_fake = n_fake if m.n_fake is None else m.n_fake
        extractor = None if m.pixels_only else [self.spec.name, self.spec.version, self.extractor.digest]
        protocol = short_hash({
            "protocol": PROTOCOL,
            "dataset": self.reference.digest,
            "split": split,
            "n_real": n_real,
            "n_fake": n_fake,
            "resize": self.reference.resize,
            "quantisation": self._quantisation,
            "extractor": extractor,
            "dtype": DTYPE,
            "metric": [metric.name, metric.version, m.name, *([m.under] if m.under else [])],
        })  # fmt: skip
        return Score(
            name=m.name, value=m.value, better=m.better, unit=m.unit, interval=m.interval, floor=floor,
            extractor=None if m.pixels_only else self.spec.name, split=split, n_real=n_real, n_fake=n_fake, protocol=protocol, note=m.note,
        )  # fmt: skip

    def _check(self, images: NDArray[np.uint8]) -> None:
        expected = self.reference.shape or images.shape[1:]
        if len(expected) != 3:
            raise GenbenchError(f"images are {images.dtype} {images.shape}, not uint8 (N, C, H, W)")
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
