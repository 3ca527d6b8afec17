"""Over tracks: mean ranks with Friedman's test, and times to the tracks' targets, of the models that stand in the same tables.

Ranks are taken inside each table and only then averaged; scores of different tracks never meet. Tables of one device class only.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genbench.harmless import clean
from genbench.leaderboard.friedman import MIN_TRACKS, Friedman, average_ranks, friedman, performance_ratios, within
from genbench.leaderboard.labels import distinct
from genbench.leaderboard.statistics import median_with_failures
from genbench.leaderboard.table import Row, Run, Table
from genbench.track import short_hash

_MOST_SEARCHED = 15
"""Tables of which every choice is tried, for the largest block of models and tracks."""


@dataclass(frozen=True)
class Entrant:
    """A model in every one of the tracks."""

    label: str
    mean_rank: float
    ranks: tuple[float, ...]
    """Its rank among the entrants, by track; ties averaged, more than half of its seeds failed: last."""
    scores: tuple[float | None, ...]
    """Median of what the track ranks by, by track; None where more than half of the seeds failed."""
    times: tuple[float | None, ...]
    """Median device-seconds to the target, by track; None where there is no target or more than half of the seeds never reached it."""


@dataclass(frozen=True)
class Across:
    """What the tables of one device class say together."""

    device_class: str
    tracks: tuple[str, ...]
    targets: tuple[float | None, ...]
    """FID to reach, by track."""
    entrants: tuple[Entrant, ...]
    """By mean rank, best first."""
    friedman: Friedman | None
    """None where there is nothing to test with; `refused` says why."""
    refused: str
    notes: tuple[str, ...] = ()

    @property
    def alike(self) -> list[tuple[int, int]]:
        """First and last of every largest run of entrants that Nemenyi's test can't tell apart."""
        if self.friedman is None:
            return []
        return within([entrant.mean_rank for entrant in self.entrants], self.friedman.critical_difference)

    @property
    def timed(self) -> list[str]:
        """Tracks whose target at least one entrant reached."""
        return [name for at, name in enumerate(self.tracks) if any(entrant.times[at] is not None for entrant in self.entrants)]

    @property
    def ratios(self) -> list[list[float]]:
        """By entrant and track of `timed`, how many times the fastest's time it needs to the target; infinite where it never gets there."""
        timed = set(self.timed)
        if not timed:
            return []
        wanted = [at for at, name in enumerate(self.tracks) if name in timed]
        times = np.array([[_or_never(entrant.times[at]) for entrant in self.entrants] for at in wanted])
        return [column.tolist() for column in performance_ratios(times).T]


def over_tracks(by_track: Mapping[str, Sequence[Table]]) -> tuple[Across, ...]:
    """Tables by track -> one `Across` for each device class on which two models stand together in two tracks.

    Tracks that repeat a publication and tracks for tuning (`reference = "holdout"`) are left out, and so is all but the fullest of several
    tables of a track.
    """
    by_device: dict[str, list[Table]] = defaultdict(list)
    for tables in by_track.values():
        taken = set()
        for table in tables:
            if _counts(table) and table.device_class not in taken:
                taken.add(table.device_class)
                by_device[table.device_class].append(table)
    found = (_together(device, tables) for device, tables in sorted(by_device.items()))
    return tuple(across for across in found if across is not None)


def seconds_to_target(run: Run, target: float | None) -> float | None:
    """A run -> device-seconds of training at the first point of its curve whose FID is at most `target`; None where there is none."""
    if target is None or not run.done:
        return None
    return next((point.seconds for point in run.record.curve if point.fid is not None and point.fid <= target), None)


def time_to_target(row: Row, target: float | None) -> tuple[dict[int, float | None], float | None]:
    """A row -> seconds to the target by seed, and their median with a seed that never gets there as infinite (None where that is)."""
    by_seed = {run.seed: seconds_to_target(run, target) for run in row.runs}
    return by_seed, median_with_failures(by_seed.values(), "lower")


def _counts(table: Table) -> bool:
    col = table.rank_column
    usable = col is not None and not col.mixed and col.better != "neither"
    return usable and not table.track.reproduces and table.track.reference != "holdout"


def _entrants(table: Table) -> dict[tuple[str, str], Row]:
    """A table -> its models by name and distribution; of several rows of one name that with most seeds, then the first, never the best."""
    found: dict[tuple[str, str], Row] = {}
    for row in sorted(table.rows, key=lambda row: (-len(row.runs), min((run.record.started for run in row.runs), default=""), row.id)):
        found.setdefault((row.model.name, row.model.distribution), row)
    return found


def _together(device: str, tables: Sequence[Table]) -> Across | None:
    rows = [(table, _entrants(table)) for table in tables]
    chosen = _largest_block([frozenset(found) for _, found in rows])
    if chosen is None:
        return None
    picked, keys = [rows[at] for at in chosen[0]], sorted(chosen[1])
    medians = [[_score(found[key], table) for key in keys] for table, found in picked]
    signs = [-1.0 if table.rank_column and table.rank_column.better == "higher" else 1.0 for table, _ in picked]
    costs = np.array([[_or_never(None if m is None else sign * m) for m in line] for sign, line in zip(signs, medians, strict=True)])
    ranks = average_ranks(costs)
    labels = _labels(keys)
    entrants = [
        Entrant(
            labels[name, distribution],
            float(ranks[:, at].mean()), tuple(ranks[:, at].tolist()), tuple(line[at] for line in medians),
            tuple(time_to_target(found[name, distribution], table.track.target)[1] for table, found in picked),
        )
        for at, (name, distribution) in enumerate(keys)
    ]  # fmt: skip
    refused = ""
    if len(picked) < MIN_TRACKS:
        least = MIN_TRACKS
        refused = f"No test over tracks: Friedman's takes at least {least} in which the same models stand, there are {len(picked)}."
    return Across(
        device, tuple(table.track.name for table, _ in picked), tuple(table.track.target for table, _ in picked),
        tuple(sorted(entrants, key=lambda entrant: (entrant.mean_rank, entrant.label))),
        None if refused else friedman(ranks), refused, tuple(_notes(rows, picked, keys)),
    )  # fmt: skip


def _labels(keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Names with their distributions -> what they are called: the name, with the distribution where two look the same."""
    names = Counter(clean(name, 60) for name, _ in keys)
    told = {
        (name, distribution): clean(name, 60) + (f" ({clean(distribution, 40)})" if names[clean(name, 60)] > 1 else "")
        for name, distribution in keys
    }
    apart = distinct({short_hash(key): label for key, label in told.items()})
    return {key: apart[short_hash(key)] for key in told}


def _largest_block(entrants: Sequence[frozenset[tuple[str, str]]]) -> tuple[list[int], frozenset[tuple[str, str]]] | None:
    """Names by table -> the tables and the names common to them of which there are most, one times the other; None below 2 by 2.

    Of equal blocks that of more tables, then of the first. The common names of every choice of tables are tried; of more than
    `_MOST_SEARCHED`, those of the tables that share most names with the others, each with all the tables that hold them.
    """
    shared = [sum(len(own & other) for other in entrants) - len(own) for own in entrants]
    searched = sorted(range(len(entrants)), key=lambda at: (-shared[at], at))[:_MOST_SEARCHED]
    common: set[frozenset[tuple[str, str]]] = set()
    for at in searched:
        common |= {names for names in (entrants[at], *(entrants[at] & names for names in common)) if len(names) > 1}
    blocks = [([at for at, own in enumerate(entrants) if names <= own], names) for names in common]
    blocks = [block for block in blocks if len(block[0]) > 1]
    return max(blocks, key=lambda block: (len(block[0]) * len(block[1]), len(block[0]), [-at for at in block[0]]), default=None)


def _notes(
    rows: Sequence[tuple[Table, dict[tuple[str, str], Row]]],
    picked: Sequence[tuple[Table, dict[tuple[str, str], Row]]],
    keys: Sequence[tuple[str, str]],
) -> list[str]:
    notes = []
    datasets = Counter(table.track.dataset for table, _ in picked)
    shared = sum(count for count in datasets.values() if count > 1)
    if shared:
        notes.append(f"{shared} of the {len(picked)} tracks share a dataset with another: they are not independent, and p is too small.")
    names = {table.track.name for table, _ in picked}
    if left := [clean(table.track.name, 60) for table, _ in rows if table.track.name not in names]:
        notes.append(f"Left out, because too few of the models stand in them: {', '.join(left)}.")
    if absent := sorted({clean(name, 60) for _, found in picked for name, other in found if (name, other) not in keys}):
        notes.append(f"Not in every track, hence left out: {', '.join(absent)}.")
    early = sum(found[key].preliminary for _, found in picked for key in keys)
    if early:
        notes.append(f"{early} of {len(picked) * len(keys)} rows are preliminary.")
    several = [table.track.name for table, found in picked if len(table.rows) > len(found)]
    if several:
        notes.append(f"Of several rows of one model the one with most seeds stands for it, in {', '.join(several)}.")
    return notes


def _score(row: Row, table: Table) -> float | None:
    cell = row.cells.get(table.track.rank_by)
    return None if cell is None else cell.median


def _or_never(value: float | None) -> float:
    return math.inf if value is None else value
