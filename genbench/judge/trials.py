"""What one person is asked, in which order: drawn from a seed of their own, before they begin."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from genbench.judge.study import REAL, Study


@dataclass(frozen=True)
class Trial:
    """One question. Pictures are named by their keys (`Study.pictures`)."""

    number: int
    """0, 1, … in the order of asking."""
    left: str
    """The only picture of real-or-fake."""
    right: str = ""
    repeats: int | None = None
    """Number of the trial that it asks a second time: for consistency, never for a rate."""

    @property
    def pictures(self) -> tuple[str, ...]:
        """Keys of what is shown, from left to right."""
        return (self.left, self.right) if self.right else (self.left,)


def owner(picture: str) -> str:
    """The key of a picture -> ``real`` or the row it is of."""
    return picture.partition("/")[0]


def plan(study: Study, seed: int) -> list[Trial]:
    """A study and a person's seed -> their trials.

    Real-or-fake: half real images, fakes of all models in shares that differ by one at most. Which-is-better: every pair of models
    equally often (within one), each model as often left as right. No picture twice, but for the repeats, a tenth as many as there are
    trials: drawn from the first 60 %, at least a tenth of the trials later, pairs with their sides swapped.
    """
    rng = random.Random(seed)
    first = _singles(study, rng) if study.mode == "real-or-fake" else _pairs(study, rng)
    again = _again(study, first, rng)
    gap, count = max(1, study.trials // 10), len(first)
    placed: list[tuple[float, int, int | None]] = [(float(at), at, None) for at in range(count)]
    placed += [(rng.uniform(at + gap, count), at, at) for at in again]
    placed.sort(key=lambda one: one[0])
    number = {at: position for position, (_, at, repeated) in enumerate(placed) if repeated is None}
    trials = []
    for position, (_, at, repeated) in enumerate(placed):
        left, right = first[at]
        if repeated is not None and right:
            left, right = right, left
        trials.append(Trial(position, left, right, None if repeated is None else number[at]))
    return trials


def alike(before: str, after: str, *, pair: bool) -> bool:
    """Whether two answers to the same question agree; pairs come the second time with their sides swapped."""
    return after == ({"left": "right", "right": "left"}.get(before, before) if pair else before)


def _singles(study: Study, rng: random.Random) -> list[tuple[str, str]]:
    half = study.trials // 2
    rows = [entrant.row for entrant in study.entrants]
    chosen = rng.sample(study.pictures[REAL], half)
    for row, share in zip(rows, _shares(half, len(rows), rng), strict=True):
        chosen += rng.sample(study.pictures[row], share)
    rng.shuffle(chosen)
    return [(picture, "") for picture in chosen]


def _pairs(study: Study, rng: random.Random) -> list[tuple[str, str]]:
    meetings = list(itertools.combinations([entrant.row for entrant in study.entrants], 2))
    drawn = []
    for meeting, share in zip(meetings, _shares(study.trials, len(meetings), rng), strict=True):
        turned = rng.randrange(2)
        drawn += [meeting if (at + turned) % 2 else meeting[::-1] for at in range(share)]
    rng.shuffle(drawn)
    heaps = {row: rng.sample(pictures, len(pictures)) for row, pictures in study.pictures.items()}
    return [(_next(heaps, left, study, rng), _next(heaps, right, study, rng)) for left, right in drawn]


def _next(heaps: dict[str, list[str]], row: str, study: Study, rng: random.Random) -> str:
    """A picture of a row that the person has not seen; all over again where the shares came out so that there is none left."""
    if not heaps[row]:
        heaps[row] = rng.sample(study.pictures[row], len(study.pictures[row]))
    return heaps[row].pop()


def _again(study: Study, first: Sequence[tuple[str, str]], rng: random.Random) -> list[int]:
    """Positions to be asked again; of real-or-fake half real, half fake."""
    early = range(int(0.6 * len(first)))
    if study.mode == "which-is-better":
        return rng.sample(early, study.repeats)
    real = [at for at in early if owner(first[at][0]) == REAL]
    fake = [at for at in early if owner(first[at][0]) != REAL]
    reals = min(study.repeats // 2, len(real))
    fakes = min(study.repeats - reals, len(fake))
    return rng.sample(real, reals) + rng.sample(fake, fakes)


def _shares(total: int, parts: int, rng: random.Random) -> list[int]:
    """A total in parts that differ by one at most; who gets the one more is drawn."""
    shares = [total // parts + (at < total % parts) for at in range(parts)]
    rng.shuffle(shares)
    return shares
