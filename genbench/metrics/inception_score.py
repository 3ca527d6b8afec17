"""Inception Score: how sure a classifier is of each image, and how varied its answers are; and the share of images it is sure of.

Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from genbench.metrics import Evidence, Measurement

SURE = 0.95
"""Probability of one class above which an image counts as recognised."""


def inception_score(logits: NDArray[np.floating], *, seed: int, splits: int = 10) -> tuple[float, float]:
    """(N, K) logits -> mean and standard deviation over splits of exp E KL(p(y|x) ‖ p(y)), in [1, K]; higher is better.

    The images are shuffled first (seeded): splits of images sorted by class would score 1. Raises ValueError below one
    image a split.
    """
    if len(logits) < splits:
        raise ValueError(f"Inception Score in {splits} splits needs as many images, got {len(logits)}")
    shuffled = logits[np.random.default_rng(seed).permutation(len(logits))]
    return score_in_order(shuffled, splits)


def score_in_order(logits: NDArray[np.floating], splits: int) -> tuple[float, float]:
    """(N, K) logits, already shuffled -> mean and standard deviation of the score over consecutive splits."""
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    p = np.exp(log_p)
    edges = [i * len(p) // splits for i in range(splits + 1)]
    scores = []
    for start, stop in pairwise(edges):
        part, log_part = p[start:stop], log_p[start:stop]
        marginal = np.log(np.maximum(part.mean(axis=0), np.finfo(float).tiny))
        # p log p -> 0 where p is 0, though log p is -inf there
        divergence = np.where(part > 0, part * (np.where(part > 0, log_part, 0) - marginal), 0).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
    return float(np.mean(scores)), float(np.std(scores))


def recognised(logits: NDArray[np.floating]) -> float:
    """(N, K) logits -> share of images to which the classifier gives one class with a probability above `SURE`, in [0, 1].

    No measure of quality by itself: a classifier can be sure of anything, of noise too.
    """
    return float((log_softmax(logits.astype(np.float64), axis=1).max(axis=1) > np.log(SURE)).mean())


def compute(evidence: Evidence) -> Iterator[Measurement]:
    """The hook of this module's metric."""
    logits = evidence.fake.logits
    if logits is None:
        yield Measurement("is", None, "higher", note="the extractor is no classifier")
    elif len(logits) < 100:
        yield Measurement("is", None, "higher", note="needs at least 100 images")
    else:
        mean, spread = inception_score(logits, seed=evidence.seed)
        yield Measurement("is", mean, "higher", note=f"± {spread:.3g} over 10 splits")
    if logits is not None and len(logits) and evidence.labels_named:
        yield Measurement("recognised", recognised(logits), "neither")
