"""Fréchet distance between Gaussians fitted to features, exact at any rank, and its value at infinite N.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017,
arXiv:1706.08500, eq. 6. Chong & Forsyth, "Effectively Unbiased FID and Inception Score and where to find them", CVPR 2020,
arXiv:1911.07023.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import blas, lapack
from scipy.special import stdtrit

from genbench.metrics import Evidence, Measurement
from genbench.records import SplitName

Array = NDArray[np.float64]
_CHUNK = 2048
"""Rows converted to float64 at a time: bounds the memory of a pass over float32 features."""


class Moments:
    """Mean and covariance of a stream of features: float64 sums about the first chunk's mean, so that nothing cancels."""

    def __init__(self) -> None:
        self._shift: Array | None = None
        self._n = 0

    def update(self, features: NDArray[np.floating]) -> None:
        """Add (B, d) features. Raises ValueError where one is not finite."""
        for start in range(0, len(features), _CHUNK):
            self._add(features[start : start + _CHUNK])

    def _add(self, x: NDArray[np.floating]) -> None:
        if self._shift is None:
            self._shift = x.mean(axis=0, dtype=np.float64)
            self._sum = np.zeros(x.shape[1])
            self._gram = np.zeros((x.shape[1], x.shape[1]), order="F")
            self._chunk = np.empty((_CHUNK, x.shape[1]))
        with np.errstate(invalid="ignore"):  # infinity less infinity
            x = np.subtract(x, self._shift, out=self._chunk[: len(x)])  # float64 from here on, whatever came
            sums = x.sum(axis=0)
        if not np.isfinite(sums).all():  # one value that is not finite spoils the sum it is in
            raise ValueError("features hold values that are not finite")
        self._sum += sums
        self._gram = blas.dsyrk(1.0, x.T, beta=1.0, c=self._gram, overwrite_c=1)  # upper triangle: half the work
        self._n += len(x)

    def result(self) -> tuple[Array, Array, int]:
        """Mean (d,), covariance (d, d) with n-1, and n. Raises ValueError below two rows."""
        if self._shift is None or self._n < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self._n}")
        mean = self._sum / self._n
        S = blas.dsyr(-self._n, mean, a=self._gram)
        S *= 1 / (self._n - 1)
        _mirror(S)
        return self._shift + mean, S, self._n


def _mirror(S: Array, block: int = 256) -> None:
    """Copy the upper triangle of S (d, d) to the lower, in place, a block at a time: ten times as fast as by whole matrices."""
    for i in range(0, len(S), block):
        rows = slice(i, i + block)
        S[rows, rows] = np.triu(S[rows, rows]) + np.triu(S[rows, rows], 1).T
        S[i + block :, rows] = S[rows, i + block :].T


def moments(chunks: Iterable[NDArray[np.floating]]) -> tuple[Array, Array, int]:
    """Stream of (B, d) features -> mean (d,), covariance (d, d) with n-1, n; the chunking does not matter."""
    stream = Moments()
    for chunk in chunks:
        stream.update(chunk)
    return stream.result()


def factor(S: Array) -> Array:
    """Covariance (d, d) -> L (d, r) with L Lᵀ = S and r its numerical rank, by Cholesky, pivoted where S is singular.

    Works on the correlation matrix: a feature of small scale is then not mistaken for rounding noise.
    """
    d = len(S)
    scale = np.sqrt(np.clip(np.diag(S), 0, None))
    alive = scale > 0
    inverse = np.zeros(d)
    inverse[alive] = 1 / scale[alive]
    C = S.T * inverse  # in Fortran's order, in place from here on: at d = 2048 copies took longer than the factorisation
    C *= inverse[:, None]
    tolerance = d * np.finfo(float).eps
    L, info = lapack.dpotrf(C, lower=1, clean=1)
    # Rounding can leave a singular matrix with tiny positive pivots: their square roots would add 1e-8 each
    if info == 0 and np.diag(L).min() ** 2 > 4 * tolerance:
        L *= scale[:, None]
        return np.asarray(L)
    packed, pivots, rank, _ = lapack.dpstrf(C, lower=1, tol=tolerance)
    if not alive.any():
        return np.zeros((d, 0))
    L = np.zeros((d, rank))
    L[pivots - 1] = np.tril(packed)[:, :rank]
    return np.asarray(L * scale[:, None])


def trace_sqrt(L1: Array, L2: Array) -> float:
    """Factors of S1 and S2 -> tr (S1 S2)^½, the nuclear norm of L1ᵀ L2."""
    A = L1.T @ L2
    if min(A.shape) == 0:
        return 0.0
    if min(A.shape) > 32:  # eigenvalues of AᵀA cost a fraction of A's singular values, and are as good if A is well conditioned
        gram = blas.dsyrk(1.0, A, trans=int(A.shape[0] > A.shape[1]), lower=1)
        w = scipy.linalg.eigh(gram, lower=True, eigvals_only=True, driver="evr", overwrite_a=True, check_finite=False)
        if w[0] > 1e-9 * w[-1]:
            return float(np.sqrt(w).sum())
    return float(scipy.linalg.svdvals(A, check_finite=False).sum())


def frechet(mu1: Array, S1: Array, mu2: Array, S2: Array) -> float:
    """Moments of two Gaussians -> |μ1-μ2|² + tr(S1 + S2 - 2 (S1 S2)^½); lower is better. Heusel et al. 2017, eq. 6.

    Raises ValueError for moments that are not finite, ArithmeticError where rounding makes it clearly negative.
    """
    return Gaussian.of(mu1, S1).distance(Gaussian.of(mu2, S2))


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian with its covariance factored once, for distances to many others."""

    mu: Array
    trace: float
    L: Array

    @classmethod
    def of(cls, mu: Array, S: Array) -> Gaussian:
        """Mean (d,) and covariance (d, d) -> Gaussian."""
        if not (np.isfinite(mu).all() and np.isfinite(S).all()):
            raise ValueError("moments are not finite")
        return cls(mu, float(np.trace(S)), factor(S))

    def distance(self, other: Gaussian) -> float:
        """Fréchet distance; lower is better."""
        shift = self.mu - other.mu
        value = float(shift @ shift) + self.trace + other.trace - 2 * trace_sqrt(self.L, other.L)
        if value < -1e-6 * (self.trace + other.trace):
            raise ArithmeticError(f"Fréchet distance {value}: the covariances are not positive semidefinite")
        return value


@dataclass(frozen=True)
class Extrapolated:
    """FID with its value at infinite N; standard errors by delete-group jackknife over the generated images."""

    fid: float
    fid_se: float
    infinity: float
    infinity_se: float
    groups: int


def extrapolate(
    fake: NDArray[np.floating], reference: Gaussian, *, seed: int, groups: int = 12, infinity: bool = True
) -> Extrapolated:
    """(N, d) generated features against a reference -> FID at N and, by regression on 1/N, at infinity.

    The images are shuffled (seeded) and dealt into groups; the mean FID of all, of two halves and of three thirds is
    regressed on the mean 1/N. A jackknife replicate leaves one group out of the parts that hold it. That is 6 + 3 `groups`
    distances; without `infinity`, which is then NaN, 1 + `groups`. Raises ValueError below 6 images a group.
    """
    if len(fake) < 6 * groups:
        raise ValueError(f"FID at infinite N needs at least {6 * groups} images, got {len(fake)}")
    order = np.random.default_rng(seed).permutation(len(fake))
    shift = fake.mean(axis=0, dtype=np.float64)
    dealt = [_sums(fake[part], shift) for part in np.array_split(order, groups)]
    everyone = range(groups)
    parts = [list(everyone)] + [list(everyone[k::m]) for m in (2, 3) for k in range(m) if infinity]

    def score(members: list[int]) -> tuple[float, float]:
        n = sum(dealt[g][0] for g in members)
        mean = np.sum([dealt[g][1] for g in members], axis=0) / n
        gram = sum((dealt[g][2] for g in members), np.zeros_like(dealt[0][2]))
        S = (gram - n * np.outer(mean, mean)) / (n - 1)
        return 1 / n, Gaussian.of(shift + mean, S).distance(reference)

    points = [score(part) for part in parts]
    replicates = [[score([m for m in part if m != g]) if g in part else points[i] for i, part in enumerate(parts)] for g in everyone]
    at_infinity = (_intercept(points), _jackknife([_intercept(r) for r in replicates])) if infinity else (np.nan, np.nan)
    return Extrapolated(points[0][1], _jackknife([r[0][1] for r in replicates]), *at_infinity, groups)


def _sums(features: NDArray[np.floating], shift: Array) -> tuple[int, Array, Array]:
    x = features.astype(np.float64) - shift
    return len(x), x.sum(axis=0), x.T @ x


def _intercept(points: list[tuple[float, float]]) -> float:
    """(1/N, FID) of all, two halves, three thirds -> least-squares value at 1/N = 0.

    Through the three means, not the six points: a third that a replicate has thinned would pull the line towards itself,
    and the jackknife's error came out 2.7 times too large.
    """
    x, y = np.array([np.mean(points[:1], axis=0), np.mean(points[1:3], axis=0), np.mean(points[3:], axis=0)]).T
    slope = ((x - x.mean()) @ (y - y.mean())) / ((x - x.mean()) @ (x - x.mean()))
    return float(y.mean() - slope * x.mean())


def _jackknife(values: list[float]) -> float:
    """Delete-one-group replicates -> standard error."""
    v = np.array(values)
    return float(np.sqrt((len(v) - 1) / len(v) * ((v - v.mean()) ** 2).sum()))


def compute(evidence: Evidence) -> Iterator[Measurement]:
    """The hook of this module's metric."""
    other: SplitName = "test" if evidence.reference == "train" else "train"
    rest = evidence.test if other == "test" else evidence.train
    n = len(evidence.fake.images)
    if n < 2:
        for name in ("fid", *([] if rest is None else [f"fid_{other}"]), "fid_infinity"):
            yield Measurement(name, None, "lower", note="needs at least 2 images")
        return
    mu, S, _ = evidence.fake.moments
    fake = Gaussian.of(mu, S)
    reference = Gaussian.of(*evidence.real.moments[:2])
    fewest = max(72, 3 * (len(mu) + 1))  # below full rank in a third of the images FID does not go as 1/N
    more = extrapolate(evidence.fake.features, reference, seed=evidence.seed, infinity=n >= fewest) if n >= 72 else None
    value, interval = fake.distance(reference), None
    if more is not None:
        half = float(stdtrit(more.groups - 1, 0.975)) * more.fid_se
        interval = (value - half, value + half)
    note = "" if n > len(mu) else f"{n} images in {len(mu)} dimensions: singular covariance"
    yield Measurement("fid", value, "lower", interval=interval, note=note)
    if rest is not None:
        mu, S, n_rest = rest.moments
        yield Measurement(f"fid_{other}", fake.distance(Gaussian.of(mu, S)), "lower", split=other, n_real=n_rest)
    if more is None or n < fewest:
        yield Measurement("fid_infinity", None, "lower", note=f"needs at least {fewest} images")
        return
    half = float(stdtrit(more.groups - 1, 0.975)) * more.infinity_se
    yield Measurement("fid_infinity", more.infinity, "lower", interval=(more.infinity - half, more.infinity + half))
