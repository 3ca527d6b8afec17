"""One number for statistical fidelity: each measure placed between a second real sample (1) and uniform noise (0)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.metrics import Evidence, ImageSet, Measurement, statistics
from genbench.metrics.statistics import Summary

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "marginal": ("mean_gap", "variance_gap", "quantile_gap", "w1", "w1_pooled", "ks"),
    "dependence": ("covariance", "correlation"),
    "spectrum": ("spectrum_db",),
    "class": ("class_tv", "class_kl"),
    "diversity": ("diversity", "duplicates"),
}
"""Measures by family. The mean goes over families, so that right marginals alone do not score high."""
FLOOR_SPLITS = 20
"""Seeded real samples whose median makes a measure's floor."""


def statistical_fidelity(
    values: Mapping[str, float], floors: Mapping[str, float], noise: Mapping[str, float]
) -> tuple[float, dict[str, float]]:
    """Measures of a model, of real against real (medians) and of uniform noise -> score in [0, 1] and each family's; higher is better.

    A measure that cannot tell noise from real images (noise scores no worse than the floor) is left out, and a family
    without measures too. Noise has no duplicates, so their share beyond the floor is no place between the two: it takes
    its part of the diversity family's score away. Raises ValueError where nothing is left.
    """
    families = {}
    for family, names in FAMILIES.items():
        placed = (place(name, values[name], floors[name], noise[name]) for name in names if name in values and name != "duplicates")
        scores = [score for score in placed if score is not None]
        if scores:
            families[family] = sum(scores) / len(scores)
    if "diversity" in families and "duplicates" in values:
        families["diversity"] *= 1 - min(1.0, max(0.0, values["duplicates"] - floors["duplicates"]))
    if not families:
        raise ValueError("no measure tells real images from noise")
    return sum(families.values()) / len(families), families


def place(name: str, value: float, floor: float, noise: float) -> float | None:
    """A measure g with its real floor f and noise value n -> clip(log(n/g) / log(n/f), 0, 1), or None where n <= f."""
    g, f, n = (distance(name, x) for x in (value, floor, noise))
    if n <= f:
        return None
    if g <= f:
        return 1.0
    if g >= n:
        return 0.0
    f = max(f, 1e-6 * n)  # a floor of 0 would leave 1 to a perfect value alone and 0 to any other
    return min(1.0, math.log(n / g) / math.log(n / f))


def distance(name: str, value: float) -> float:
    """A measure's value -> its distance from right, >= 0: |log| for the ratio `diversity`, itself for all others."""
    if name != "diversity":
        return value
    return abs(math.log(value)) if 0 < value < math.inf else math.inf


def typical(name: str, values: Sequence[float]) -> float:
    """A measure's values for real samples -> their median: for the ratio `diversity`, that of its distances from 1, as a ratio above 1.

    The median of ratios on both sides of 1 may be 1 by chance, and then no second real sample would be as good.
    """
    return math.exp(np.median([distance(name, value) for value in values])) if name == "diversity" else float(np.median(values))


def compute(evidence: Evidence) -> Iterator[Measurement]:
    """The hook of this module's metric."""
    n = len(evidence.fake.images)
    if n < 2:
        yield Measurement("statistical_fidelity", None, "higher", note="needs at least 2 images")
        return
    real, fake = _kept_summary(evidence), _summary(evidence, evidence.fake)
    values = statistics.measure(fake, real)
    known = evidence.remember_floor(f"floors of {n} images", lambda: _floors(evidence, real))
    floors, noise = ({name: float(known[f"{kind} {name}"]) for name in values if f"{kind} {name}" in known} for kind in ("floor", "noise"))
    score, families = statistical_fidelity({name: v for name, v in values.items() if name in noise}, floors, noise)
    note = ", ".join(f"{family} {value:.2f}" for family, value in families.items())
    yield Measurement("statistical_fidelity", score, "higher", pixels_only="class" not in families, note=note)
    units = {"spectrum_db": "dB", "class_kl": "nats", "diversity": "× real"}
    masked = statistics.correlation(fake, real)[1]
    for name, value in values.items():
        yield Measurement(
            name, value, "neither" if name == "diversity" else "lower", units.get(name, ""), pixels_only=not name.startswith("class_"),
            note=f"{masked} constant pixels masked" if name == "correlation" and masked else "",
        )  # fmt: skip


def _kept_summary(evidence: Evidence) -> Summary:
    """The real images' summary, kept between runs: to make it costs as much as the generated images' does."""

    def compute() -> dict[str, NDArray[np.generic]]:
        made = {name: np.asarray(value) for name, value in vars(_summary(evidence, evidence.real)).items() if value is not None}
        return made | {"counts": made["counts"].astype(np.min_scalar_type(made["n"]))}  # for the file's size

    known: dict[str, Any] = dict(evidence.remember("summary", compute))
    numbers = {"n": int(known["n"]), "distance": float(known["distance"])}
    return Summary(**known | numbers | {"counts": known["counts"].astype(np.int64)})


def _summary(evidence: Evidence, images: ImageSet) -> Summary:
    return statistics.summarise(images.images, _classes(images.logits if evidence.labels_named else None))


def _classes(logits: NDArray[np.float32] | None) -> NDArray[np.int64] | None:
    """(N, K) logits -> (K,) images in each class."""
    return None if logits is None else np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])


def _floors(evidence: Evidence, real: Summary) -> dict[str, NDArray[np.generic]]:
    """Every measure of real images (median over seeded second samples, as many as generated) and of noise, against the reference."""
    second, n = evidence.second, len(evidence.fake.images)
    if evidence.apart is not None:
        real = _summary(evidence, evidence.apart)
    logits = second.logits if evidence.labels_named else None
    draws: list[dict[str, float]] = []
    for seed in range(FLOOR_SPLITS):
        some = np.sort(np.random.default_rng(seed).permutation(len(second.images))[:n])
        sample = statistics.summarise(second.images[some], _classes(None if logits is None else logits[some]))
        draws.append(statistics.measure(sample, real))
    if evidence.noise is not None:
        noise = _summary(evidence, evidence.noise())
    else:  # nobody to classify it: the class measures get no noise value and stay out of the score
        noise = statistics.summarise(np.random.default_rng(0).integers(0, 256, (n, *second.images.shape[1:]), dtype=np.uint8))
    floors = {f"floor {name}": np.asarray(typical(name, [draw[name] for draw in draws])) for name in draws[0]}
    return floors | {f"noise {name}": np.asarray(value) for name, value in statistics.measure(noise, real).items()}
