"""Precision and recall, density and coverage: do real and generated features lie in each other's neighbourhoods?

Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019, arXiv:1904.06991,
eq. 1-2. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020, arXiv:2002.09797, eq. 4-5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genbench.metrics import Evidence, Measurement

Array = NDArray[np.float64]


class PRDC(NamedTuple):
    """All higher is better; for two samples of one distribution density expects 1 and coverage 1 - 2^-k or so (0.969 at k = 5)."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, k: int = 3, k_density: int = 5, block: int = 512
) -> PRDC:
    """(N, d), (M, d) features -> precision and recall with `k` neighbours, density and coverage with `k_density`.

    A point on the rim of a neighbourhood is inside (`<=`). Distances are taken in blocks of `block` rows; no N x M matrix is
    kept. Raises ValueError where a set has too few points for its neighbours.
    """
    most = max(k, k_density)
    if min(len(real), len(fake)) <= most:
        raise ValueError(f"{most} neighbours need at least {most + 1} images in each set, got {len(real)} and {len(fake)}")
    centre = np.concatenate([real, fake]).mean(axis=0, dtype=np.float64)  # less cancellation in |x|² + |y|² - 2 x·y
    x, y = real.astype(np.float64) - centre, fake.astype(np.float64) - centre
    nx, ny = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
    real_k, real_density = _radii(x, nx, (k, k_density), block)
    (fake_k,) = _radii(y, ny, (k,), block)

    n = len(x)
    inside, balls = 0, 0
    recalled, covered = np.zeros(n, bool), np.zeros(n, bool)
    for start in range(0, len(y), block):
        rows = slice(start, start + block)
        d2 = _squared(y[rows], ny[rows], x, nx)
        inside += int((d2 <= real_k).any(axis=1).sum())
        hits = d2 <= real_density
        balls += int(np.count_nonzero(hits))
        covered |= hits.any(axis=0)
        recalled |= (d2 <= fake_k[rows, None]).any(axis=0)
    return PRDC(inside / len(y), float(recalled.mean()), balls / (k_density * len(y)), float(covered.mean()))


def _squared(x: Array, nx: Array, y: Array, ny: Array) -> Array:
    """Squared distances (n, m); |x|², |y|² are given."""
    d2 = (-2 * x) @ y.T
    d2 += nx[:, None]
    d2 += ny
    return d2


def _radii(x: Array, nx: Array, ks: tuple[int, ...], block: int) -> list[Array]:
    """For each k, the squared distance (N,) from each point to its k-th neighbour, itself not counted."""
    found = np.empty((len(ks), len(x)))
    for start in range(0, len(x), block):
        rows = slice(start, start + block)
        nearest = np.partition(_squared(x[rows], nx[rows], x, nx), max(ks), axis=1)[:, : max(ks) + 1]
        nearest.sort(axis=1)
        for i, k in enumerate(ks):
            found[i, rows] = nearest[:, k]  # place 0 is the point itself
    # Equal distances must compare equal although their Gram products round apart; float32 features are no finer than this
    return [r + 1e-12 * (nx + np.abs(r)) for r in found]


def compute(evidence: Evidence) -> Iterator[Measurement]:
    """The hook of this module's metric."""
    n = min(len(evidence.real.images), len(evidence.fake.images))
    if n < 6:
        for name in PRDC._fields:
            yield Measurement(name, None, "higher", note="needs at least 6 images")
        return
    rng = np.random.default_rng(evidence.seed)
    values = prdc(_some(evidence.real.features, n, rng), _some(evidence.fake.features, n, rng))
    notes = {"density": "1 for a second real sample", "coverage": "0.969 for a second real sample"}
    for name, value in values._asdict().items():
        yield Measurement(name, value, "higher", n_real=n, n_fake=n, note=notes.get(name, ""))


def _some(features: NDArray[np.float32], n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, d) -> (n, d), all of them or a random subset."""
    return features if len(features) == n else features[rng.choice(len(features), n, replace=False)]
