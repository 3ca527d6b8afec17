"""Tukey's studentized range, vectorised: thousands of pairs of models with degrees of freedom of their own take a fraction of a second."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]


@functools.lru_cache(maxsize=64)
def _range_sf(count: int) -> tuple[Floats, Floats]:
    """k -> (w, P(range of k standard normal values > w)) on a fine grid.

    With the largest value at z: P(range <= w) = k ∫ phi(z) (Phi(z) - Phi(z - w))^(k-1) dz.
    """
    w = np.linspace(0.0, 18.0, 4501)
    z = np.linspace(-9.0, 9.0, 361)  # analytic and vanishing at both ends: the trapezoid rule is exact to rounding
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    inside = special.ndtr(z)[None, :] - special.ndtr(z[None, :] - w[:, None])
    # 1 - x^(k-1) summed, not 1 - the sum: small tails keep their digits. The density of the largest value sums to 1/k with x = Phi(z).
    below = special.ndtr(z)[None, :] ** (count - 1)
    return w, np.maximum(count * ((below - inside ** (count - 1)) @ density), 0.0)


def studentized_range_sf(q: Floats, count: int, df: Floats) -> Floats:
    """(n,) q and degrees of freedom (infinite too) -> P(range of `count` normal values over an independent estimate of their sd > q).

    Tukey's distribution: ∫ P(range > q s) dF(s), s² df ~ chi²(df), by the trapezoid rule over log s. About 1e-6 exact.
    """
    w, tail = _range_sf(count)
    q, df = np.broadcast_arrays(np.asarray(q, dtype=float), np.asarray(df, dtype=float))
    found = np.where(np.isinf(q), 0.0, np.interp(np.where(np.isinf(q), 0.0, q), w, tail, right=0.0))
    nodes = np.linspace(0.0, 1.0, 161)
    finite = np.flatnonzero(np.isfinite(df) & np.isfinite(q))
    for chunk in np.array_split(finite, max(1, len(finite) // 8192 + 1)):
        n = df[chunk, None]
        low, high = -(25 / n + 8 / np.sqrt(2 * n)), 0.5 * np.log1p(60 / n + np.sqrt(120 / n))  # beyond them less than 1e-10
        t = low + (high - low) * nodes
        log_density = math.log(2) + n / 2 * np.log(n / 2) - special.gammaln(n / 2) + n * t - n / 2 * np.exp(2 * t)
        weight = np.exp(log_density) * (high - low) * (nodes[1] - nodes[0])
        found[chunk] = (weight * np.interp(q[chunk, None] * np.exp(t), w, tail, right=0.0)).sum(axis=1)
    return np.clip(found, 0.0, 1.0)


def studentized_range_quantile(level: float, count: int, df: float) -> float:
    """The q that the studentized range of `count` values stays below with probability `level`."""
    low, high = 0.0, 1.0
    degrees = np.array([df])

    def above(q: float) -> float:
        return float(studentized_range_sf(np.array([q]), count, degrees)[0])

    while above(high) > 1 - level:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > 1 - level else (low, middle)
    return (low + high) / 2
