"""Which is better: Bradley–Terry strengths from votes on pairs, a tie as half a win for each side, with intervals over people.

Bradley & Terry 1952, fitted by evalica. Half a win each way between every two models keeps strengths finite where one never won.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genbench.judge.realism import BOOTSTRAPS, Estimate, t_quantile

Floats = NDArray[np.float64]
PRIOR = 0.5
"""Wins added each way between every two models."""
_TOLERANCE = 1e-12
_LIMIT = 100_000


@dataclass(frozen=True)
class Ballots:
    """Votes of every person as counts: `won` (people, models, models), how often the first was preferred to the second; `tied`
    (people, models, models), symmetric."""

    won: Floats
    tied: Floats

    @property
    def points(self) -> Floats:
        """(people, models, models): wins and half the ties of the first against the second."""
        return self.won + self.tied / 2


@dataclass(frozen=True)
class Strength:
    """How one model does against the others."""

    strength: Estimate
    """Natural logarithm of its odds against an average model; strengths sum to 0."""
    preferred: Estimate
    """Expected share of votes for it against the others, averaged over them, a tie as half: 0.5 is average."""


def bradley_terry(points: Floats, prior: float = 0.0) -> Floats:
    """(models, models) points of the first against the second -> (models,) log strengths with sum 0, of greatest likelihood.

    Without `prior` they are infinite, and the fit worthless, where some models never took a point from the others.
    """
    from evalica import Winner
    from evalica import bradley_terry as fit

    models = len(points)
    first, second = np.nonzero(~np.eye(models, dtype=bool))
    weights = (points + prior)[first, second]
    counted = weights > 0
    names = [[*map(int, of[counted])] for of in (first, second)]
    found = fit(
        names[0], names[1], [Winner.X] * len(names[0]), weights=[*map(float, weights[counted])], tolerance=_TOLERANCE, limit=_LIMIT
    ).scores
    logs = np.log(np.array([found[model] for model in range(models)], dtype=np.float64))
    return np.asarray(logs - logs.mean())


def expected(strengths: Floats) -> Floats:
    """(models,) log strengths -> (models,) expected share of points against the others."""
    against = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))
    models = len(strengths)
    return np.asarray((against.sum(1) - 0.5) / (models - 1))


def strengths(ballots: Ballots, seed: int = 0, bootstraps: int = BOOTSTRAPS // 4) -> list[Strength]:
    """Votes -> every model's strength with 95 % intervals: people drawn with replacement, ± t quantile of people less one x the
    bootstrap's standard error; shares on the scale of their log odds, so that they stay within 0 and 1. Of one person alone votes are
    drawn, with the quantile of two people: how far others would differ is not known."""
    people, models = ballots.won.shape[:2]
    points = ballots.points if people > 1 else single_votes(ballots)
    units = len(points)
    own = bradley_terry(points.sum(0), PRIOR)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(units, np.full(units, 1 / units), size=bootstraps).astype(np.float64)
    fits = np.stack([bradley_terry(np.tensordot(times, points, 1), PRIOR) for times in drawn])
    shares = np.stack([expected(one) for one in fits])
    wider = t_quantile(max(people - 1, 1)) * (units / max(units - 1, 1)) ** 0.5
    halves = wider * fits.std(0, ddof=1)
    odds = np.log(expected(own) / (1 - expected(own)))
    odds_halves = wider * np.log(shares / (1 - shares)).std(0, ddof=1)
    return [
        Strength(
            Estimate(float(own[at]), float(own[at] - halves[at]), float(own[at] + halves[at])),
            Estimate(_share(odds[at]), _share(odds[at] - odds_halves[at]), _share(odds[at] + odds_halves[at])),
        )
        for at in range(models)
    ]


def single_votes(ballots: Ballots) -> Floats:
    """All people's votes one by one -> (votes, models, models) points of each."""
    models = ballots.won.shape[1]
    found = []
    for first in range(models):
        for second in range(models):
            one = np.zeros((models, models))
            one[first, second] = 1
            found += [one] * int(ballots.won[:, first, second].sum())
            if first < second:
                found += [(one + one.T) / 2] * int(ballots.tied[:, first, second].sum())
    return np.stack(found)


def _share(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))


def ballots(votes: Sequence[tuple[int, int, int, str]], people: int, models: int) -> Ballots:
    """(person, left model, right model, ``left`` | ``right`` | ``tie``) of every vote -> Ballots."""
    won, tied = np.zeros((people, models, models)), np.zeros((people, models, models))
    for person, left, right, answer in votes:
        if answer == "tie":
            tied[person, left, right] += 1
            tied[person, right, left] += 1
        else:
            winner, loser = (left, right) if answer == "left" else (right, left)
            won[person, winner, loser] += 1
    return Ballots(won, tied)
