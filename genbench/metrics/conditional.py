"""Conditional models: whether an image is of the class asked for, and how the images of each class compare with real ones.

Label agreement: the accuracy of a classifier of real images on generated ones, as in Ravuri & Vinyals, "Classification Accuracy
Score for Conditional Generative Models", NeurIPS 2019, arXiv:1905.10887, section 2 (there trained on generated images and tested
on real ones; here the other way round, which needs no training). Intra-class FID: Miyato & Koyama, "cGANs with Projection
Discriminator", ICLR 2018, arXiv:1802.05637, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from genbench.metrics import Evidence, Measurement
from genbench.metrics.fid import frechet, moments
from genbench.seeds import stream

Labels = NDArray[np.int64]


def label_agreement(logits: NDArray[np.floating], labels: Labels) -> float:
    """(N, K) logits of a classifier, (N,) labels asked for -> share of images whose largest logit is theirs; higher is better."""
    return float((logits.argmax(axis=1) == labels).mean())


def wilson(share: float, n: int) -> tuple[float, float]:
    """A share of n independent images -> its 95 % interval. Wilson, JASA 1927, doi:10.1080/01621459.1927.10502953."""
    z = 1.959963984540054
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at shares of 0 and 1 an end is the share itself, but for rounding
    return min(share, (middle - half) / (1 + z * z / n)), max(share, (middle + half) / (1 + z * z / n))


def intra_fid(
    fake: NDArray[np.floating], fake_labels: Labels, real: NDArray[np.floating], real_labels: Labels, *, seed: int
) -> dict[int, tuple[float, int]]:
    """(N, d) and (M, d) features with their labels -> class: (FID between its generated and its real images, images of either).

    Lower is better; the mean over classes is the intra-FID. Of the larger side a seeded random subset as large as the other is
    taken: FID is biased by the number of images. Classes with fewer than 2 images on a side are left out.
    """
    found = {}
    for label in np.unique(real_labels):
        sides = [features[labels == label] for features, labels in ((fake, fake_labels), (real, real_labels))]
        n = min(map(len, sides))
        if n < 2:
            continue
        rng = np.random.default_rng(stream(seed, f"class {label}"))
        equal = [side[np.sort(rng.permutation(len(side))[:n])] if len(side) > n else side for side in sides]
        (mu_1, S_1, _), (mu_2, S_2, _) = (moments([side]) for side in equal)
        found[int(label)] = (frechet(mu_1, S_1, mu_2, S_2), n)
    return found


def compute(evidence: Evidence) -> Iterator[Measurement]:
    """The hook of this module's metric."""
    asked, real = evidence.asked, evidence.real
    assert asked is not None
    assert asked.labels is not None
    assert real.labels is not None
    n = len(asked.images)
    logits = asked.logits if evidence.labels_named else None
    if logits is None:
        yield Measurement("label_agreement", None, "higher", n_fake=n, note="the extractor does not name the dataset's classes")
    else:
        share = label_agreement(logits, asked.labels)
        yield Measurement("label_agreement", share, "higher", "", wilson(share, n), n_fake=n)
    classes = intra_fid(asked.features, asked.labels, real.features, real.labels, seed=evidence.seed)
    everywhere = len(np.unique(real.labels))
    if len(classes) < everywhere:
        note = f"{everywhere - len(classes)} of {everywhere} classes have fewer than 2 images"
        yield Measurement("intra_fid", None, "lower", n_fake=n, note=note)
        return
    values, counts = zip(*classes.values(), strict=True)
    worst = max(classes, key=lambda label: classes[label][0])
    few, many = min(counts), max(counts)
    note = f"{few}{'' if few == many else f'–{many}'} images a class, worst: class {worst} with {classes[worst][0]:.4g}"
    yield Measurement("intra_fid", float(np.mean(values)), "lower", n_real=sum(counts), n_fake=sum(counts), note=note)
