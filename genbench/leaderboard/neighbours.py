"""What must hold between the records of one folder, whoever wrote them: rows have all their seeds, each of its own, under one track."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from genbench.leaderboard.consistency import unhashed
from genbench.leaderboard.table import Run, device_class
from genbench.records import RunRecord, column_key

_SAME_FLOOR = 0.01
"""Relative difference of floors under one protocol that two machines may have."""
_OF_A_ROW = ("family", "hparams", "pretrained", "holdout")
"""What a model's source and its changed hparams decide, so that all seeds of a row have it in common."""
_LISTED = 10
"""Seeds that one line names."""


def row_faults(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    """Records of one results folder -> what does not fit between them: seeds left out or copied; models, tracks or floors that differ."""
    return [*_seeds(runs), *_copies(runs), *_unlike(runs), *_tracks(runs), *_floors(runs)]


def _rows(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs -> rows, told apart as tables tell them."""
    rows: dict[tuple[str, str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        spec = run.record.spec
        rows[spec.track.name, spec.track_hash, device_class(run.record), run.row].append(run)
    return list(rows.values())


def _seeds(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    for row in _rows(runs):
        there = sorted(run.seed for run in row)
        known = set(there)
        twice = sorted({seed for seed in known if there.count(seed) > 1})
        if twice:
            yield row[0], f"seed {', '.join(map(str, twice))} stands there more than once"
        expected = range(min(max(there) + 1, row[0].record.spec.track.seeds))
        missing = list(islice((seed for seed in expected if seed not in known), _LISTED))
        if missing:
            yield row[0], f"its row has seeds {_listed(there)} and leaves out {_listed(missing)}: a failed one is a record too"


def _copies(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    """One run under several seeds. Controls are left out: a mean image needs no seed, and nobody ranks it."""
    for row in _rows(runs):
        if all(run.record.spec.model.family == "control" for run in row):
            continue
        for what in ("samples", "checkpoint"):
            first: dict[str, Run] = {}
            for run in sorted(row, key=lambda run: (run.record.started, run.seed)):
                digest = run.record.digests.get(what, "")
                other = first.setdefault(digest, run) if digest else run
                if other.seed != run.seed and not (_may_repeat(run.record, what) and _may_repeat(other.record, what)):
                    yield run, f"the same {what} as seed {other.seed}: a copy, or a control that does not say family = 'control'"


def _may_repeat(record: RunRecord, what: str) -> bool:
    """Whether two seeds may come to the same: all images black or white, from whatever weights; a fit in closed form, which ends early."""
    if what == "samples":
        return {"blank", "collapsed"} <= set(record.flags)
    return record.spent is not None and record.spent.finished_early


def _unlike(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    for row in _rows(runs):
        one, *others = sorted(row, key=lambda run: (run.record.started, run.seed))
        for run in others:
            for key in _OF_A_ROW:
                mine, theirs = (getattr(each.record.spec.model, key) for each in (run, one))
                if mine != theirs:
                    yield run, f"its {key} is {mine!r}, that of seed {one.seed} in the same row {theirs!r}"


def _tracks(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    """Keys that are not hashed, which one record could otherwise change for a whole table."""
    first: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=lambda run: run.record.started):
        spec = run.record.spec
        one = first.setdefault((spec.track.name, spec.track_hash), run)
        for key, mine, theirs in unhashed(spec.track, one.record.spec.track, may_add=True):
            yield run, f"its track says {key} = {mine!r}, earlier records of {spec.track.name} say {theirs!r}"


def _floors(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    """What real images get under one protocol is one number, and which of two values is better is the same for all."""
    first: dict[tuple[str, str], tuple[float, Run]] = {}
    better: dict[tuple[str, str, str], tuple[str, Run]] = {}
    for run in sorted(runs, key=lambda run: run.record.started):
        spec = run.record.spec
        for score in run.record.scores:
            key = column_key(score, spec.track)
            way, earlier = better.setdefault((spec.track.name, spec.track_hash, key), (score.better, run))
            if score.better != way:
                yield run, f"{key}: {score.better} is better, it says; {earlier.record.spec.model.name} seed {earlier.seed} says {way}"
            if score.floor is None or not score.protocol:
                continue
            known, earlier = first.setdefault((score.protocol, key), (score.floor, run))
            if abs(score.floor - known) > _SAME_FLOOR * abs(known) + 1e-3:
                whose = f"{earlier.record.spec.model.name} seed {earlier.seed}"
                yield run, f"{score.name}: its floor is {score.floor:g}; under the same protocol {whose} has {known:g}"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:_LISTED])) + (", …" if len(seeds) > _LISTED else "")
