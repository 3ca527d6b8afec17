"""Statistical fidelity, measure by measure: moments, quantiles, distances, dependence, spectrum, classes, diversity of pixels.

One pass over the images makes a `Summary`; every measure is a function of the generated and the real summary. Pixels are
uint8; g stands for generated, r for real.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Array = NDArray[np.float64]
QUANTILES = (1, 5, 25, 50, 75, 95, 99)
"""Per cent."""
LUMINANCE = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of R, G, B."""
QUANTISATION_POWER = 1 / 12
"""Variance of rounding to a whole level."""
_POOLED = 16
_BLOCK = 500
_CONSTANT = 1e-9
"""Variance (levels²) below which a pixel is constant: one level in one of a million images is above it."""


@dataclass(frozen=True)
class Summary:
    """What the measures need of a set of N images with P pixel-channels; its size does not grow with N."""

    n: int
    counts: NDArray[np.int64]
    """(P, 256) images that have each level at each pixel-channel."""
    mean: Array
    """(Q,) of luminance (0-255) area-pooled to at most 16 x 16."""
    covariance: Array
    """(Q, Q) of the same."""
    spectrum: Array
    """(R,) mean power at radii 1 … ⌊H/2⌋, 0-255 scale."""
    distance: float
    """Mean Euclidean distance between two images, in levels."""
    digests: NDArray[np.uint64]
    """(D, 2) of the images that differ, sorted."""
    classes: NDArray[np.int64] | None = None
    """(K,) images a classifier puts in each class."""

    @property
    def duplicates(self) -> float:
        """Share of images that equal another one, all but one of each kind, in [0, 1]."""
        return 1 - len(self.digests) / self.n


def summarise(images: NDArray[np.uint8], classes: NDArray[np.int64] | None = None, *, chunk: int = 1000) -> Summary:
    """(N, C, H, W) uint8 images and, where a classifier names them, (K,) class counts -> Summary, in chunks of images.

    Raises ValueError below two images.
    """
    n, channels, height, width = images.shape
    if n < 2:
        raise ValueError(f"statistics need at least 2 images, got {n}")
    pixels = channels * height * width
    counts = np.zeros(pixels * 256, np.int64)
    offsets = np.arange(pixels, dtype=np.int64) * 256
    power = np.zeros(min(height, width) // 2)
    digests = []
    pooled = [area_weights(height, min(_POOLED, height)), area_weights(width, min(_POOLED, width))]
    total, gram = np.zeros(len(pooled[0]) * len(pooled[1])), np.zeros((len(pooled[0]) * len(pooled[1]),) * 2)
    for start in range(0, n, chunk):
        part = np.ascontiguousarray(images[start : start + chunk])
        counts += np.bincount((part.reshape(len(part), -1) + offsets).ravel(), minlength=len(counts))
        power += radial_power(part).sum(axis=0)
        flat = (pooled[0] @ luminance(part) @ pooled[1].T).reshape(len(part), -1) - 127.5  # a fixed shift: any chunking adds up
        total += flat.sum(axis=0)
        gram += flat.T @ flat
        digests += [hashlib.blake2b(image, digest_size=16).digest() for image in part]
    mean = total / n
    covariance = (gram - n * np.outer(mean, mean)) / (n - 1)
    distinct = np.unique(np.frombuffer(b"".join(digests), np.uint64).reshape(n, 2), axis=0)
    return Summary(n, counts.reshape(pixels, 256), mean + 127.5, covariance, power / n, mean_distance(images), distinct, classes)


def merge(a: Summary, b: Summary) -> Summary:
    """Summaries of two parts of a set, made anywhere -> that of the whole; `distance` stays that of pairs within a part.

    Covariances after Chan, Golub & LeVeque, "Algorithms for Computing the Sample Variance", American Statistician 1983, eq. 2.1.
    Raises ValueError where one part was classified and the other was not.
    """
    if (a.classes is None) != (b.classes is None):
        raise ValueError("one part has class counts, the other has none")
    n, gap = a.n + b.n, b.mean - a.mean
    scatter = (a.n - 1) * a.covariance + (b.n - 1) * b.covariance + (a.n * b.n / n) * np.outer(gap, gap)
    return Summary(
        n, a.counts + b.counts, (a.n * a.mean + b.n * b.mean) / n, scatter / (n - 1), (a.n * a.spectrum + b.n * b.spectrum) / n,
        (a.n * a.distance + b.n * b.distance) / n, np.unique(np.concatenate([a.digests, b.digests]), axis=0),
        None if a.classes is None or b.classes is None else a.classes + b.classes,
    )  # fmt: skip


def measure(g: Summary, r: Summary) -> dict[str, float]:
    """Generated and real summary -> every measure by name. All but `diversity` (1 is right) are better lower."""
    values = {
        "mean_gap": mean_gap(g, r),
        "variance_gap": variance_gap(g, r),
        "quantile_gap": quantile_gap(g, r),
        "w1": w1(g, r),
        "w1_pooled": w1_pooled(g, r),
        "ks": ks(g, r),
        "covariance": covariance(g, r),
        "correlation": correlation(g, r)[0],
        "spectrum_db": spectrum_db(g, r),
    }
    if g.classes is not None and r.classes is not None:
        values |= {"class_tv": class_tv(g.classes, r.classes), "class_kl": class_kl(g.classes, r.classes)}
    return values | {"diversity": diversity(g, r), "duplicates": g.duplicates}


def mean_gap(g: Summary, r: Summary) -> float:
    """1/(255 P) Σ |μ_g - μ_r|, in [0, 1]; lower is better."""
    return float(np.abs(_mean(g) - _mean(r)).mean() / 255)


def variance_gap(g: Summary, r: Summary) -> float:
    """1/P Σ |log((v_g + 1) / (v_r + 1))| with variances in levels²; lower is better."""
    return float(np.abs(np.log((_variance(g) + 1) / (_variance(r) + 1))).mean())


def quantile_gap(g: Summary, r: Summary) -> float:
    """Mean |Q_g - Q_r| / 255 over pixels and the 1 … 99 % quantiles (lower inverse CDF), in [0, 1]; lower is better."""
    return float(np.abs(_quantiles(g) - _quantiles(r)).mean() / 255)


def w1(g: Summary, r: Summary) -> float:
    """Wasserstein-1 of each pixel's levels, Σ_v |F_g(v) - F_r(v)|, mean over pixels / 255, in [0, 1]; lower is better."""
    return float(np.abs(_cdf(g.counts) - _cdf(r.counts)).sum(axis=1).mean() / 255)


def w1_pooled(g: Summary, r: Summary) -> float:
    """Wasserstein-1 of the levels of all pixels taken together, / 255, in [0, 1]; lower is better."""
    return float(np.abs(_cdf(g.counts.sum(axis=0)) - _cdf(r.counts.sum(axis=0))).sum() / 255)


def ks(g: Summary, r: Summary) -> float:
    """Kolmogorov-Smirnov distance of each pixel's levels, max_v |F_g(v) - F_r(v)|, mean over pixels; lower is better."""
    return float(np.abs(_cdf(g.counts) - _cdf(r.counts)).max(axis=1).mean())


def covariance(g: Summary, r: Summary) -> float:
    """‖S_g - S_r‖_F / ‖S_r‖_F of pooled luminance; lower is better. Where the real images do not vary: 0 if g's don't, else inf."""
    size, gap = np.linalg.norm(r.covariance), np.linalg.norm(g.covariance - r.covariance)
    return float(gap / size) if size > _CONSTANT else (0.0 if gap <= _CONSTANT else np.inf)


def correlation(g: Summary, r: Summary) -> tuple[float, int]:
    """RMS difference of off-diagonal correlations of pooled luminance, and how many pixels were masked; lower is better.

    Pixels that are constant in the real images are masked. One that only the generator keeps constant counts as
    uncorrelated with all others, so that a frozen generator gains nothing.
    """
    varies = np.diag(r.covariance) > _CONSTANT
    masked = int((~varies).sum())
    if varies.sum() < 2:
        return 0.0, masked
    gap = _correlations(g.covariance[np.ix_(varies, varies)]) - _correlations(r.covariance[np.ix_(varies, varies)])
    return float(np.sqrt((gap[~np.eye(len(gap), dtype=bool)] ** 2).mean())), masked


def spectrum_db(g: Summary, r: Summary) -> float:
    """RMS over radii of 10 log10((P_g + 1/12) / (P_r + 1/12)), in dB; lower is better."""
    return float(np.sqrt((spectrum_gap(g, r) ** 2).mean()))


def spectrum_gap(g: Summary, r: Summary) -> Array:
    """(R,) 10 log10((P_g + 1/12) / (P_r + 1/12)) at radii 1 … ⌊H/2⌋, in dB; 0 is right."""
    return np.asarray(10 * np.log10((g.spectrum + QUANTISATION_POWER) / (r.spectrum + QUANTISATION_POWER)))


def class_tv(g: NDArray[np.int64], r: NDArray[np.int64]) -> float:
    """(K,) class counts -> total variation ½ Σ |p_g - p_r|, in [0, 1]; lower is better."""
    return float(np.abs(g / g.sum() - r / r.sum()).sum() / 2)


def class_kl(g: NDArray[np.int64], r: NDArray[np.int64]) -> float:
    """(K,) class counts -> KL(p_g ‖ p_r) in nats; lower is better. A class unseen in r counts as half an image of it."""
    p, q = g / g.sum(), np.maximum(r, 0.5) / r.sum()
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


def diversity(g: Summary, r: Summary) -> float:
    """Mean distance between two generated images over that between two real ones; 1 is right, 0 is a constant."""
    return g.distance / r.distance if r.distance > 0 else (1.0 if g.distance == 0 else np.inf)


def mean_distance(images: NDArray[np.uint8]) -> float:
    """(N, ...) images -> mean Euclidean distance between two, over all pairs within seeded random blocks of at most 500 images.

    Every image takes part, so the value is about as steady as that over all pairs, at a cost linear in N.
    """
    total, pairs = 0.0, 0
    for block in np.array_split(np.random.default_rng(0).permutation(len(images)), -(-len(images) // _BLOCK)):
        x = images[np.sort(block)].reshape(len(block), -1).astype(np.float64)
        x -= x.mean(axis=0)
        squares = np.einsum("ij,ij->i", x, x)
        d2 = squares[:, None] + squares - 2 * x @ x.T
        d2[d2 < 0.5] = 0  # whole levels differ by at least 1 or not at all: what is below is rounding
        total += float(np.sqrt(d2).sum())
        pairs += len(x) * (len(x) - 1)
    return total / pairs


def luminance(images: NDArray[np.uint8]) -> Array:
    """(N, C, H, W) images, C 1 or 3 -> (N, H, W) on the 0-255 scale."""
    if images.shape[1] == 1:
        return images[:, 0].astype(np.float64)
    return np.asarray(np.tensordot(images.astype(np.float64), LUMINANCE, axes=(1, 0)))


def area_weights(n: int, m: int) -> Array:
    """(m, n) matrix that averages n pixels into m by the area each covers; rows sum to 1, m <= n."""
    edges = np.arange(m + 1) * n / m
    starts = np.arange(n)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.asarray(np.clip(overlap, 0, None) * (m / n))


def radial_power(images: NDArray[np.uint8]) -> Array:
    """(N, C, H, W) images -> (N, R) azimuthal mean of |FFT|²/(HW), mean over channels, at radii 1 … ⌊H/2⌋ cycles an image."""
    height, width = images.shape[2:]
    transformed = scipy.fft.rfft2(images.astype(np.float32), axes=(2, 3))
    power = (transformed.real**2 + transformed.imag**2).mean(axis=1, dtype=np.float64).reshape(len(images), -1)
    rows, columns = np.fft.fftfreq(height, 1 / height), np.arange(width // 2 + 1)
    radius = np.rint(np.hypot(rows[:, None], columns)).astype(int)
    # A real image's other half of the plane mirrors this one: every column counts twice but the first and, if W is even, the last
    twice = np.where((columns == 0) | (2 * columns == width), 1, 2) * np.ones((height, 1))
    rings = np.stack([np.where(radius == r, twice, 0).ravel() for r in range(1, min(height, width) // 2 + 1)])
    return np.asarray(power @ (rings / rings.sum(axis=1, keepdims=True)).T / (height * width))


def _correlations(S: Array) -> Array:
    scale = np.sqrt(np.clip(np.diag(S), 0, None))
    inverse = np.where(scale**2 > _CONSTANT, 1 / np.where(scale > 0, scale, 1), 0)
    return np.asarray(S * inverse[:, None] * inverse)


def _mean(s: Summary) -> Array:
    return np.asarray((s.counts @ np.arange(256)) / float(s.n), dtype=np.float64)


def _variance(s: Summary) -> Array:
    """Population variance of each pixel-channel, from exact integer sums."""
    levels = np.arange(256)
    first, second = s.counts @ levels, s.counts @ levels**2
    return np.asarray((s.n * second - first**2) / s.n**2)


def _quantiles(s: Summary) -> NDArray[np.int64]:
    """(P, 7) smallest level v with F(v) >= q."""
    cumulative = np.cumsum(s.counts, axis=1)
    ranks = [-(-q * s.n // 100) for q in QUANTILES]  # ⌈q n⌉ in whole numbers: no rounding of q n
    return np.stack([(cumulative < rank).sum(axis=1) for rank in ranks], axis=1)


def _cdf(counts: NDArray[np.int64]) -> Array:
    cumulative = np.cumsum(counts, axis=-1)
    return np.asarray(cumulative / cumulative[..., -1:])
