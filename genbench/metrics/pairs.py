"""One pass over all pairs of points of two sets of features: kernel sums of subsets, and who lies in whose neighbourhood.

KID and precision / recall / density / coverage both need |x - y|² of every pair. It comes in blocks from one matrix product a
block, those of a set with itself once only, and no N x M matrix is ever held. Where features are float32, so are the products;
a comparison that their rounding could decide is made again from the difference of the two points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from genbench.metrics import Evidence
from genbench.seeds import stream

Real = NDArray[np.floating]
Array = NDArray[np.float64]
Indices = NDArray[np.int64]
K, K_DENSITY = 3, 5
"""Neighbours of precision and recall, of density and coverage."""
SUBSETS = 100
"""KID's subsets."""
_BLOCK = 512
"""Points on a side of a block: in float32 it stays in a core's second-level cache."""
_LARGEST = 1e8
"""|x|² / d above which cubes of float32 products would come near to overflow."""
_SPARE = 3
"""Neighbours kept beyond those asked for, since products of float32 may order them wrongly."""
_ROUNDING = 32
"""Units of rounding of |x|² + |y|² by which a product may be off: five times the most that was seen, d = 4 … 2048."""
_RIM = 1e-12
"""Equal distances must compare equal: what rounding may change them by, as a share."""


class Within(NamedTuple):
    """What follows from one set of N points alone."""

    radii: Array
    """(k, N) squared distances from each point to its first, …, k-th neighbour, itself not counted."""
    kernel: Array
    """(s,) Σ k(a, b) over ordered pairs of different points of each subset."""


class Across(NamedTuple):
    """What follows from N points x and M points y together."""

    kernel: Array
    """(s,) Σ k(a, b) over a in each subset of x and b in that of y."""
    inside: NDArray[np.bool_]
    """(M,) y lies in the first ball of some x."""
    covered: NDArray[np.bool_]
    """(N,) some y lies in x's second ball."""
    recalled: NDArray[np.bool_]
    """(N,) x lies in the ball of some y."""
    balls: int
    """Pairs with y in x's second ball."""


class Balls(NamedTuple):
    """Squared radii of neighbourhoods."""

    first: Array
    """(N,) around x, for `Across.inside`."""
    second: Array
    """(N,) around x, for `Across.covered` and `Across.balls`."""
    back: Array
    """(M,) around y, for `Across.recalled`."""


def subset_size(n_real: int, n_fake: int) -> int:
    """Images in one of KID's subsets: 1000, or half of the smaller set."""
    return min(1000, min(n_real, n_fake) // 2)


class Compared(NamedTuple):
    """Real against generated features in equal numbers; None is what no metric of this scoring wants, or too few images allow."""

    n: int
    size: int
    mmd2: Array | None
    """(s,) unbiased MMD² of each pair of KID's subsets."""
    across: Across | None


def of(evidence: Evidence) -> Compared:
    """What KID and precision / recall / density / coverage need of this scoring, from one pass for both."""
    found: Compared = evidence.share("pairs", lambda seed: _compare(evidence, seed))
    return found


def _compare(evidence: Evidence, seed: int) -> Compared:
    n = min(len(evidence.real.images), len(evidence.fake.images))
    size = subset_size(n, n)
    wanted = {"kid", "prdc"} & set(evidence.metrics) or {"kid", "prdc"}
    kernel, k = "kid" in wanted and size >= 2, K_DENSITY if "prdc" in wanted and n > K_DENSITY else 0
    # The real side is the protocol's and not the run's: what follows from it is kept, and all models meet the same subsets
    real, of_real = _drawn(evidence.real.features, n, size if kernel else 0, stream(0, "pairs of real images"))
    fake, of_fake = _drawn(evidence.fake.features, n, size if kernel else 0, seed)
    key = f"within real: {n}, {k} neighbours, {len(of_real)} subsets of {size}"
    kept = evidence.remember(key, lambda: within(real, k=k, subsets=of_real)._asdict())
    known = Within(*(np.asarray(kept[name], np.float64) for name in Within._fields))
    own = within(fake, k=min(k, K), subsets=of_fake)
    balls = Balls(known.radii[K - 1], known.radii[K_DENSITY - 1], own.radii[K - 1]) if k else None
    between = across(real, fake, balls=balls, subsets=(of_real, of_fake))
    mmd2 = unbiased(known.kernel, own.kernel, between.kernel, size) if kernel else None
    return Compared(n, size, mmd2, between if k else None)


def unbiased(within_x: Array, within_y: Array, between: Array, size: int) -> Array:
    """Kernel sums of subsets of `size` points -> MMD², (s,). Bińkowski et al. 2018, eq. 4."""
    return (within_x + within_y) / (size * (size - 1)) - 2 * between / size**2


def _drawn(features: Real, n: int, size: int, seed: int) -> tuple[Real, Real]:
    """(N, d) -> n of them, and their subsets of `size`, none where that is 0."""
    rng = np.random.default_rng(seed)
    some = features if len(features) == n else features[np.sort(rng.choice(len(features), n, replace=False))]
    return some, members([rng.choice(n, size, replace=False) for _ in range(SUBSETS if size else 0)], n)


def members(subsets: list[Indices], n: int) -> Real:
    """Subsets of range(n) -> (s, n) with 1 where a subset holds a point."""
    found = np.zeros((len(subsets), n), np.float32)
    for row, subset in zip(found, subsets, strict=True):
        row[subset] = 1
    return found


def within(x: Real, *, k: int = 0, subsets: Real | None = None, block: int = _BLOCK) -> Within:
    """(N, d) points, N > k -> radii of `k` neighbours and kernel sums of `subsets` (s, N); nothing is done for what is not asked."""
    p = _ready(x, x.mean(axis=0, dtype=np.float64), _precision(x))
    nearest = _Nearest(len(x), min(k + _SPARE, len(x) - 1)) if k else None
    total = np.zeros(0 if subsets is None else len(subsets))

    def pass_over(places: tuple[slice, slice]) -> tuple[Array, list[Any]]:
        rows, columns = places
        D, sums, found = _product(p, rows, p, columns), total[:0], []
        if subsets is not None and len(subsets):
            sums = (1 if rows is columns else 2) * _kernel_sums(p, rows, p, columns, D, subsets, subsets)
        if nearest is not None:
            if rows is columns:
                np.fill_diagonal(D, -np.inf)
                found.append((rows, columns, *_largest(D, nearest.count)))
            else:
                i, j, values = _above(D, nearest.least[columns])
                found.append((columns, rows, j, i, values))
                found.append((rows, columns, *_above(D, nearest.least[rows, None])))
        return sums, found

    blocks = _blocks(len(x), block)
    # The blocks on the diagonal come first: they give each point some neighbours, which few points of other blocks outdo
    diagonal, rest = [(rows, rows) for rows in blocks], [(a, b) for i, a in enumerate(blocks) for b in blocks[i + 1 :]]
    with _threads() as each:
        for places in (diagonal, rest):
            for sums, offers in each(pass_over, places):
                total[: len(sums)] += sums
                for offer in offers:
                    nearest.offer(*offer)  # type: ignore[union-attr]
        radii = [] if nearest is None else list(each(lambda rows: nearest.radii(x, rows), blocks))
    return Within(np.concatenate(radii, axis=1)[:k] if radii else np.zeros((0, len(x))), total)


def across(
    x: Real, y: Real, *, balls: Balls | None = None, subsets: tuple[Real, Real] | None = None, block: int = _BLOCK
) -> Across:
    """(N, d), (M, d) points -> who lies in whose of the `balls`, rims included, and kernel sums of `subsets` (s, N), (s, M)."""
    centre, dtype = x.mean(axis=0, dtype=np.float64), _precision(x, y)
    p, q = _ready(x, centre, dtype), _ready(y, centre, dtype)
    total, counted = np.zeros(0 if subsets is None else len(subsets[0])), 0
    inside, covered, recalled = np.zeros(len(y), bool), np.zeros(len(x), bool), np.zeros(len(x), bool)

    def pass_over(places: tuple[slice, slice]) -> tuple[Array, int]:
        rows, columns = places
        D, sums, count = _product(p, rows, q, columns), total[:0], 0
        if subsets is not None and len(subsets[0]):
            sums = _kernel_sums(p, rows, q, columns, D, *subsets)
        if balls is not None:
            i, j, (first, second) = _inside(p, rows, q, columns, D, (balls.first, balls.second), about_y=False)
            inside[j[first]] = True
            covered[i[second]] = True
            count = int(np.count_nonzero(second))
            i, _, (back,) = _inside(p, rows, q, columns, D, (balls.back,), about_y=True)
            recalled[i[back]] = True
        return sums, count

    with _threads() as each:
        for sums, count in each(pass_over, [(rows, columns) for rows in _blocks(len(x), block) for columns in _blocks(len(y), block)]):
            total[: len(sums)] += sums
            counted += count
    return Across(total, inside, covered, recalled, counted)


@contextmanager
def _threads() -> Iterator[Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]]:
    """``map`` over threads that each make products of their own.

    Threads within one product wait for each other at its end: on a core shared with others that was 10 times slower, and all that
    is not a product would leave the other cores idle.
    """
    count = max((found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"), default=1)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as pool:
        yield pool.map


class _Points(NamedTuple):
    """Points made ready for products."""

    x: Real
    """(N, d), float32 or float64."""
    z: Real
    """(N, d+2): (x - centre) / √d, minus half its squared length, 1."""
    offset: Real
    """(N,) ½ + |x|² / 2d: x·y / d + 1 = offset + offset - |x - y|² / 2d."""
    size: Array
    """(N,) |x - centre|²."""


def _precision(*sets: Real) -> type[np.floating]:
    """float32 where all are, and small enough."""
    small = (x.dtype == np.float32 and float(np.einsum("ij,ij->i", x, x).max()) < _LARGEST * x.shape[1] for x in sets)
    return np.float32 if all(small) else np.float64


def _ready(x: Real, centre: Array, dtype: type[np.floating]) -> _Points:
    d = x.shape[1]
    x = np.ascontiguousarray(x, dtype)
    z = np.empty((len(x), d + 2), dtype)
    np.subtract(x, centre.astype(dtype), out=z[:, :d])
    z[:, :d] *= d**-0.5
    half, offset = np.empty(len(x)), np.empty(len(x))
    for rows in _blocks(len(x), _BLOCK):
        half[rows] = (z[rows, :d].astype(np.float64) ** 2).sum(axis=1) / 2
        offset[rows] = 0.5 + (x[rows].astype(np.float64) ** 2).sum(axis=1) / (2 * d)
    z[:, d], z[:, d + 1] = -half, 1
    return _Points(x, z, offset.astype(dtype), 2 * d * half)


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _product(p: _Points, rows: slice, q: _Points, columns: slice) -> Real:
    """-|x - y|² / 2d of two blocks, (h, w)."""
    left = p.z[rows].copy()
    left[:, [-2, -1]] = left[:, [-1, -2]]
    return np.asarray(left @ q.z[columns].T)


def _kernel_sums(p: _Points, rows: slice, q: _Points, columns: slice, D: Real, of_x: Real, of_y: Real) -> Array:
    """Σ (x·y / d + 1)³ over each subset's pairs of different points in a block, (s,)."""
    base = D + p.offset[rows, None]
    base += q.offset[columns]
    K = base * base
    K *= base
    if p is q and rows is columns:
        np.fill_diagonal(K, 0)
    sums = of_x[:, rows] @ K
    sums *= of_y[:, columns]
    return np.asarray(sums.sum(axis=1, dtype=np.float64))


def _above(D: Real, least: Real) -> tuple[Indices, Indices, Real]:
    i, j = np.divmod(np.flatnonzero(least < D), D.shape[1])
    return i, j, D[i, j]


def _largest(D: Real, count: int) -> tuple[Indices, Indices, Real]:
    """The `count` largest products of each row that are finite."""
    count = min(count, D.shape[1])
    j = np.argpartition(D, D.shape[1] - count, axis=1)[:, D.shape[1] - count :].ravel()
    i = np.repeat(np.arange(len(D)), count)
    finite = D[i, j] > -np.inf
    return i[finite], j[finite], D[i, j][finite]


def _inside(
    p: _Points, rows: slice, q: _Points, columns: slice, D: Real, radii: tuple[Array, ...], *, about_y: bool
) -> tuple[Indices, Indices, list[NDArray[np.bool_]]]:
    """Pairs (i, j) of a block, and for each of some radii about x (or about y): in its ball or not. Those in none may be left out."""
    eps, scale = float(np.finfo(D.dtype).eps), -2.0 * p.x.shape[1]
    about, size, other = (columns, q.size, p.size[rows]) if about_y else (rows, p.size, q.size[columns])
    widest = np.max([radius[about] for radius in radii], axis=0)
    least = np.nextafter(((widest + _ROUNDING * eps * (size[about] + other.max())) / scale).astype(D.dtype), D.dtype.type(-np.inf))
    i, j, values = _above(D, least if about_y else least[:, None])
    i, j, d2 = i + rows.start, j + columns.start, scale * values.astype(np.float64)
    limits = [radius[j if about_y else i] * (1 + _RIM) for radius in radii]
    slack = _ROUNDING * eps * (p.size[i] + q.size[j])
    unsure = np.any([np.abs(d2 - limit) <= slack for limit in limits], axis=0)
    d2[unsure] = _squared(p.x, i[unsure], q.x, j[unsure])
    return i, j, [d2 <= limit for limit in limits]


def _squared(x: Real, i: Indices, y: Real, j: Indices) -> Array:
    """|x_i - y_j|² (n,) by their difference."""
    found = np.empty(len(i))
    for start in range(0, len(i), _BLOCK):
        some = slice(start, start + _BLOCK)
        gap = x[i[some]].astype(np.float64) - y[j[some]]
        found[some] = np.einsum("ij,ij->i", gap, gap)
    return found


class _Nearest:
    """Of each point the others with the largest products, as far as they have been offered."""

    def __init__(self, n: int, count: int) -> None:
        self.count = count
        self._values = np.full((n, count), -np.inf)
        self._others = np.zeros((n, count), np.int64)
        self.least = np.full(n, -np.inf)
        """(n,) the product that another must exceed to be among them; it only grows, so threads may read an old one."""

    def offer(self, points: slice, others: slice, i: Indices, j: Indices, values: Real) -> None:
        """Products of the i-th of `points` with the j-th of `others`, in any order."""
        order = np.argsort(i, kind="stable")
        touched, first, counts = np.unique(i[order], return_index=True, return_counts=True)
        count = self.count
        shape = len(touched), count + int(counts.max(initial=0))
        merged, index = np.full(shape, -np.inf), np.zeros(shape, np.int64)
        touched += points.start
        merged[:, :count], index[:, :count] = self._values[touched], self._others[touched]
        row, column = np.repeat(np.arange(len(touched)), counts), count + np.arange(len(i)) - np.repeat(first, counts)
        merged[row, column], index[row, column] = values[order], j[order] + others.start
        keep = np.argpartition(merged, shape[1] - count, axis=1)[:, shape[1] - count :]
        self._values[touched] = np.take_along_axis(merged, keep, axis=1)
        self._others[touched] = np.take_along_axis(index, keep, axis=1)
        self.least[touched] = self._values[touched].min(axis=1)

    def radii(self, x: Real, points: slice) -> Array:
        """(count, h) squared distances of these points, ascending, by their differences."""
        h = points.stop - points.start
        d2 = _squared(x, np.repeat(np.arange(points.start, points.stop), self.count), x, self._others[points].ravel())
        return np.ascontiguousarray(np.sort(d2.reshape(h, self.count), axis=1).T)
