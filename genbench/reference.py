"""What generated images are compared with: a split of a dataset, a set of images of its own, or published statistics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from genbench.datasets import DatasetSpec, ImageData, Split
from genbench.datasets.prepare import digest
from genbench.errors import GenbenchError
from genbench.metrics import ImageSet
from genbench.records import SplitName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HALVES_SEED = 0
"""Of the permutation that halves a set without splits: fixed, since floors depend on it."""


@dataclass(frozen=True)
class Reference:
    """Real images at one resolution, or their statistics; `of` names the split that scores are made against.

    A score's floor is the same measure of real images that are not the reference's: of a dataset, those of another split. A set
    without splits (``of`` is ``all``) has none other. Its floor is what a random half of it scores against its other half, with as
    many images as were generated or, where that is fewer, the whole half. Of statistics there is no floor.
    """

    name: str
    """As the user or a track writes it: ``mnist``, ``folder:PATH``."""
    spec: DatasetSpec
    of: SplitName
    splits: dict[SplitName, Split]
    """Empty where there are statistics only."""
    digest: str
    """SHA-256 over all that is here."""
    resize: str = ""
    """What was done to reach the resolution, to real images and to generated ones; empty where nothing was."""
    statistics: Statistics | None = None

    @property
    def real(self) -> Split:
        """The images compared with."""
        return self.splits[self.of]

    @property
    def second(self) -> SplitName:
        """The split that floors are drawn from: train, or test where that is what scores are made against."""
        return "all" if self.of == "all" else "test" if self.of == "train" else "train"

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(C, H, W); None where there are statistics only, which don't tell."""
        if self.statistics is not None:
            return None
        channels, height, width = self.real.images.shape[1:]
        return int(channels), int(height), int(width)

    def halves(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of a set's two seeded random halves, ascending."""
        import numpy as np

        order = np.random.default_rng(_HALVES_SEED).permutation(len(self.real))
        return np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and covariance (d, d) of features that some network saw in some images; which, they don't say."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def split_of(data: ImageData, of: SplitName = "test") -> Reference:
    """A prepared dataset, the split to compare with -> Reference."""
    return Reference(data.name, data.spec, of, {"train": data.train, "holdout": data.holdout, "test": data.test}, data.digest, data.resize)


def set_spec(name: str, shape: tuple[int, ...], class_names: tuple[str, ...] = ()) -> DatasetSpec:
    """What is known of images (N, C, H, W) without splits."""
    return DatasetSpec(name, _no_load, shape[1], min(shape[2:]), len(class_names), class_names=class_names)


def set_of(name: str, images: Split, class_names: tuple[str, ...] = ()) -> Reference:
    """Images without splits, all of them compared with -> Reference."""
    return Reference(name, set_spec(name, images.images.shape, class_names), "all", {"all": images}, digest([images]))


def statistics_of(name: str, statistics: Statistics) -> Reference:
    """Published moments -> Reference."""
    sha = hashlib.sha256(f"statistics {len(statistics.mean)};".encode())
    sha.update(statistics.mean.tobytes())
    sha.update(statistics.covariance.tobytes())
    return Reference(name, DatasetSpec(name, _no_load, 0, 0), "all", {}, sha.hexdigest(), statistics=statistics)


def _no_load(root: object) -> dict[str, Split]:
    raise GenbenchError("a set of images without splits is no dataset to train on")


def part(whole: ImageSet, rows: NDArray[np.int64]) -> ImageSet:
    """Some rows of an image set, as an image set."""
    return cast(ImageSet, Part(whole, rows))


class Part:
    """Some rows of an image set, as an image set: what an extractor sees in them is taken from the whole's."""

    def __init__(self, whole: ImageSet, rows: NDArray[np.int64]) -> None:
        self._whole, self._rows = whole, rows
        self.labels = None if whole.labels is None else whole.labels[rows]

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """(N, C, H, W)."""
        return self._whole.images[self._rows]

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """(N, d)."""
        return self._whole.features[self._rows]

    @cached_property
    def logits(self) -> NDArray[np.float32] | None:
        """(N, K), or None."""
        return None if self._whole.logits is None else self._whole.logits[self._rows]

    @cached_property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Mean (d,), covariance (d, d), N."""
        from genbench.metrics.fid import moments

        return moments([self.features])


@dataclass(frozen=True)
class Published:
    """Published statistics as an image set that has moments and nothing else: whoever asks for more is told, not served."""

    statistics: Statistics = field(repr=False)

    @property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Mean (d,), covariance (d, d); N is not known: 0."""
        return self.statistics.mean, self.statistics.covariance, 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise GenbenchError(f"published statistics have no {name}: a metric that needs them must say so in MetricSpec.needs")
