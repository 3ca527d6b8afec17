"""A study: everything that people are shown, fixed before the first of them comes; and which images that is.

A row of a table is shown by all its finished seeds in equal shares, as the table's mean is over them; the images are a seeded
random subset of each run's samples, and of the test split for real ones.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from pydantic import Field, ValidationError

from genbench.errors import GenbenchError
from genbench.judgements import Mode
from genbench.records import Part, strict_json
from genbench.seeds import stream
from genbench.track import short_hash

SCHEMA = 1
REPEATED = 0.1
"""Share of a person's trials that come a second time."""
BREAK_EVERY = 25
"""Trials between two offers of a break."""
FEWEST_TRIALS = 20
ANSWERS: dict[Mode, tuple[str, ...]] = {"real-or-fake": ("real", "fake"), "which-is-better": ("left", "right", "tie")}
REAL = "real"


class Shown(Part):
    """A run whose samples are shown."""

    seed: int = Field(ge=0)
    samples: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of its samples, as its record has it."""


class Entrant(Part):
    """A row of a table that takes part."""

    row: str = Field(pattern=r"^[0-9a-f]{8}$")
    label: str
    runs: tuple[Shown, ...] = Field(min_length=1, max_length=1000)


class Study(Part):
    """Who is judged on what, and how."""

    schema_version: int = SCHEMA
    mode: Mode
    track: str
    track_hash: str
    device_class: str
    dataset: str
    dataset_digest: str
    size: int = Field(ge=1, le=1024)
    channels: int
    num_real: int = Field(ge=1, le=10_000_000)
    """Images of the test split."""
    num_samples: int = Field(ge=1, le=10_000_000)
    """Samples of a run."""
    pool: int = Field(ge=1, le=100_000)
    """Different images of each entrant, and different real ones, that all people together may see at most."""
    trials: int = Field(ge=FEWEST_TRIALS, le=2000)
    exposure_ms: int | None = Field(None, ge=100, le=1000)
    entrants: tuple[Entrant, ...] = Field(min_length=1, max_length=200)

    @functools.cached_property
    def id(self) -> str:
        """Eight hex digits over all of it: equal studies, on whatever machine, may be merged."""
        return short_hash(self.model_dump(mode="json"))

    @property
    def repeats(self) -> int:
        """Trials of a person that come a second time."""
        return round(REPEATED * self.trials)

    @property
    def title(self) -> str:
        """``real-or-fake on mnist-60s, 250 ms``."""
        return f"{self.mode} on {self.track}" + (f", {self.exposure_ms} ms" if self.exposure_ms else "")

    @functools.cached_property
    def pictures(self) -> dict[str, tuple[str, ...]]:
        """``real`` and every row -> the keys of the images that may be shown: ``real/12``, ``<row>/<seed>/<index>``."""
        found: dict[str, tuple[str, ...]] = {}
        if self.mode == "real-or-fake":
            found[REAL] = tuple(f"{REAL}/{index}" for index in _subset("real", self.num_real, self.pool))
        for entrant in self.entrants:
            shares = [len(part) for part in np.array_split(np.arange(self.pool), len(entrant.runs))]
            found[entrant.row] = tuple(
                f"{entrant.row}/{run.seed}/{index}"
                for run, share in zip(entrant.runs, shares, strict=True)
                for index in _subset(run.samples, self.num_samples, share)
            )
        return found

    @functools.cached_property
    def every_picture(self) -> frozenset[str]:
        """The keys of all images that may be shown."""
        return frozenset(itertools.chain.from_iterable(self.pictures.values()))


def check(study: Study) -> Study:
    """The same study, where it can be carried out. Raises GenbenchError saying what to change."""
    models, trials = len(study.entrants), study.trials
    if study.mode == "which-is-better":
        if models < 2:
            raise GenbenchError(f"judge: {study.mode} compares models and got {models}; name two or more")
        if study.exposure_ms is not None:
            raise GenbenchError("judge: --exposure is for real-or-fake; pairs are looked at without a limit")
        needed = {entrant.row: -(-2 * trials // models) for entrant in study.entrants}
    else:
        needed = {REAL: trials // 2} | {entrant.row: -(-(trials // 2) // models) for entrant in study.entrants}
    if trials % 2:
        halves = "models stand left as often as right" if study.mode == "which-is-better" else "half of the images are real"
        raise GenbenchError(f"judge: --trials {trials} is odd; {halves}: an even number works")
    names = {entrant.row: entrant.label for entrant in study.entrants} | {REAL: "real images of the test split"}
    for key, count in needed.items():
        there = len(study.pictures[key])
        if there < count:
            most = trials * there // count // 2 * 2
            works = f"; --trials {most} works" if most >= FEWEST_TRIALS else ""
            raise GenbenchError(f"judge: {trials} trials show a person {count} different images of {names[key]}, there are {there}{works}")
    return study


def parse(text: str) -> Study:
    """JSON of a study, which a stranger may have written -> Study. Raises GenbenchError."""
    try:
        strict_json(text)
        return Study.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise GenbenchError(f"study: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise GenbenchError(f"study: {error}") from None


def _subset(name: str, among: int, count: int) -> Sequence[int]:
    """A seeded random subset of at most `count` indices, ascending. RandomState: its stream is frozen by numpy's policy."""
    order = np.random.RandomState(stream(0, f"judge/{name}") % 2**32).permutation(among)[:count]
    return [int(index) for index in np.sort(order)]
