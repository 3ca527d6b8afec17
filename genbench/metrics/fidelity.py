"""One number for statistical fidelity: each measure placed between a second real sample (1) and uniform noise (0)."""

from __future__ import annotations

import math
from collections.abc import Mapping

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "marginal": ("mean_gap", "variance_gap", "quantile_gap", "w1", "w1_pooled", "ks"),
    "dependence": ("covariance", "correlation"),
    "spectrum": ("spectrum_db",),
    "class": ("class_tv", "class_kl"),
    "diversity": ("diversity", "duplicates"),
}
"""Measures by family. The mean goes over families, so that right marginals alone do not score high."""


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
