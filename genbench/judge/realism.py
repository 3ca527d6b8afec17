"""Real or fake: error rates and d′ with intervals that hold for other people and other images, not for these alone.

Zhou et al., HYPE, NeurIPS 2019, arXiv:1904.01121: HYPE∞ is the share of images that people misjudge, half of them real, without a
limit of time; 50 % means that fakes can't be told. d′ as in Macmillan & Creelman, with the log-linear correction of Hautus 1995.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""(..., 4) sums -> (...,): a number of `FAKES, FOOLED, REALS, DOUBTED`."""
FAKES, FOOLED, REALS, DOUBTED = range(4)
"""Columns of sums: fakes shown, of them taken for real, real images shown, of them taken for fakes."""
BOOTSTRAPS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Answers:
    """First showings of one model's fakes and of the real images, a line an answer."""

    person: NDArray[np.int64]
    """(n,) 0 … people-1."""
    image: NDArray[np.int64]
    """(n,) 0 … images-1."""
    fake: NDArray[np.bool_]
    """(n,) whether it was generated."""
    wrong: NDArray[np.bool_]
    """(n,) whether it was taken for the other."""

    def sums(self, by: NDArray[np.int64] | None = None) -> Floats:
        """Counts over all answers (4,), or over each group that `by` numbers: (groups, 4)."""
        line = np.stack([self.fake, self.fake & self.wrong, ~self.fake, ~self.fake & self.wrong], axis=-1).astype(np.float64)
        if by is None:
            return np.asarray(line.sum(0))
        found = np.zeros((int(by.max(initial=-1)) + 1, 4))
        np.add.at(found, by, line)
        return found


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def fakes_error(sums: Floats) -> Floats:
    """Share of fakes taken for real."""
    return np.asarray(sums[..., FOOLED] / np.maximum(sums[..., FAKES], 1))


def reals_error(sums: Floats) -> Floats:
    """Share of real images taken for fakes."""
    return np.asarray(sums[..., DOUBTED] / np.maximum(sums[..., REALS], 1))


def hype(sums: Floats) -> Floats:
    """HYPE∞: both errors at equal weight; 0.5 where nobody can tell, above it where fakes look more real than real images."""
    return (fakes_error(sums) + reals_error(sums)) / 2


def d_prime(sums: Floats) -> Floats:
    """z(fakes called fake) − z(real images called fake), each (count + 1/2) / (shown + 1); 0 where nobody can tell."""
    hits = (sums[..., FAKES] - sums[..., FOOLED] + 0.5) / (sums[..., FAKES] + 1)
    alarms = (sums[..., DOUBTED] + 0.5) / (sums[..., REALS] + 1)
    return np.asarray(special.ndtri(hits) - special.ndtri(alarms))


def variance(answers: Answers, statistic: Statistic, seed: int = 0, bootstraps: int = BOOTSTRAPS) -> float:
    """Of a statistic over other people and other images, by two-way bootstrap.

    V(people resampled) + V(images resampled) − V(answers resampled): Cameron, Gelbach & Miller 2011, eq. 2.13, and no less than either of
    the first. Resampling both at once counts the noise of a single answer three times (Owen 2007): intervals 1.7 times too wide here.
    """
    rng = np.random.default_rng(seed)
    people, images, answer = (
        _resampled(sums, statistic, rng, bootstraps)
        for sums in (answers.sums(answers.person), answers.sums(answers.image), answers.sums(np.arange(len(answers.person))))
    )
    return max(people, images, people + images - answer)


def _resampled(sums: Floats, statistic: Statistic, rng: np.random.Generator, bootstraps: int) -> float:
    """Variance of the statistic when the groups are drawn with replacement; equal groups are drawn together."""
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    groups = int(counts.sum())
    drawn = rng.multinomial(groups, counts / groups, size=bootstraps).astype(np.float64)
    values = statistic(drawn @ kinds)
    return float(values.var(ddof=1)) * groups / max(groups - 1, 1)


def rate(answers: Answers, statistic: Statistic, seed: int = 0) -> Estimate:
    """A rate with the interval of Korn & Graubard 1998: Clopper and Pearson's at the number of independent answers that the bootstrap's
    variance is worth, which t quantiles of few people make smaller still. It holds at 0 and 1 too, and for one person alone."""
    value = float(statistic(answers.sums()))
    people, shown = len(np.unique(answers.person)), len(answers.person)
    effective = _worth(answers)
    if 0 < value < 1:
        spread = variance(answers, statistic, seed)
        effective = min(effective, value * (1 - value) / spread) if spread > 0 else effective
    effective *= (t_quantile(max(shown - 1, 1)) / t_quantile(max(people - 1, 1))) ** 2
    return Estimate(value, *clopper_pearson(value * effective, effective))


def _worth(answers: Answers) -> float:
    """How many answers of one kind a mean of two rates is worth at most: few fakes beside many real images are few."""
    fakes = int(answers.fake.sum())
    reals = len(answers.fake) - fakes
    return 4 / (1 / fakes + 1 / reals) if fakes and reals else float(len(answers.fake))


def real_number(answers: Answers, statistic: Statistic, seed: int = 0) -> Estimate:
    """A statistic without bounds, ± t quantile of people less one x its standard error by `variance`."""
    value = float(statistic(answers.sums()))
    people = len(np.unique(answers.person))
    half = t_quantile(max(people - 1, 1)) * variance(answers, statistic, seed) ** 0.5
    return Estimate(value, value - half, value + half)


def clopper_pearson(successes: float, trials: float) -> tuple[float, float]:
    """Exact 95 % interval of a rate; numbers need not be whole."""
    tail = (1 - LEVEL) / 2
    low = float(special.betaincinv(successes, trials - successes + 1, tail)) if successes > 0 else 0.0
    high = float(special.betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return low, high


def t_quantile(df: float) -> float:
    """Of Student's t, two-sided 95 %."""
    return float(special.stdtrit(df, (1 + LEVEL) / 2))


def of_model(answers: Answers, which: Sequence[bool] | NDArray[np.bool_]) -> Answers:
    """The answers that `which` marks, people and images numbered anew."""
    kept = np.asarray(which, bool)
    return Answers(
        np.unique(answers.person[kept], return_inverse=True)[1].reshape(-1),
        np.unique(answers.image[kept], return_inverse=True)[1].reshape(-1),
        answers.fake[kept], answers.wrong[kept],
    )  # fmt: skip
