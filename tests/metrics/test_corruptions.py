"""What each metric sees and what it must not: real images, ever more corrupted, through the shipped CNNs and the real scorer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import ndimage

from genbench.datasets import Split
from genbench.datasets.prepare import prepare, resolve
from genbench.extractors.builtin import builtin_extractors
from genbench.metrics import statistics
from genbench.metrics.builtin import builtin_metrics
from genbench.reference import split_of
from genbench.score import Scorer
from tests.metrics.test_golden import pictures

N = 400
METRICS = ("fid", "kid", "is", "prdc", "statistical_fidelity", "memorisation")
DISTANCES = "fid fid_train fid_infinity kid"
MARGINAL = "mean_gap variance_gap quantile_gap w1 ks"
PRDC = "precision recall density coverage"


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def levels(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def noise(x: np.ndarray, sigma: float) -> np.ndarray:
    return levels(x + sigma * rng().standard_normal(x.shape))


def blur(x: np.ndarray, share: float) -> np.ndarray:
    return levels((1 - share) * x + share * ndimage.gaussian_filter(x.astype(float), (0, 0, x.shape[-1] / 10, x.shape[-1] / 10)))


def salt_and_pepper(x: np.ndarray, share: float) -> np.ndarray:
    u = rng().random(x.shape)
    return np.where(u < share, np.where(u < share / 2, 0, 255), x).astype(np.uint8)


def darker(x: np.ndarray, share: float) -> np.ndarray:
    return levels(x * (1 - share))


def brighter(x: np.ndarray, by: float) -> np.ndarray:
    return levels(x + by)


def rolled(x: np.ndarray, eighths: float) -> np.ndarray:
    return np.roll(x, int(eighths * x.shape[-1] / 8), axis=3)


def duplicated(x: np.ndarray, share: float) -> np.ndarray:
    return x[np.arange(len(x)) % round(len(x) * (1 - share))]


def pixels_permuted(x: np.ndarray, share: float) -> np.ndarray:
    """The same for each image."""
    flat, order = x.reshape(len(x), -1).copy(), rng().permutation(x[0].size)
    some = order[: int(share * len(order))]
    flat[:, some] = flat[:, np.roll(some, 1)]
    return flat.reshape(x.shape)


def pixels_independent(x: np.ndarray, share: float) -> np.ndarray:
    """Each pixel dealt among the images by itself."""
    flat, r = x.reshape(len(x), -1).copy(), rng()
    for pixel in r.permutation(flat.shape[1])[: int(share * flat.shape[1])]:
        flat[:, pixel] = flat[r.permutation(len(x)), pixel]
    return flat.reshape(x.shape)


class Subject(NamedTuple):
    """A scorer, and real images that are not its reference: those of train in random order, with their classes, and held-out ones."""

    scorer: Scorer
    images: np.ndarray
    labels: np.ndarray
    unseen: np.ndarray

    def values(self, images: np.ndarray) -> dict[str, float]:
        return {score.name: score.value for score in self.scorer.score(images, 0)}


def each(corrupt: Callable[[np.ndarray, float], np.ndarray]) -> Callable[[Subject, float], np.ndarray]:
    return lambda real, amount: corrupt(real.images[:N], amount)


def classes_dropped(real: Subject, classes: float) -> np.ndarray:
    return real.images[real.labels >= classes][:N]


def copied(real: Subject, share: float) -> np.ndarray:
    """Unseen images, a share of them replaced by training images."""
    copies = int(share * len(real.unseen))
    return np.concatenate([real.unseen[copies:], real.images[:copies]])


class Claim(NamedTuple):
    """Metrics that must rise or fall from none to the last amount, those that stay about where they were, and those that can't move."""

    corrupt: Callable[[Subject, float], np.ndarray]
    amounts: tuple[float, ...]
    up: str
    down: str
    about: str = ""
    still: str = ""


CLAIMS = {
    "noise": Claim(  # scattered images have large neighbourhoods: recall does not fall at first
        each(noise), (40, 80, 160),
        up=f"{DISTANCES} mean_gap variance_gap quantile_gap w1 w1_pooled covariance correlation spectrum_db",
        down="is precision density coverage statistical_fidelity",
        still="duplicates",
    ),
    "blur": Claim(
        each(blur), (0.4, 0.7, 1),
        up=f"{DISTANCES} {MARGINAL} w1_pooled covariance correlation spectrum_db",
        down="coverage statistical_fidelity diversity",
        still="duplicates",
    ),
    "salt and pepper": Claim(
        each(salt_and_pepper), (0.1, 0.2, 0.4),
        up=f"{DISTANCES} {MARGINAL} w1_pooled covariance correlation spectrum_db diversity",
        down="is precision density coverage statistical_fidelity",
        still="duplicates",
    ),
    "darker": Claim(  # correlations have no scale
        each(darker), (0.2, 0.4, 0.6),
        up=f"{DISTANCES} {MARGINAL} w1_pooled covariance spectrum_db",
        down="recall coverage statistical_fidelity diversity",
        about="correlation",
        still="duplicates",
    ),
    "brighter": Claim(
        each(brighter), (20, 50, 100),
        up=f"{DISTANCES} {MARGINAL} w1_pooled covariance correlation spectrum_db class_tv class_kl",
        down=f"is {PRDC} statistical_fidelity diversity",
        still="duplicates",
    ),
    "rolled": Claim(  # around the edge: neither the levels nor the power of any wave change
        each(rolled), (1, 2, 3),
        up=f"{DISTANCES} {MARGINAL}",
        down=f"{PRDC} statistical_fidelity",
        still="w1_pooled spectrum_db diversity duplicates",
    ),
    "classes dropped": Claim(  # what is left is as good as before
        classes_dropped, (2, 4, 6),
        up=f"{DISTANCES} covariance correlation class_tv class_kl",
        down="is recall coverage statistical_fidelity",
        about="precision density diversity",
        still="duplicates",
    ),
    "duplicated": Claim(
        each(duplicated), (0.5, 0.75, 0.9),
        up="fid fid_train covariance correlation duplicates",
        down="recall coverage statistical_fidelity",
        about="precision diversity",
    ),
    "pixels permuted": Claim(
        each(pixels_permuted), (0.1, 0.3, 1),
        up=f"{DISTANCES} {MARGINAL} covariance correlation spectrum_db",
        down=f"is {PRDC} statistical_fidelity",
        still="w1_pooled diversity duplicates",
    ),
    "pixels independent": Claim(
        each(pixels_independent), (0.25, 0.5, 1),
        up=f"{DISTANCES} covariance correlation spectrum_db class_tv class_kl",
        down=f"is {PRDC} statistical_fidelity",
        about="diversity",
        still=f"{MARGINAL} w1_pooled duplicates",
    ),
    "copied": Claim(
        copied, (0.3, 0.6, 1),
        up="exact_copies nn_excess",
        down="ct auth_pct",
        about="recall coverage diversity",
        still="duplicates",
    ),
}  # fmt: skip


@cache
def subject(name: str) -> Subject:
    roots = [Path(path) for path in (os.environ.get("GENBENCH_DATA"), Path(__file__).parents[2].parent / "shared" / "data") if path]
    root = next((root for root in roots if (root / "MNIST" / "raw").is_dir()), None)
    if name == "mnist" and root is None:
        pytest.skip("MNIST is not here: neither under GENBENCH_DATA nor in ../shared/data")
    data = prepare(resolve(name), 8 if name == "digits" else 32, root or Path("."))
    parts = {"train": some(data.train, 1200), "holdout": some(data.holdout, N), "test": some(data.test, 500)}
    data = dataclasses.replace(data, digest=f"{data.digest}, some", **parts)
    extractor = next(spec for spec in builtin_extractors() if spec.name == f"{name}-cnn")
    metrics = [metric for metric in builtin_metrics() if metric.name in METRICS]
    shuffled = np.random.default_rng(1).permutation(len(data.train))
    scorer = Scorer(split_of(data), extractor, metrics, device=torch.device("cpu"))
    return Subject(scorer, data.train.images[shuffled], data.train.labels[shuffled], data.holdout.images)


def some(split: Split, n: int) -> Split:
    rows = np.sort(rng().permutation(len(split))[:n])
    return Split(np.ascontiguousarray(split.images[rows]), split.labels[rows])


@pytest.mark.parametrize("corruption", CLAIMS)
@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_growing_corruption(name: str, corruption: str) -> None:
    real, claim = subject(name), CLAIMS[corruption]
    runs = [real.values(claim.corrupt(real, amount)) for amount in (0, *claim.amounts)]
    wrong = []
    for kind in ("up", "down", "about", "still"):
        for metric in getattr(claim, kind).split():
            values = [run[metric] for run in runs]
            if not HOLDS[kind](values):
                wrong.append(f"{metric} is not {kind}: {values}")
    assert not wrong, "\n".join(wrong)


def rises(values: list[float]) -> bool:
    """By a tenth at least in all; a step back of 3 % of that is the noise of a value that can't go further."""
    span = values[-1] - values[0]
    return span > 0.1 * abs(values[0]) and all(b >= a - 0.03 * span for a, b in pairwise(values))


HOLDS: dict[str, Callable[[list[float]], bool]] = {
    "up": rises,
    "down": lambda values: rises([-v for v in values]),
    "about": lambda values: max(abs(v - values[0]) for v in values) <= 0.2 * values[0],
    "still": lambda values: max(abs(v - values[0]) for v in values) <= 1e-4 * abs(values[0]),
}


def test_every_metric_sees_something() -> None:
    seen = {metric for claim in CLAIMS.values() for metric in f"{claim.up} {claim.down}".split()}
    there = set(subject("digits").values(subject("digits").images[:N]))
    # of copies from 1200 images two say too little; and a classifier can be sure of noise
    assert seen == there - {"nn_ratio", "fid_gap", "recognised"}


def test_a_growing_tint() -> None:
    x = pictures(120, 3, 16)
    real = statistics.summarise(pictures(120, 3, 16, seed=1))
    runs = [statistics.measure(statistics.summarise(levels(x * [[[1 - t]], [[1.0]], [[1 + t]]])), real) for t in (0, 0.1, 0.2, 0.4)]
    for metric in ("mean_gap", "variance_gap", "quantile_gap", "w1", "ks", "spectrum_db"):
        assert HOLDS["up"]([run[metric] for run in runs]), metric
    # colours exchanged: what is pooled over channels sees nothing, nor does a spectrum averaged over them
    there, back = (statistics.measure(statistics.summarise(images), real) for images in (x, x[:, ::-1]))
    assert back["mean_gap"] > 3 * there["mean_gap"]
    for metric in ("w1_pooled", "spectrum_db", "diversity"):
        assert back[metric] == pytest.approx(there[metric], rel=1e-6), metric
