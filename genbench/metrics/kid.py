"""Kernel distance: squared maximum mean discrepancy of features under a cubic kernel, unbiased.

Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, arXiv:1801.01401, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from genbench.metrics import Evidence, Measurement, pairs
from genbench.metrics.pairs import SUBSETS, subset_size

__all__ = ["compute", "kid", "mmd2", "subset_size"]


def kid(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, seed: int, subsets: int = SUBSETS, size: int | None = None
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
    # One pass over all pairs of images serves every subset, unless the subsets together are the smaller work
    if (len(real) + len(fake)) ** 2 <= 6 * subsets * size**2:
        values = _of_subsets(real, fake, pairs.members([r for r, _ in drawn], len(real)), pairs.members([f for _, f in drawn], len(fake)))
    else:
        values = np.array([mmd2(real[r], fake[f]) for r, f in drawn])
    return float(np.mean(values)), float(np.std(values))


def _of_subsets(
    real: NDArray[np.floating], fake: NDArray[np.floating], of_real: NDArray[np.floating], of_fake: NDArray[np.floating]
) -> NDArray[np.float64]:
    """MMD² of each pair of subsets, given as 0/1 rows (s, N), (s, M)."""
    between = pairs.across(real, fake, subsets=(of_real, of_fake)).kernel
    size = int(of_real[0].sum())
    return pairs.unbiased(pairs.within(real, subsets=of_real).kernel, pairs.within(fake, subsets=of_fake).kernel, between, size)


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
    """The hook of this module's metric: real and generated images in equal numbers."""
    n = min(len(evidence.real.images), len(evidence.fake.images))
    size = subset_size(n, n)
    if size < 2:
        yield Measurement("kid", None, "lower", note="needs at least 4 images")
        return
    values = pairs.of(evidence).mmd2
    if values is None:
        raise ValueError("KID was not asked for in this scoring")
    note = f"± {values.std():.3g} over {SUBSETS} subsets of {size}"
    yield Measurement("kid", float(values.mean()), "lower", n_real=n, n_fake=n, note=note)
