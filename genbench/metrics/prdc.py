"""Precision and recall, density and coverage: do real and generated features lie in each other's neighbourhoods?

Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019, arXiv:1904.06991,
eq. 1-2. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020, arXiv:2002.09797, eq. 4-5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genbench.metrics import Evidence, Measurement, pairs


class PRDC(NamedTuple):
    """All higher is better; for two samples of one distribution density expects 1 and coverage 1 - 2^-k or so (0.969 at k = 5)."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, k: int = pairs.K, k_density: int = pairs.K_DENSITY, block: int = 512
) -> PRDC:
    """(N, d), (M, d) features -> precision and recall with `k` neighbours, density and coverage with `k_density`.

    A point on the rim of a neighbourhood is inside (`<=`). Distances are taken in blocks of `block` points a side; no N x M matrix is
    kept. Raises ValueError where a set has too few points for its neighbours.
    """
    most = max(k, k_density)
    if min(len(real), len(fake)) <= most:
        raise ValueError(f"{most} neighbours need at least {most + 1} images in each set, got {len(real)} and {len(fake)}")
    radii, own = pairs.within(real, k=most, block=block).radii, pairs.within(fake, k=k, block=block).radii
    balls = pairs.Balls(radii[k - 1], radii[k_density - 1], own[k - 1])
    return _of(pairs.across(real, fake, balls=balls, block=block), k_density)


def _of(found: pairs.Across, k_density: int) -> PRDC:
    density = found.balls / (k_density * len(found.inside))
    return PRDC(float(found.inside.mean()), float(found.recalled.mean()), density, float(found.covered.mean()))


def compute(evidence: Evidence) -> Iterator[Measurement]:
    """The hook of this module's metric: real and generated images in equal numbers."""
    n = min(len(evidence.real.images), len(evidence.fake.images))
    if n <= pairs.K_DENSITY:
        for name in PRDC._fields:
            yield Measurement(name, None, "higher", note="needs at least 6 images")
        return
    found = pairs.of(evidence).across
    if found is None:
        raise ValueError("precision and recall were not asked for in this scoring")
    notes = {"density": "1 for a second real sample", "coverage": "0.969 for a second real sample"}
    for name, value in _of(found, pairs.K_DENSITY)._asdict().items():
        yield Measurement(name, value, "higher", n_real=n, n_fake=n, note=notes.get(name, ""))
