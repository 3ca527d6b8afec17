"""Kernel distance: squared maximum mean discrepancy of features under a cubic kernel, unbiased.

Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, arXiv:1801.01401, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from genbench.metrics import Evidence, Measurement

_BLOCK = 1024
"""Rows and columns of the kernel matrix at a time: the fastest of 256, 512 and 1024."""


def subset_size(n_real: int, n_fake: int) -> int:
    """Images in a subset: 1000, or half of the smaller set."""
    return min(1000, min(n_real, n_fake) // 2)


def kid(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, seed: int, subsets: int = 100, size: int | None = None
) -> tuple[float, float]:
    """(N, d), (M, d) features -> mean and standard deviation over random subsets; lower is better, negatives are kept.

    `size` images a subset (default min(1000, N/2)), drawn without replacement from a seeded stream. Raises ValueError
    where a subset would hold fewer than two.
    """
    size = subset_size(len(real), len(fake)) if size is None else size
    if size < 2:
        raise ValueError(f"KID needs subsets of at least 2 images, got {size}")
    rng = np.random.default_rng(seed)
    drawn = [(rng.choice(len(real), size, replace=False), rng.choice(len(fake), size, replace=False)) for _ in range(subsets)]
    # One kernel matrix of all images serves every subset, unless the subsets together are the smaller work
    if (len(real) + len(fake)) ** 2 <= 6 * subsets * size**2:
        values = _of_subsets(real, fake, [r for r, _ in drawn], [f for _, f in drawn])
    else:
        values = np.array([mmd2(real[r], fake[f]) for r, f in drawn])
    return float(np.mean(values)), float(np.std(values))


def _of_subsets(
    real: NDArray[np.floating], fake: NDArray[np.floating], of_real: list[NDArray[np.int64]], of_fake: list[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """MMD² of each pair of subsets (s,), from one pass over the kernel matrix, blocks of which meet the subsets as 0/1 vectors."""
    X, Y = real.astype(np.float64), fake.astype(np.float64)
    x, y = _members(of_real, len(X)), _members(of_fake, len(Y))
    m, n = len(of_real[0]), len(of_fake[0])
    return _within(X, x) / (m * (m - 1)) + _within(Y, y) / (n * (n - 1)) - 2 * _across(X, x, Y, y) / (m * n)


def _members(subsets: list[NDArray[np.int64]], n: int) -> NDArray[np.float64]:
    """Subsets of range(n) -> (s, n) with 1 where a subset holds an image."""
    found = np.zeros((len(subsets), n))
    for row, subset in zip(found, subsets, strict=True):
        row[subset] = 1
    return found


def _within(x: NDArray[np.float64], members: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ k over ordered pairs of two different points of each subset, (s,); symmetric blocks are computed once."""
    total = np.zeros(len(members))
    for rows in _blocks(x):
        K = _kernel(x[rows], x[rows])
        np.fill_diagonal(K, 0)
        total += _quadratic(members[:, rows], K, members[:, rows])
        for columns in _blocks(x, rows.stop):
            total += 2 * _quadratic(members[:, rows], _kernel(x[rows], x[columns]), members[:, columns])
    return total


def _across(x: NDArray[np.float64], of_x: NDArray[np.float64], y: NDArray[np.float64], of_y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ k over pairs of a point of each subset of x and one of y's, (s,)."""
    total = np.zeros(len(of_x))
    for rows in _blocks(x):
        for columns in _blocks(y):
            total += _quadratic(of_x[:, rows], _kernel(x[rows], y[columns]), of_y[:, columns])
    return total


def _blocks(x: NDArray[np.float64], start: int = 0) -> list[slice]:
    return [slice(first, first + _BLOCK) for first in range(start, len(x), _BLOCK)]


def _quadratic(a: NDArray[np.float64], K: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(s, m), (m, n), (s, n) -> aᵀ K b of each row, (s,)."""
    return np.asarray(np.einsum("sj,sj->s", a @ K, b))


def mmd2(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """(m, d), (n, d) features -> unbiased MMD² under k(a, b) = (a·b/d + 1)³. Bińkowski et al. 2018, eq. 4."""
    X, Y = x.astype(np.float64), y.astype(np.float64)
    return _mean_kernel(X) + _mean_kernel(Y) - 2 * _kernel_sum(X, Y) / (len(X) * len(Y))


def _mean_kernel(x: NDArray[np.float64]) -> float:
    """Mean of k over pairs of two different points."""
    diagonal = (np.einsum("ij,ij->i", x, x) / x.shape[1] + 1) ** 3
    return (_kernel_sum(x, x) - float(diagonal.sum())) / (len(x) * (len(x) - 1))


def _kernel_sum(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(_kernel(x, y).sum())


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, d), (n, d) -> (m, n) of (a·b/d + 1)³."""
    base: NDArray[np.float64] = (x / x.shape[1]) @ y.T
    base += 1
    K = base * base
    K *= base
    return K


def compute(evidence: Evidence) -> Iterator[Measurement]:
    """The hook of this module's metric."""
    size = subset_size(len(evidence.real.images), len(evidence.fake.images))
    if size < 2:
        yield Measurement("kid", None, "lower", note="needs at least 4 images")
        return
    mean, spread = kid(evidence.real.features, evidence.fake.features, seed=evidence.seed)
    yield Measurement("kid", mean, "lower", note=f"± {spread:.3g} over 100 subsets of {size}")
