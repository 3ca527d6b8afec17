"""How many people and trials give which interval: simulated people, judged by the very code that reports on real ones."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genbench.errors import GenbenchError
from genbench.judge import preferences, realism
from genbench.judge.realism import Answers, Floats
from genbench.judgements import Mode

PEOPLE_SPREAD = 0.5
"""Standard deviation of people's log odds of a mistake about their mean, supposed."""
IMAGES_SPREAD = 0.8
"""… and of images'."""


@dataclass(frozen=True)
class Supposed:
    """What is taken for true in a simulation."""

    mode: Mode
    models: int
    """How many share a person's trials."""
    error: float = 0.3
    """Share of fakes and of real images that are misjudged."""
    ties: float = 0.2
    """Share of pairs that are called equal."""
    step: float = 0.4
    """Log odds between two models that follow each other in strength."""
    pool: int = 500


@dataclass(frozen=True)
class Expected:
    """What so many people and trials come to."""

    people: int
    trials: int
    half_width: float
    """Median half-width of the 95 % interval: of a model's HYPE∞, or of the share that prefers it."""
    coverage: float
    """Share of simulated studies whose intervals hold what was taken for true."""
    smallest: float
    """Difference between two models that intervals of this width tell apart with a probability of about 80 %."""


def expect(supposed: Supposed, people: int, trials: int, studies: int = 100, seed: int = 0) -> Expected:
    """Simulate studies -> the width of their intervals. Raises GenbenchError for what can't be."""
    if people < 2 or trials < 20 or studies < 2 or supposed.models < (2 if supposed.mode == "which-is-better" else 1):
        raise GenbenchError("judge plan: 2 people or more, 20 trials or more, one model or more (two for pairs)")
    if not 0 < supposed.error < 1 or not 0 <= supposed.ties < 1:
        raise GenbenchError(f"judge plan: --error {supposed.error:g} and --ties {supposed.ties:g} are shares between 0 and 1")
    rng = np.random.default_rng([seed, people, trials])
    one = _realism if supposed.mode == "real-or-fake" else _preferences
    halves, held = zip(*(one(supposed, people, trials, rng) for _ in range(studies)), strict=True)
    half = statistics.median(halves)
    # two independent intervals of half-width h: standard error of the difference sqrt(2) h / 1.96; 1.96 + 0.84 of them have power 0.8
    return Expected(people, trials, half, statistics.fmean(held), 2.8 * 2**0.5 * half / 1.96)


def _realism(supposed: Supposed, people: int, trials: int, rng: np.random.Generator) -> tuple[float, bool]:
    """One study -> half-width of a model's HYPE∞ and whether the interval holds the truth."""
    answers = simulated_answers(supposed, people, trials, rng)
    found = realism.rate(answers, realism.hype, seed=int(rng.integers(2**31)))
    return (found.high - found.low) / 2, found.low <= supposed.error <= found.high


def simulated_answers(supposed: Supposed, people: int, trials: int, rng: np.random.Generator) -> Answers:
    """What people of spread ability say of one model's fakes and of real images of spread difficulty."""
    reals, fakes = trials // 2, max(1, trials // 2 // supposed.models)
    ability = rng.normal(0, PEOPLE_SPREAD, people)
    difficulty = rng.normal(0, IMAGES_SPREAD, 2 * supposed.pool)
    base = _base(supposed.error)
    person = np.repeat(np.arange(people), reals + fakes)
    image = np.concatenate([
        np.concatenate([
            rng.choice(supposed.pool, min(reals, supposed.pool), replace=False),
            supposed.pool + rng.choice(supposed.pool, min(fakes, supposed.pool), replace=False),
        ])
        for _ in range(people)
    ])  # fmt: skip
    if len(image) != len(person):
        raise GenbenchError(f"judge plan: {trials} trials show more images than the {supposed.pool} of --images")
    chance = 1 / (1 + np.exp(-(base + ability[person] + difficulty[image])))
    wrong = rng.random(len(chance)) < chance
    _, numbered = np.unique(image, return_inverse=True)
    return Answers(person, numbered.reshape(-1), image >= supposed.pool, wrong)


def _base(error: float) -> float:
    """Log odds whose mean chance over people and images is `error`: by Gauss–Hermite quadrature and bisection."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    spread = (PEOPLE_SPREAD**2 + IMAGES_SPREAD**2) ** 0.5
    low, high = -20.0, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        mean = float((weights / (1 + np.exp(-(middle + spread * nodes)))).sum() / weights.sum())
        low, high = (middle, high) if mean < error else (low, middle)
    return (low + high) / 2


def _preferences(supposed: Supposed, people: int, trials: int, rng: np.random.Generator) -> tuple[float, bool]:
    """One study of models whose strengths are `step` apart -> mean half-width of their preferred shares, and whether all are held."""
    truth: Floats = (np.arange(supposed.models, dtype=np.float64) - (supposed.models - 1) / 2) * supposed.step
    cast = simulated_ballots(truth, people, trials, supposed.ties, rng)
    found = preferences.strengths(cast, seed=int(rng.integers(2**31)), bootstraps=100)
    # a share of ties pulls points towards a half: what is fitted is the truth of points, not of wins
    target = preferences.expected(preferences.bradley_terry(_points(truth, supposed.ties)))
    widths = [(one.preferred.high - one.preferred.low) / 2 for one in found]
    held = [one.preferred.low <= value <= one.preferred.high for one, value in zip(found, target, strict=True)]
    return statistics.fmean(widths), statistics.fmean(held)  # type: ignore[return-value]


def _points(truth: Floats, ties: float) -> Floats:
    """Expected points of the first against the second."""
    share = 1 / (1 + np.exp(truth[None] - truth[:, None]))
    return np.asarray((1 - ties) * share + ties / 2)


def simulated_ballots(truth: Floats, people: int, trials: int, ties: float, rng: np.random.Generator) -> preferences.Ballots:
    """What people say of pairs of models with these log strengths; people differ a little in what they like."""
    models = len(truth)
    pairs = list(itertools.combinations(range(models), 2))
    won, tied = np.zeros((people, models, models)), np.zeros((people, models, models))
    for person in range(people):
        taste = truth + rng.normal(0, PEOPLE_SPREAD / 2, models)
        share = [trials // len(pairs) + (at < trials % len(pairs)) for at in rng.permutation(len(pairs))]
        for (a, b), count in zip(pairs, share, strict=True):
            equal = rng.binomial(count, ties)
            wins = rng.binomial(count - equal, 1 / (1 + np.exp(taste[b] - taste[a])))
            won[person, a, b], won[person, b, a] = wins, count - equal - wins
            tied[person, a, b] = tied[person, b, a] = equal
    return preferences.Ballots(won, tied)


def table(supposed: Supposed, people: Sequence[int], trials: Sequence[int], studies: int) -> list[Expected]:
    """Every combination, people first."""
    return [expect(supposed, some, many, studies) for many in trials for some in people]
