"""Statistics over tracks: Friedman's test of mean ranks with Nemenyi's critical difference, and performance profiles. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from genbench.leaderboard.studentized import Floats, studentized_range_quantile

MIN_TRACKS = 6
"""Below six tracks the chi-squared law of Friedman's statistic is no approximation, and Nemenyi's test finds next to nothing."""


def average_ranks(scores: Floats) -> Floats:
    """(N, k) scores, lower is better, infinite where failed -> (N, k) ranks from 1, ties averaged."""
    less = (scores[:, None, :] < scores[:, :, None]).sum(axis=2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)
    return np.asarray(less + (equal + 1) / 2, dtype=float)


@dataclass(frozen=True)
class Friedman:
    """Whether k models differ at all over N tracks, and by how much mean ranks must differ to tell two apart."""

    chi2: float
    p: float
    critical_difference: float


def friedman(ranks: Floats, level: float = 0.95) -> Friedman:
    """(N, k) ranks with ties averaged -> Friedman's test, corrected for ties, and Nemenyi's critical difference.

    Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006) 1-30: CD = q sqrt(k (k + 1) / 6 N), q the
    studentized range over sqrt 2. Models that are never told apart have p = 1.
    """
    tracks, count = ranks.shape
    centre = (count + 1) / 2
    spread = float(((ranks - centre) ** 2).sum())
    chi2 = (count - 1) * float(((ranks.sum(axis=0) - tracks * centre) ** 2).sum()) / spread if spread else 0.0
    q = studentized_range_quantile(level, count, math.inf) / math.sqrt(2)
    return Friedman(chi2, float(special.chdtrc(count - 1, chi2)), q * math.sqrt(count * (count + 1) / (6 * tracks)))


def within(mean_ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """Mean ranks in rising order -> first and last of every largest run of two or more that lies within the critical difference."""
    runs: list[tuple[int, int]] = []
    for first, lowest in enumerate(mean_ranks):
        last = max(position for position, rank in enumerate(mean_ranks) if rank - lowest < critical)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def performance_ratios(times: Floats) -> Floats:
    """(problems, models) times, infinite where never solved -> how many times longer than the fastest; infinite where nobody solved it.

    Dolan & Moré, "Benchmarking optimization software with performance profiles", Math. Program. 91 (2002) 201-213.
    """
    fastest = times.min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(times), times / fastest, math.inf)


def performance_profile(ratios: Floats, tau: Floats) -> Floats:
    """(problems, models) ratios and (t,) tau -> (models, t) share of all problems that a model solved within tau times the fastest."""
    return np.asarray((ratios.T[:, :, None] <= tau).mean(axis=1), dtype=float)
