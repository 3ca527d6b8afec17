"""Metrics: each module one measure (or one family) as pure functions of arrays, and a thin spec around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from genbench.records import SplitName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ImageSet(Protocol):
    """A set of images and what an extractor sees in it; each is computed when first asked for, once."""

    images: NDArray[np.uint8]
    """(N, C, H, W)."""
    labels: NDArray[np.int64] | None
    """(N,) class of each image, or None."""

    @property
    def features(self) -> NDArray[np.float32]:
        """(N, d)."""
        ...

    @property
    def logits(self) -> NDArray[np.float32] | None:
        """(N, K), or None where the extractor is no classifier."""
        ...

    @property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Mean (d,), covariance (d, d) with n-1, and N, streamed in float64."""
        ...

    def some(self, index: NDArray[np.int64]) -> ImageSet:
        """The images at these places, without extracting the others."""
        ...


Density = Literal["continuous", "discrete", "bernoulli"]
"""What a model's log weights are of: a density on [-1, 1], probabilities of the 256 levels, or of black and white pixels."""


@dataclass(frozen=True)
class ModelEvidence:
    """What a model said when asked about held-out images; None for what it can't say."""

    images: NDArray[np.uint8]
    """(N, C, H, W): the images asked about."""
    density: Density | None = None
    prior: str = ""
    """Where the latents of its samples come from, in its own words: ``N(0, I)``."""
    log_weights: NDArray[np.float64] | None = None
    """(k, N) log p(x, z) / q(z|x) in nats, z drawn from q; of a continuous density at images dequantised by uniform noise."""
    reconstructions: NDArray[np.uint8] | None = None
    """(N, C, H, W)."""
    means: NDArray[np.float32] | None = None
    """(N, d) means of q(z|x)."""
    labelled: bool = False
    """True where it was told the images' labels: its bounds are then of log p(x | label)."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Method -> what was wrong with its answer."""


Need = Literal["real", "train", "holdout", "labels", "asked", "model"]
"""What a metric can't do without: real images (not their moments alone), those of a split, their labels, images made on request,
what the model says of held-out images."""


def _compute(key: str, compute: Callable[[], Mapping[str, NDArray[np.generic]]]) -> Mapping[str, NDArray[np.generic]]:
    return compute()


def _share(key: str, compute: Callable[[int], Any]) -> Any:
    return compute(0)


@dataclass(frozen=True)
class Evidence:
    """What a metric may look at."""

    fake: ImageSet
    real: ImageSet
    """What they are compared with (the held-out test split by default); of published statistics there are `moments` alone."""
    second: ImageSet
    """Real images other than `real` (train, where that is test), for floors of a metric's own making."""
    reference: SplitName
    """The split that `real` is."""
    seed: int
    """Of the metric's own random stream."""
    labels_named: bool
    """True where the extractor's logits name the dataset's own classes."""
    metrics: tuple[str, ...] = ()
    """Names of all metrics of this scoring: what one of them shares can be made for the others too."""
    train: ImageSet | None = None
    holdout: ImageSet | None = None
    test: ImageSet | None = None
    apart: ImageSet | None = None
    """What `second` is compared with for a floor where it is a part of `real`: the other part. None: `real`."""
    asked: ImageSet | None = None
    """Images a conditional model made on request, equally many of each class; their labels are those asked for."""
    model: ModelEvidence | None = None
    """What the model says of held-out images, where it can say something."""
    noise: Callable[[], ImageSet] | None = None
    """Makes as many images of uniform noise as `fake` has, seen by the same extractor."""
    remember: Callable[[str, Callable[[], Mapping[str, NDArray[np.generic]]]], Mapping[str, NDArray[np.generic]]] = _compute
    """``remember(key, compute)``: arrays that follow from the real images, the extractor and `key` alone, kept between runs."""
    remember_floor: Callable[[str, Callable[[], Mapping[str, NDArray[np.generic]]]], Mapping[str, NDArray[np.generic]]] = _compute
    """The same for what follows from `second` and `apart`, not from `real`."""
    share: Callable[[str, Callable[[int], Any]], Any] = _share
    """``share(key, compute)``: what several metrics of this scoring need, computed once, by ``compute(seed)``."""


@dataclass(frozen=True)
class Measurement:
    """One value of a metric, before the harness adds protocol and floor."""

    name: str
    value: float | None
    better: Literal["lower", "higher", "neither"]
    unit: str = ""
    interval: tuple[float, float] | None = None
    split: SplitName | None = None
    n_real: int | None = None
    n_fake: int | None = None
    pixels_only: bool = False
    """True where no extractor had a part in it."""
    under: str = ""
    """What else its value depends on, where that is not what the metric's version stands for; part of the protocol hash."""
    note: str = ""


@dataclass(frozen=True)
class MetricSpec:
    """A metric as a plugin registers it: ``compute(evidence)`` yields one or more measurements."""

    name: str
    compute: Callable[[Evidence], Iterable[Measurement]]
    paper: str
    description: str
    needs: tuple[Need, ...] = ("real",)
    """Where one of these is not there, the metric is left out."""
    floor: Literal["second", "holdout"] = "second"
    """The real images whose value is the floor: any but the reference, or, where training images are the wrong answer, holdout."""
    version: str = "1"
    """Changes whenever its values do; part of every score's protocol hash."""
