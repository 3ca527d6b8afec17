"""The statistics of a leaderboard: intervals, differences, groups, ranks. Pure functions of numbers; every random draw is seeded."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from genbench.leaderboard.studentized import Floats, studentized_range_quantile, studentized_range_sf

Better = Literal["lower", "higher", "neither"]
Scale = Literal["log", "raw"]
LEVEL = 0.95
MOST_ARRANGEMENTS = 200_000
"""Beyond so many ways of dealing out the seeds no permutation test is made: with that many seeds Welch's is as good."""
_DRAWS = 4000


# ------------------------------------------------------------------------------------------------- means and their differences
def t_interval(values: Sequence[float], level: float = LEVEL) -> float | None:
    """(n,) -> half-width of the interval of the mean by Student's t; None below two values."""
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return _t_quantile(count - 1, (1 + level) / 2) * math.sqrt(variance / count)


@functools.cache
def _t_quantile(df: int, level: float) -> float:
    return float(special.stdtrit(df, level))


def median_with_failures(values: Iterable[float | None], better: Better) -> float | None:
    """Values with None for a failure -> their median with failures as the worst value; None where that is infinite or there is nothing."""
    worst = {"lower": math.inf, "higher": -math.inf, "neither": None}[better]
    filled = [worst if value is None else value for value in values]
    present = [value for value in filled if value is not None]
    middle = median(present) if present else math.inf
    return middle if math.isfinite(middle) else None


def scale_of(groups: Sequence[Sequence[float]]) -> Scale:
    """``log`` where every value is above 0, so that a difference is a ratio; ``raw`` where one is not (KID, log-likelihoods)."""
    return "log" if all(value > 0 for group in groups for value in group) else "raw"


def on_scale(groups: Sequence[Sequence[float]], scale: Scale) -> list[list[float]]:
    """Values -> their logarithms, or themselves."""
    return [[math.log(value) for value in group] if scale == "log" else list(map(float, group)) for group in groups]


@dataclass(frozen=True)
class Difference:
    """Mean of a less mean of b: its interval and what tells it from zero."""

    value: float
    low: float
    high: float
    p: float
    df: float
    """Welch's degrees of freedom."""
    g: float | None
    """Hedges' g: the difference in pooled standard deviations, freed of its small-sample bias; None where there is no spread."""


def games_howell(groups: Sequence[Sequence[float]]) -> Floats:
    """k samples, each of two or more -> (k, k) p-values of all pairs, adjusted for there being k; ones on the diagonal.

    Games & Howell, "Pairwise multiple comparison procedures with unequal n's and/or variances", J. Educ. Stat. 1 (1976) 113-125: the
    studentized range with Welch's standard errors and degrees of freedom. For two samples it is Welch's t test. Equal samples without
    spread have p = 1, different ones p = 0.
    """
    mean, error = _mean_and_error(groups)
    count = len(groups)
    p = np.ones((count, count))
    if count > 1:
        i, j = np.triu_indices(count, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            q = np.sqrt(2.0) * np.abs(mean[i] - mean[j]) / np.sqrt(error[i] + error[j])
        q[mean[i] == mean[j]] = 0.0
        p[i, j] = p[j, i] = studentized_range_sf(q, count, _welch_df(error, _sizes(groups), i, j))
    return p


def difference(a: Sequence[float], b: Sequence[float], among: int = 2, level: float = LEVEL) -> Difference:
    """Two samples of two or more -> their difference; interval and p are simultaneous over all pairs of `among` samples (Games-Howell)."""
    mean, error = _mean_and_error([a, b])
    total = float(error.sum())
    df = float(_welch_df(error, _sizes([a, b]), np.array([0]), np.array([1]))[0])
    value = float(mean[0] - mean[1])
    if total == 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0, df, hedges_g(a, b))
    se = math.sqrt(total)
    half = studentized_range_quantile(level, among, df) / math.sqrt(2) * se
    p = float(studentized_range_sf(np.array([math.sqrt(2) * abs(value) / se]), among, np.array([df]))[0])
    return Difference(value, value - half, value + half, p, df, hedges_g(a, b))


def hedges_g(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two samples -> standardised mean difference without its small-sample bias; None where there is no spread or fewer than four values.

    Hedges, "Distribution theory for Glass's estimator of effect size", J. Educ. Stat. 6 (1981) 107-128, exact correction.
    """
    df = len(a) + len(b) - 2
    if df < 2 or not (len(a) and len(b)):
        return None
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    pooled = math.sqrt((((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / df)
    if pooled == 0:
        return None
    correction = math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2)
    return float(correction * (x.mean() - y.mean()) / pooled)


@dataclass(frozen=True)
class Permutation:
    """An exact two-sided permutation test of a difference of means."""

    p: float
    smallest: float
    """The least p that so many seeds can give, however far apart the models are."""


def permutation(a: Sequence[float], b: Sequence[float]) -> Permutation | None:
    """Two samples -> share of all ways to deal their values out whose means differ at least as much; None beyond `MOST_ARRANGEMENTS`."""
    size, count = len(a) + len(b), math.comb(len(a) + len(b), len(a)) if len(a) and len(b) else 0
    if not 0 < count <= MOST_ARRANGEMENTS:
        return None
    pooled = np.asarray([*a, *b], dtype=float)
    pooled = pooled - pooled.mean()
    flat = itertools.chain.from_iterable(itertools.combinations(range(size), len(a)))
    first = pooled[np.fromiter(flat, dtype=np.int64, count=count * len(a)).reshape(count, len(a))].sum(axis=1)
    gaps = np.abs(first / len(a) + first / len(b))  # the values sum to 0, so those of b to minus a's
    # arrangements that are the observed one in other words must not fall out by rounding
    extreme = gaps >= gaps[0] * (1 - 1e-9)
    return Permutation(float(extreme.mean()), (2 if len(a) == len(b) else 1) / count)


def _sizes(groups: Sequence[Sequence[float]]) -> Floats:
    return np.array([len(group) for group in groups], dtype=float)


def _mean_and_error(groups: Sequence[Sequence[float]]) -> tuple[Floats, Floats]:
    """k samples -> their means and squared standard errors, (k,) each."""
    assert all(len(group) > 1 for group in groups), "a spread takes two values"
    samples = [np.asarray(group, dtype=float) for group in groups]
    # values that are all equal have no spread, whatever their mean rounds to
    variances = [0.0 if sample.min() == sample.max() else sample.var(ddof=1) for sample in samples]
    return np.array([sample.mean() for sample in samples]), np.array(variances) / _sizes(groups)


def _welch_df(error: Floats, sizes: Floats, i: npt.NDArray[Any], j: npt.NDArray[Any]) -> Floats:
    """Squared standard errors and sizes of k samples, and pairs of them -> Welch-Satterthwaite degrees of freedom."""
    with np.errstate(divide="ignore", invalid="ignore"):
        df = (error[i] + error[j]) ** 2 / (error[i] ** 2 / (sizes[i] - 1) + error[j] ** 2 / (sizes[j] - 1))
    return np.asarray(np.where(np.isfinite(df), df, sizes[i] + sizes[j] - 2), dtype=float)


# ------------------------------------------------------------------------------------------------------- groups within a table
def letter_groups(p: Floats, alpha: float = 1 - LEVEL) -> list[list[int]]:
    """(k, k) p-values, rows best first -> for each row the numbers of its groups, so that two rows share one if and only if p >= alpha.

    A compact letter display as a cover of the graph of pairs that can't be told apart by cliques: each pair not yet covered is grown, best
    rows first, into the largest set without a significant pair, and sets that others make superfluous are swept away. After Gramm et al.,
    "Algorithms for compact letter displays: comparison and evaluation", Comput. Stat. Data Anal. 52 (2007) 725-736. Polynomial, where
    insert-and-absorb may double with every pair.
    """
    count = len(p)
    alike = np.asarray(p) >= alpha
    np.fill_diagonal(alike, True)
    covered = np.zeros((count, count), dtype=bool)
    cliques: list[npt.NDArray[np.int64]] = []
    for i in range(count):
        while (missing := np.flatnonzero(alike[i] & ~covered[i])).size:
            clique = _grow(alike, i, int(missing[missing >= i][0] if (missing >= i).any() else missing[0]))
            covered[np.ix_(clique, clique)] = True
            cliques.append(clique)
    times = np.zeros((count, count), dtype=np.int64)
    for clique in cliques:
        times[np.ix_(clique, clique)] += 1
    kept = []
    for clique in reversed(cliques):
        pairs = np.ix_(clique, clique)
        if (times[pairs] > 1).all():
            times[pairs] -= 1
        else:
            kept.append(clique)
    kept.sort(key=lambda clique: clique.tolist())
    numbers: list[list[int]] = [[] for _ in range(count)]
    for number, clique in enumerate(kept):
        for row in clique:
            numbers[row].append(number)
    return numbers


def _grow(alike: npt.NDArray[np.bool_], i: int, j: int) -> npt.NDArray[np.int64]:
    """Two rows that are alike -> the set grown from them by adding, best first, every row that is alike to all in it."""
    chosen = {i, j}
    open_ = alike[i] & alike[j]
    open_[[i, j]] = False
    while (rest := np.flatnonzero(open_)).size:
        chosen.add(int(rest[0]))
        open_ &= alike[rest[0]]
        open_[rest[0]] = False
    return np.array(sorted(chosen), dtype=np.int64)


def letters(numbers: Sequence[Sequence[int]]) -> list[str]:
    """Groups of each row -> ``ab``; four or more in sequence as ``c–h``; beyond z ``aa``, ``ab``, … with spaces between."""
    wide = any(number >= 26 for row in numbers for number in row)
    return [(" " if wide else "").join(_runs(sorted(row))) for row in numbers]


def _runs(numbers: Sequence[int]) -> list[str]:
    told = []
    for _, some in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [_letter(number) for _, number in some]
        told += [f"{run[0]}–{run[-1]}"] if len(run) > 3 else run
    return told


def _letter(number: int) -> str:
    name = ""
    while number >= 0:
        name = chr(ord("a") + number % 26) + name
        number = number // 26 - 1
    return name


def rank_intervals(
    groups: Sequence[Sequence[float]], failures: Sequence[int], *, draws: int = _DRAWS, seed: int = 0, level: float = LEVEL
) -> list[tuple[int, int] | None]:
    """Finished values of each row (lower is better) and its failed seeds -> interval of its rank; None below two finished values.

    Each draw takes every row's true median from its own t distribution, mean + s/sqrt(n) t(n-1), and ranks them. A row with failed seeds
    has a true share of failures too, Beta(failed + 1/2, finished + 1/2); failures are plus infinity, so its median is a higher quantile of
    the rest, and infinite where more than half would fail. A row of one value takes the spread of the others, pooled. Equal draws share
    the best rank.
    """
    sizes = _sizes(groups)
    many = sizes > 1
    if not many.any():
        return [None] * len(groups)
    rng = np.random.default_rng(seed)
    mean = np.array([np.mean(group) if len(group) else math.inf for group in groups])
    squares = np.array([np.var(group) * len(group) if len(group) else 0.0 for group in groups])
    pooled_df = float((sizes - 1)[many].sum())
    df = np.where(many, sizes - 1, pooled_df)
    squares = np.where(many, squares, squares[many].sum())
    shape = (draws, len(groups))
    sigma = np.sqrt(squares / (2 * rng.standard_gamma(np.broadcast_to(df / 2, shape))))
    drawn = mean + sigma * rng.standard_normal(shape) / np.sqrt(np.maximum(sizes, 1))
    failed = np.asarray(failures, dtype=float)
    share = np.where(failed > 0, rng.beta(failed + 0.5, sizes + 0.5, shape), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(share > 0, sigma * special.ndtri(np.minimum(0.5 / (1 - share), 1.0)), 0.0)
    drawn = np.where((share >= 0.5) | (sizes == 0), math.inf, drawn + shift)
    ordered = np.sort(drawn, axis=1)
    ranks = np.stack([np.searchsorted(line, values, side="left") for line, values in zip(ordered, drawn, strict=True)]) + 1
    ends = np.quantile(ranks, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf")
    return [(int(low), int(high)) if well else None for well, low, high in zip(many, *ends, strict=True)]


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Label -> (higher is better, lower is better): the labels that no other beats in both, by the first, rising."""
    front: list[str] = []
    corner = (math.inf, math.inf)
    for label, point in sorted(points.items(), key=lambda item: (-item[1][0], item[1][1], item[0])):
        if point[1] < corner[1] or point == corner:
            front.append(label)
            corner = point
    return sorted(front, key=lambda label: (points[label], label))
