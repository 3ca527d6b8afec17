"""Memorisation: are generated images nearer to the training images than new images of the same distribution would be?

Shown, never ranked: each value is read beside its floor, the value of real images that no model trained on. Meehan, Chaudhuri &
Dasgupta, "A Non-Parametric Test to Detect Data-Copying in Generative Models", AISTATS 2020, arXiv:2004.05675. Alaa et al., "How
Faithful is your Synthetic Data?", ICML 2022, arXiv:2102.08921. Schilling, "Multivariate Two-Sample Tests Based on Nearest
Neighbors", JASA 1986.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from genbench.metrics import Evidence, ImageSet, Measurement
from genbench.metrics.fid import Gaussian, moments
from genbench.records import SplitName

Array = NDArray[np.float64]
Index = NDArray[np.int64]
MOST = 50_000
"""Images of a real split that neighbours are looked for among: all of them, or a seeded random subset of this size."""
CELL = 1000
"""Test images to a cell of C_T, on average; at most 10 cells."""
FEWEST = 20
"""Test and generated images below which a cell does not count in C_T: the normal approximation needs as many."""
_ROWS, _COLUMNS = 512, 4096
"""Block of squared distances at a time: 8 MB."""


class Neighbours(NamedTuple):
    """For each of N points, where its nearest neighbour in another set is (N,), and how far (N,)."""

    which: Index
    distance: Array


def exact_copies(fake: NDArray[np.uint8], train: NDArray[np.uint8]) -> float:
    """(N, C, H, W), (M, C, H, W) -> share of generated images that equal a training image byte for byte, in [0, 1]; lower is better."""
    return _share_in(fake, {_digest(image) for image in train})


def nn_ratio(to_train: Array, to_test: Array) -> float:
    """(N,) distances of generated images to the nearest of m training and of m test images -> median quotient.

    1 without copying, 0 for copies; above 1 says nothing. 0 / 0, an image that is in both, counts as 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = to_train / to_test
    return float(np.median(np.where((to_train == 0) & (to_test == 0), 1, ratios)))


def nn_excess(to_train: Neighbours, to_test: Neighbours) -> float:
    """Nearest of m training and of m test images -> (a - b) / √(a + b), where a training and b test images are some point's nearest of all.

    0 ± 1 without copying, far above it with copying. Schilling's test of train against test, seen from the generated images: either
    kind is as likely to be the nearest. Each neighbour counts once, so a collapsed model, with few of them, proves nothing.
    """
    a = len(np.unique(to_train.which[to_train.distance < to_test.distance]))
    b = len(np.unique(to_test.which[to_test.distance < to_train.distance]))
    return (a - b) / (a + b) ** 0.5 if a + b else 0.0


def ct(fake: Array, test: Array, fake_cells: Index, test_cells: Index) -> float:
    """C_T of distances to the nearest training image, (N,) of generated and (M,) of test images, and of the cells they are in.

    0 ± 1 / √cells without copying, << 0 where generated images are nearer to the training images than test images are, > 0 where
    they are farther. NaN where no cell holds enough of both. Meehan et al. 2020: Σ P(π) Z_U(π) / Σ P(π) over cells π, P the
    share of test images in a cell, Z_U the z-score of the Mann-Whitney U. Its size grows with √N.
    """
    total, weight = 0.0, 0
    for cell in np.unique(test_cells):
        g, t = fake[fake_cells == cell], test[test_cells == cell]
        if min(len(g), len(t)) >= FEWEST:
            total += len(t) * _z(g, t)
            weight += len(t)
    return total / weight if weight else np.nan


def auth_pct(to_train: Neighbours, spacing: Array) -> float:
    """Nearest training image t of each generated x, and (M,) `spacing(train)` -> % of x with d(x, t) above t's spacing, in [0, 100].

    0 for copies; what unseen images have depends on the dimension, hence the floor. Alaa et al. 2022, authenticity.
    """
    return float(100 * np.mean(to_train.distance > spacing[to_train.which]))


def fid_gap(fake: Gaussian, test: Gaussian, train: Gaussian) -> float:
    """Gaussians of generated features and of equally many test and training ones -> FID against test less FID against train.

    About 0 without memorisation, above it where generated images are nearer to train. A weak witness: random training images are not
    those that were copied, so it tells overfitting to the training set as a whole, not copying.
    """
    return fake.distance(test) - fake.distance(train)


def spacing(train: NDArray[np.floating]) -> Array:
    """(M, d) features, M >= 2 -> (M,) distance of each to its nearest other one."""
    return _nearest(train, train, same=True).distance


def nearest(x: NDArray[np.floating], y: NDArray[np.floating]) -> Neighbours:
    """(N, d), (M, d) features -> for each x its nearest y by Euclidean distance; no N x M matrix is kept."""
    return _nearest(x, y, same=False)


def _nearest(x: NDArray[np.floating], y: NDArray[np.floating], same: bool) -> Neighbours:
    """The search compares |y|² - 2 x·y in float32 about the mean of y; the distance to what it found is then taken exactly."""
    centre = y.mean(axis=0, dtype=np.float64)
    Y = (y - centre).astype(np.float32)
    # With |y|² as one more column the matrix product is all there is to compute
    Y = np.column_stack([Y, np.einsum("ij,ij->i", Y, Y, dtype=np.float64).astype(np.float32)])
    index, distance = np.empty(len(x), np.int64), np.empty(len(x))
    for start in range(0, len(x), _ROWS):
        exact = x[start : start + _ROWS].astype(np.float64)
        rows = np.arange(len(exact))
        X = np.column_stack([-2 * (exact - centre), np.ones(len(exact))]).astype(np.float32)
        best, found = np.full(len(exact), np.inf, np.float32), np.zeros(len(exact), np.int64)
        for first in range(0, len(Y), _COLUMNS):
            d2 = X @ Y[first : first + _COLUMNS].T
            if same:
                own = start - first + rows
                here = (own >= 0) & (own < d2.shape[1])
                d2[rows[here], own[here]] = np.inf
            column = d2.argmin(axis=1)
            least = d2[rows, column]
            nearer = least < best
            best[nearer], found[nearer] = least[nearer], first + column[nearer]
        index[start : start + _ROWS] = found
        distance[start : start + _ROWS] = np.linalg.norm(exact - y[found], axis=1)
    return Neighbours(index, distance)


def cell_centres(train: NDArray[np.floating], k: int, *, seed: int, rounds: int = 20) -> Array:
    """(M, d) features -> (k, d) centres of k cells, k <= M: k-means of at most 10 000 of them, started by k-means++."""
    rng = np.random.default_rng(seed)
    x = train[draw(len(train), 10_000)].astype(np.float64)
    centres = x[[rng.integers(len(x))]]
    while len(centres) < k:
        d2 = nearest(x, centres).distance ** 2
        p = d2 / d2.sum() if d2.sum() > 0 else None
        centres = np.concatenate([centres, x[[rng.choice(len(x), p=p)]]])
    for _ in range(rounds):
        cells = nearest(x, centres).which
        centres = np.stack([x[cells == i].mean(axis=0) if (cells == i).any() else centre for i, centre in enumerate(centres)])
    return centres


def draw(n: int, most: int) -> Index:
    """Indices of a seeded random `most` of n images, ascending; all of them where there are no more."""
    return np.sort(np.random.default_rng(0).permutation(n)[:most]) if n > most else np.arange(n)


def alarms(values: Mapping[str, float | None], floors: Mapping[str, float | None]) -> list[str]:
    """Measures by name, and those of as many unseen real images -> what a reader must be told: ``memorised: 100 % exact copies``.

    Copies: 1 % more than the unseen images have, which have none but where the data repeats itself. Near copies: three views must
    agree, since each alone has an innocent explanation (typical images lie near training images and test images alike; a collapsed
    model has one neighbour only): AuthPct below half its floor, C_T five standard errors below, and an excess of training over test
    neighbours six above its floor, where chance leaves the difference of two within ±√2.
    """
    found = []
    copies = values.get("exact_copies")
    if copies is not None and copies > (floors.get("exact_copies") or 0) + 0.01:
        found.append(f"memorised: {100 * copies:.0f} % exact copies")
    names = ("auth_pct", "ct", "nn_excess")
    (auth, c, excess), (auth_floor, c_floor, excess_floor) = ([by.get(name) for name in names] for by in (values, floors))
    if None in (auth, c, excess, auth_floor, c_floor, excess_floor):
        return found
    if auth < auth_floor / 2 and c < c_floor - 5 and excess > excess_floor + 6:  # type: ignore[operator]
        found.append("memorised: nearer to training than to test images")  # without numbers, which differ between seeds
    return found


class _Known(NamedTuple):
    """What follows from the real images alone."""

    train: NDArray[np.float32]
    test: NDArray[np.float32]
    m: int
    """Images of each split where they are compared on equal terms."""
    few: Index
    """(m,) of the training images, for that."""
    spacing: Array
    centres: Array
    test_cells: Index
    test_to_train: Array
    few_mean: Array
    few_covariance: Array


def compute(evidence: Evidence) -> Iterator[Measurement]:
    """The hook of this module's metric."""
    assert evidence.train is not None
    fake, n = evidence.fake, len(evidence.fake.images)
    copies = _share_in(fake.images, _digests(evidence, evidence.train))
    every = len(evidence.train.images)
    yield Measurement("exact_copies", copies, "lower", split="train", n_real=every, pixels_only=True)
    if evidence.test is None or n < 2:
        for name in ("nn_ratio", "nn_excess", "ct", "auth_pct", "fid_gap"):
            yield Measurement(name, None, "neither", split="train", note="needs test images and at least 2 generated ones")
        return
    real = _known(evidence, evidence.train, evidence.test)
    to_train = nearest(fake.features, real.train)
    to_few, to_test = nearest(fake.features, real.train[real.few]), nearest(fake.features, real.test[: real.m])
    equal = f"the nearest of {real.m} training against that of {real.m} test images"
    yield Measurement("nn_ratio", nn_ratio(to_few.distance, to_test.distance), "neither", split="train", n_real=real.m, note=equal)
    yield Measurement("nn_excess", nn_excess(to_few, to_test), "neither", "σ", split="train", n_real=real.m, note=equal)
    value = ct(to_train.distance, real.test_to_train, nearest(fake.features, real.centres).which, real.test_cells)
    note = f"cells: {len(real.centres)}" if np.isfinite(value) else f"no cell holds {FEWEST} test and {FEWEST} generated images"
    yield Measurement("ct", None if np.isnan(value) else value, "neither", "σ", split="train", n_real=len(real.train), note=note)
    yield Measurement("auth_pct", auth_pct(to_train, real.spacing), "neither", "%", split="train", n_real=len(real.train))
    mean, covariance, _ = evidence.test.moments if real.m == len(evidence.test.images) else moments([real.test[: real.m]])
    gap = fid_gap(Gaussian.of(*fake.moments[:2]), Gaussian.of(mean, covariance), Gaussian.of(real.few_mean, real.few_covariance))
    yield Measurement("fid_gap", gap, "neither", split="train", n_real=real.m, note=f"against {real.m} test less {real.m} training images")


def _known(evidence: Evidence, train: ImageSet, test: ImageSet) -> _Known:
    T, P = _features(evidence, "train", train), _features(evidence, "test", test)
    m = min(len(T), len(P))
    few = np.sort(np.random.default_rng(1).permutation(len(T))[:m])

    def compute() -> dict[str, NDArray[np.generic]]:
        centres = cell_centres(T, max(1, min(10, len(P) // CELL)), seed=0)
        mean, covariance, _ = moments([T[few]])
        return {
            "spacing": spacing(T), "centres": centres, "test_cells": nearest(P, centres).which, "test_to_train": nearest(P, T).distance,
            "few_mean": mean, "few_covariance": covariance,
        }  # fmt: skip

    known: Mapping[str, NDArray[np.generic]] = evidence.remember("training and test images", compute)
    return _Known(T, P, m, few, **known)  # type: ignore[arg-type]


def _features(evidence: Evidence, name: SplitName, split: ImageSet) -> NDArray[np.float32]:
    """(M, d) features of a split, or of a seeded random MOST of its images."""
    some = draw(len(split.images), MOST)
    if len(some) == len(split.images):
        return split.features
    kept = evidence.remember(f"features of {MOST} images of {name}", lambda: {"features": split.some(some).features})
    return kept["features"].astype(np.float32, copy=False)


def _digests(evidence: Evidence, train: ImageSet) -> set[bytes]:
    def compute() -> dict[str, NDArray[np.generic]]:
        return {"digests": np.frombuffer(b"".join(map(_digest, train.images)), np.uint8).reshape(-1, 16)}

    return {row.tobytes() for row in evidence.remember("digests of training images", compute)["digests"]}


def _share_in(images: NDArray[np.uint8], digests: set[bytes]) -> float:
    return sum(_digest(image) in digests for image in images) / len(images)


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _z(g: Array, t: Array) -> float:
    """Mann-Whitney U of g over t, as a z-score: negative where g's values are the smaller. Ties get their mean rank."""
    n, m = len(g), len(t)
    u = rankdata(np.concatenate([g, t]))[:n].sum() - n * (n + 1) / 2
    return float((u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5)
