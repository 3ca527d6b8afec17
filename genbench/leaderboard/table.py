"""What a leaderboard is made of: runs in rows, rows in tables, and every measure of a run under its column's key."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.harmless import clean
from genbench.leaderboard.columns import SECTIONS, VITAL, Better, Column, Section
from genbench.records import ModelRef, RunRecord, Score, column_key
from genbench.track import Track, short_hash
from genbench.verification import Standing, standing

if TYPE_CHECKING:
    from genbench.leaderboard.across import Across

FULL_SEEDS = 5
"""Training seeds from which a rank is no longer preliminary, unless the track plans fewer."""


@dataclass(frozen=True)
class Run:
    """A record and the file it was read from."""

    record: RunRecord
    path: Path
    digest: str = ""
    """SHA-256 of the file when it was read; by now another process may have set it aside."""

    @property
    def done(self) -> bool:
        """Whether it ended as planned."""
        return self.record.status == "done"

    @property
    def grid(self) -> Path:
        """Where its sample grid is looked for: ``grid.png`` beside ``record.json``, ``NAME.png`` beside ``NAME.json``."""
        return self.path.with_name("grid.png") if self.path.name == "record.json" else self.path.with_suffix(".png")

    @property
    def seed(self) -> int:
        """Training seed."""
        return self.record.spec.seed

    @functools.cached_property
    def standing(self) -> Standing:
        """How far the records of verification beside it say that it was verified."""
        return standing(self.path.parent) if self.path.name == "record.json" else Standing()

    @functools.cached_property
    def row(self) -> str:
        """Identity of the row it belongs to."""
        return identity(self.record.spec.model)


@dataclass(frozen=True)
class Damaged:
    """A record that could not be read: its path inside the results and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Cell:
    """One measure of one row."""

    values: dict[int, float | None]
    """Seed -> value; None: the run failed or has no such score."""
    mean: float | None
    half: float | None
    """Half-width of the 95 % t interval of the mean over finished seeds; None below two."""
    median: float | None
    """Over all seeds with a failed one as the worst value; None where that is infinite."""
    protocols: tuple[str, ...] = ()
    best: bool = False
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One model of a table."""

    model: ModelRef
    label: str
    runs: tuple[Run, ...]
    """Planned seeds that have ended, by seed."""
    extra: tuple[int, ...]
    """Seeds beyond the track's plan: shown, never counted."""
    planned: int
    cells: dict[str, Cell]
    rank: int | None = None
    rank_interval: tuple[int, int] | None = None
    """95 % interval of its rank; None below two finished seeds."""
    groups: tuple[int, ...] = ()
    """Numbers of the groups it belongs to: rows that share one are not distinguishable in what the track ranks by."""
    group: str = ""
    """`groups` as letters: ``ab``, ``c–h``."""

    @property
    def id(self) -> str:
        """Eight hex digits of its identity."""
        return identity(self.model)

    @property
    def control(self) -> bool:
        """Controls stand apart, unranked."""
        return self.model.family == "control"

    @property
    def family(self) -> str:
        """``gan``, or ``gan, conditional`` where the model is told which class to make."""
        conditional = any("conditional" in run.record.flags for run in self.runs)
        return clean(self.model.family, 20) + (", conditional" if conditional else "")

    @property
    def kind(self) -> str:
        """Its family and, where it names one, the prior: ``vae, prior GMM(20)``."""
        return self.family + (f", prior {self.prior}" if self.prior else "")

    @property
    def prior(self) -> str:
        """Where the latents of its samples came from, in the model's own words; empty where it does not say."""
        return " or ".join(sorted({clean(run.record.prior, 60) for run in self.runs if run.record.prior}))

    @property
    def done(self) -> int:
        """Finished planned seeds."""
        return sum(run.done for run in self.runs)

    @property
    def seeds(self) -> str:
        """``4/5``: finished of planned."""
        return f"{self.done}/{self.planned}"

    @property
    def tier(self) -> str:
        """``T0`` reported, ``T1`` recomputed, ``T2`` regenerated, ``T3`` retrained: the lowest of its finished runs; ``T1 (self)`` where
        nobody but whoever made one of them says so."""
        found = [run.standing for run in self.runs if run.done]
        lowest = min((one.tier for one in found), default=0)
        return f"T{lowest} (self)" if lowest and any(one.own for one in found) else f"T{lowest}"

    @property
    def preliminary(self) -> bool:
        """Fewer than five seeds have ended, or than the track plans where those are fewer."""
        return len(self.runs) < full_seeds(self.planned)

    @property
    def status(self) -> str:
        """``done``, or how many runs ended how: ``4 done, 1 diverged``."""
        counts = Counter(run.record.status for run in self.runs)
        if set(counts) <= {"done"}:
            return "done" if counts else "not run"
        return ", ".join(f"{counts[status]} {status}" for status in ("done", "diverged", "timeout", "oom", "error") if counts[status])

    @property
    def flags(self) -> tuple[str, ...]:
        """Words that a reader must know: flags of its runs, contention, outside weights, tuning."""
        words = Counter(clean(flag, 60) for run in self.runs for flag in run.record.flags if flag != "conditional")
        shown = [word if count == len(self.runs) else f"{word} (in {count} of {len(self.runs)})" for word, count in sorted(words.items())]
        contended = sum(bool(run.record.spent and run.record.spent.contended) for run in self.runs)
        shown += [f"contended ({contended} of {len(self.runs)})"] if contended else []
        shown += [f"pretrained: {clean(self.model.pretrained, 60)}"] if self.model.pretrained else []
        tuned = [f"preset {clean(self.model.preset, 40)}"] if self.model.preset else []
        tuned += [f"{self.model.trials} trial{'s' * (self.model.trials != 1)}"] if self.model.trials else []
        shown += [", ".join(tuned)] if tuned else []
        shown += ["learns from holdout"] if self.model.holdout else []
        shown += [f"also run beyond the plan: seed {', '.join(map(str, self.extra))}"] if self.extra else []
        return tuple(shown)

    @property
    def hparams(self) -> str:
        """Changed hparams: ``width=48, lr=0.0002``."""
        return ", ".join(f"{key}={value}" for key, value in sorted(self.model.changed.items()))


@dataclass(frozen=True)
class Table:
    """One ranking: one track hash on one device class."""

    track: Track
    track_hash: str
    device_class: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    """Models by rank."""
    controls: tuple[Row, ...]
    floor: dict[str, float]
    """Column -> the same measure of real training images."""
    notes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    harness: tuple[str, ...] = ()
    gemm: tuple[float, float] | None = None
    """Lowest and highest calibrated float32 rate, GFLOP/s."""
    accuracy: float | None = None
    """Of the track's extractor on the test set, where it is a classifier."""

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """Models, then controls."""
        return self.rows + self.controls

    def sections(self) -> list[tuple[Section, list[Column], list[Row]]]:
        """What stands below the ranking: each section with its columns and the rows that have a value in one of them."""
        found = []
        for section in SECTIONS:
            columns = [col for col in self.columns if col.group == section.group]
            rows = [row for row in self.all_rows if any((cell := row.cells.get(col.key)) and cell.mean is not None for col in columns)]
            if rows:
                found.append((section, columns, rows))
        return found

    @property
    def main_columns(self) -> list[Column]:
        """Those of the ranking itself: quality, speed, and what the track ranks by, first where it is neither."""
        ranked = self.rank_column
        apart = [] if ranked is None or ranked.main else [ranked]
        return apart + [col for col in self.columns if col.main]

    @property
    def vital_columns(self) -> list[Column]:
        """Those that stand where there is room for few."""
        return [col for col in self.columns if col.key in VITAL or col == self.rank_column]

    @property
    def rank_column(self) -> Column | None:
        """The column the track ranks by."""
        return next((col for col in self.columns if col.key == self.track.rank_by), None)


@dataclass(frozen=True)
class Results:
    """All tables of some results folders, and what could not be read."""

    tables: tuple[Table, ...]
    damaged: tuple[Damaged, ...] = ()
    by_track: dict[str, tuple[Table, ...]] = field(default_factory=dict)
    across: tuple[Across, ...] = ()
    """Mean ranks and times to target over tracks, one for each device class on which two models stand together in two tracks."""


def full_seeds(planned: int) -> int:
    """How many seeds a track plans -> how many make a rank that is not preliminary."""
    return min(FULL_SEEDS, planned)


def identity(model: ModelRef) -> str:
    """A model -> eight hex digits that tell its row from every other."""
    return short_hash([model.name, model.source, model.distribution, model.version, model.digest, model.changed])


def device_class(record: RunRecord) -> str:
    """``cpu-N`` or the accelerator's name: as the run was planned, or (where that says no more than ``cpu``) as it found its machine."""
    device, environment = record.spec.device, record.environment
    if environment is None or device not in ("cpu", "cuda"):
        return clean(device, 80)
    return f"cpu-{environment.threads}" if device == "cpu" else clean(environment.device, 80)


def measures(record: RunRecord) -> dict[str, Score]:
    """A record -> column key -> score; speed, ledger and memory count as scores too."""
    found: dict[str, Score] = {}
    for score in record.scores:
        found.setdefault(column_key(score, record.spec.track), score)
    extra: list[tuple[str, float | None, Better, str]] = []
    if (speed := record.throughput) is not None:
        sampling = max((median for median, _, _ in speed.sample.values()), default=None)
        extra += [
            ("train_throughput", speed.train, "higher", "images/s"),
            ("sample_throughput", sampling, "higher", "images/s"),
            ("parameters", speed.parameters, "neither", ""),
            ("flops_per_image", speed.flops_per_image, "lower", ""),
            ("train_peak_bytes", speed.train_peak_bytes, "lower", "bytes"),
            ("sample_peak_bytes", speed.sample_peak_bytes, "lower", "bytes"),
            ("energy_joules", speed.energy_joules, "lower", "J"),
        ]
    if (spent := record.spent) is not None:
        extra += [
            ("steps", spent.steps, "neither", ""),
            ("images", spent.images, "neither", ""),
            ("seconds", spent.seconds, "neither", "s"),
            ("waited", spent.waited, "lower", ""),
        ]
    for name, value, better, unit in extra:
        if value is not None:
            found.setdefault(name, Score(name=name, value=value, better=better, unit=unit))
    return found
