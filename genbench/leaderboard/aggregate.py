"""Records -> tables: which runs share a row, which rows share a ranking, and what stands in a cell.

A row is a model's identity (name, changed hparams, plugin version and digest); a table is one track hash on one device
class. Rows are ranked by the median over the planned seeds with a failed run as the worst possible value; the mean and
its 95 % t interval are taken over the finished ones.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from genbench.budget import Budget
from genbench.errors import GenbenchError
from genbench.harmless import clean
from genbench.judgements import is_judgement
from genbench.leaderboard import uncertainty
from genbench.leaderboard.across import over_tracks
from genbench.leaderboard.columns import Better, Column, column, group_thousands, sort_key
from genbench.leaderboard.consistency import beyond
from genbench.leaderboard.labels import labels_of
from genbench.leaderboard.people import with_people
from genbench.leaderboard.statistics import median_with_failures, t_interval
from genbench.leaderboard.table import Cell, Damaged, Results, Row, Run, Table, device_class, full_seeds, measures
from genbench.records import ModelRef, Score, Store, column_key, parse_record
from genbench.track import Track, shipped_tracks

_HOW = "genbench run MODEL --track TRACK"


def read(results: Path | Sequence[Path]) -> Results:
    """Results folders, or folders of records -> tables. A damaged record is listed, not fatal.

    Raises GenbenchError where no record is readable.
    """
    roots = [Path(results)] if isinstance(results, str | Path) else [Path(root) for root in results]
    runs: list[Run] = []
    damaged: list[Damaged] = []
    for root in roots:
        if not root.exists():
            raise GenbenchError(f"results folder {root} does not exist; run something first: {_HOW} --results {root}")
        for path in _record_paths(root):
            try:
                content = path.read_bytes()
                record = parse_record(content, path)
                if far := beyond(record):
                    raise GenbenchError(f"record {path}: {far}")
                runs.append(Run(record, path, hashlib.sha256(content).hexdigest()))
            except (OSError, GenbenchError) as error:
                if not os.path.lexists(path):  # a sweep has set it aside since it was listed, to run again
                    continue
                shown = path.relative_to(root) if root.is_dir() else Path(path.name)
                why = f"record {path}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
                damaged.append(Damaged(shown.as_posix(), clean(why.replace(str(path), path.name))))
    if not runs and not damaged:
        raise GenbenchError(f"no record in {', '.join(map(str, roots))}; run something first: {_HOW}")
    if not runs:
        raise GenbenchError(f"no readable record in {', '.join(map(str, roots))}: {damaged[0].reason}")
    return with_people(tabulate(runs, damaged), roots)


def _record_paths(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = Store(root).paths()
    if found or (root / "runs").is_dir():  # a results folder in use has other JSON: states, records of failed runs that were set aside
        return found
    return sorted(path for path in root.glob("**/*.json") if path.name != "checkpoint.json" and not is_judgement(path.name))


def tabulate(runs: Iterable[Run], damaged: Iterable[Damaged] = ()) -> Results:
    """Runs -> tables by track name, hash and device class, in a stable order."""
    # The earliest record of a run counts, whatever the order of the folders: nobody replaces a result by repeating it.
    ordered = sorted(runs, key=lambda run: (run.record.started, run.record.spec.hash, run.seed, run.record.model_dump_json()))
    unique: dict[tuple[str, str, str, str, int], Run] = {}
    for run in ordered:
        spec = run.record.spec
        unique.setdefault((spec.track.name, spec.track_hash, device_class(run.record), run.row, spec.seed), run)
    groups: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for (name, track_hash, device, _, _), run in unique.items():
        groups[name, track_hash, device].append(run)
    tables = [_table(track_hash, device, members) for (_, track_hash, device), members in groups.items()]
    tables.sort(key=_place)
    by_track: dict[str, tuple[Table, ...]] = {}
    for table in tables:
        by_track[table.track.name] = (*by_track.get(table.track.name, ()), table)
    listed = tuple(sorted(set(damaged), key=lambda d: (d.path, d.reason)))
    return Results(tuple(tables), listed, by_track, over_tracks(by_track))


def _place(table: Table) -> tuple[str, float, str, int, str, str]:
    """Sort key of tables: by dataset and budget; the fullest table of a track first."""
    track = table.track
    return (track.dataset, Budget.parse(track.budget).amount, track.name, -len(table.all_rows), table.track_hash, table.device_class)


def _table(track_hash: str, device: str, runs: Sequence[Run]) -> Table:
    track = _track(track_hash, runs)
    members: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        members[run.row].append(run)
    models = {key: _model(group) for key, group in members.items()}
    labels = labels_of(models)
    scores = {id(run): measures(run.record) for run in runs}
    betters: dict[str, set[Better]] = defaultdict(set)
    for run in runs:
        for key, score in scores[id(run)].items():
            betters[key].add(score.better)
    direction: dict[str, Better] = {key: next(iter(ways)) if len(ways) == 1 else "neither" for key, ways in betters.items()}
    rows = [_row(models[key], labels[key], members[key], track, direction, scores) for key in members]
    ranked = [row for row in rows if not row.control]
    models_first = sorted(runs, key=lambda run: run.record.spec.model.family == "control")
    columns = _columns(track, direction, ranked, [score for run in models_first for score in scores[id(run)].values()])
    by = next((col for col in columns if col.key == track.rank_by), None)
    ranked = uncertainty.qualify(_rank(_mark_best(ranked, columns), track.rank_by, by), by)
    controls = sorted((row for row in rows if row.control), key=lambda row: _order(row, track.rank_by, direction))
    records = [run.record for run in runs]
    accuracies = sorted({r.extractor_accuracy for r in records if r.extractor_accuracy is not None})
    rates = [rate for r in records if r.spent and r.spent.gemm_gflops for rate in r.spent.gemm_gflops]
    return Table(
        track, track_hash, device, columns, tuple(ranked), tuple(controls), _floor(columns, runs, scores),
        notes=tuple(_notes(track, columns, ranked, runs, labels)),
        devices=tuple(sorted({clean(r.environment.device, 80) for r in records if r.environment})),
        harness=tuple(sorted({clean(r.environment.genbench, 40) for r in records if r.environment})),
        gemm=(min(rates), max(rates)) if rates else None,
        accuracy=accuracies[0] if accuracies else None,
    )  # fmt: skip


def _model(runs: Sequence[Run]) -> ModelRef:
    """The runs of a row -> its model, with the most trials that one of them names: a later sweep may have tried more than the earliest."""
    models = [run.record.spec.model for run in runs]
    return models[0].model_copy(update={"trials": max(model.trials for model in models)})


def _track(track_hash: str, runs: Sequence[Run]) -> Track:
    """Seeds, rank_by, target and the description are not hashed: those of the track that ships, whatever records say; of a track that
    nobody ships, the latest record's."""
    latest = max(runs, key=lambda run: (run.record.started, run.record.spec.hash, run.seed)).record.spec.track
    return _shipped().get((latest.name, track_hash), latest)


@functools.cache
def _shipped() -> dict[tuple[str, str], Track]:
    return {(track.name, track.hash): track for track in shipped_tracks()}


def _row(
    model: ModelRef, label: str, runs: Sequence[Run], track: Track, direction: Mapping[str, Better], scores: Mapping[int, dict[str, Score]]
) -> Row:
    by_seed = sorted(runs, key=lambda run: run.seed)
    planned = tuple(run for run in by_seed if run.seed < track.seeds)
    cells = {}
    for key, better in direction.items():
        found = {run.seed: scores[id(run)].get(key) if run.done else None for run in planned}
        present = [score for score in found.values() if score is not None]
        if not present:
            continue
        values = {seed: None if score is None else score.value for seed, score in found.items()}
        finite = [value for value in values.values() if value is not None]
        cells[key] = Cell(
            values, statistics.fmean(finite) if finite else None, t_interval(finite), median_with_failures(values.values(), better),
            tuple(sorted({score.protocol for score in present if score.value is not None})),
            note="; ".join(sorted({clean(score.note) for score in present if score.note})),
        )  # fmt: skip
    return Row(model, label, planned, tuple(run.seed for run in by_seed if run.seed >= track.seeds), track.seeds, cells)


def _columns(track: Track, direction: Mapping[str, Better], rows: Sequence[Row], scores: Sequence[Score]) -> tuple[Column, ...]:
    about: dict[str, Score] = {}
    for score in scores:
        if score.value is not None:
            about.setdefault(column_key(score, track), score)
    found = []
    for key, better in direction.items():
        if key not in about:
            continue  # too few images for this measure: nobody has a value
        counts = Counter(protocol for row in rows if key in row.cells for protocol in row.cells[key].protocols)
        score = about[key]
        sizes = ""
        if score.n_fake and score.n_real:
            real = f"{group_thousands(score.n_real)} {score.split or track.reference} images"
            sizes = f"{group_thousands(score.n_fake)} generated against {real}"
        protocols = tuple(protocol for protocol, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        found.append(column(key, better, unit=score.unit, extractor=score.extractor, sizes=sizes, protocols=protocols))
    return tuple(sorted(found, key=sort_key))


def _mark_best(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """Mark the best mean of every column; a row most of whose seeds failed is not eligible."""
    best: dict[str, float] = {}
    for col in columns:
        means = [cell.mean for row in rows if (cell := row.cells.get(col.key)) and cell.median is not None and cell.mean is not None]
        if means and not col.mixed and col.better != "neither":
            best[col.key] = min(means) if col.better == "lower" else max(means)
    marked = []
    for row in rows:
        cells = {
            key: replace(cell, best=key in best and cell.median is not None and cell.mean == best[key]) for key, cell in row.cells.items()
        }
        marked.append(replace(row, cells=cells))
    return marked


def _order(row: Row, key: str, direction: Mapping[str, Better]) -> tuple[float, str, str]:
    cell = row.cells.get(key)
    if cell is None or cell.median is None:
        return (math.inf, row.label, row.id)
    return (-cell.median if direction.get(key) == "higher" else cell.median, row.label, row.id)


def _rank(rows: Sequence[Row], key: str, by: Column | None) -> list[Row]:
    """Order rows and number those with a finite median; equal medians share a rank. Several protocols: no ranks."""
    direction: dict[str, Better] = {key: by.better} if by else {}
    ordered = sorted(rows, key=lambda row: _order(row, key, direction))
    if by is None or by.mixed or by.better == "neither":
        return ordered
    costs = [_order(row, key, direction)[0] for row in ordered]
    first: dict[float, int] = {}
    for place, cost in enumerate(costs, 1):
        first.setdefault(cost, place)
    return [replace(row, rank=first[cost] if math.isfinite(cost) else None) for row, cost in zip(ordered, costs, strict=True)]


def _floor(columns: Sequence[Column], runs: Sequence[Run], scores: Mapping[int, dict[str, Score]]) -> dict[str, float]:
    """Column -> median of the floors recorded under its protocol."""
    found = {}
    for col in columns:
        given = [s for run in runs if (s := scores[id(run)].get(col.key)) and s.floor is not None]
        same = [s.floor for s in given if s.floor is not None and (not col.protocols or s.protocol == col.protocols[0])]
        if same and not col.mixed:
            found[col.key] = statistics.median(same)
    return found


def _reproductions(track: Track, rows: Sequence[Row]) -> list[str]:
    """How rows compare with the published results that the track repeats."""
    told = []
    for row in rows:
        for name, (low, high) in sorted(track.published.get(row.model.name, {}).items()):
            cell = row.cells.get(name)
            if cell is not None and cell.mean is not None:
                where = "inside" if low <= cell.mean <= high else "outside"
                told.append(f"{row.label}: {clean(name, 40)} {cell.mean:.4g} lies {where} the published interval, {low:g} to {high:g}.")
    return told


def _notes(track: Track, columns: Sequence[Column], rows: Sequence[Row], runs: Sequence[Run], labels: Mapping[str, str]) -> list[str]:
    """What a reader must know before comparing rows, as sentences."""
    notes = []
    mixed = [col.name for col in columns if col.mixed]
    if mixed:
        notes.append(f"Scores made under different protocols, not comparable between rows, neither ranked nor bold: {', '.join(mixed)}.")
    if track.rank_by not in {col.key for col in columns}:
        notes.append(f"No run has a score called {clean(track.rank_by, 40)}, which this track ranks by: no ranks.")
    notes += _reproductions(track, rows)
    if any(row.preliminary for row in rows):
        notes.append(f"Ranks in parentheses are preliminary: fewer than {full_seeds(track.seeds)} seeds.")
    if told := uncertainty.explanation(rows, next((col for col in columns if col.key == track.rank_by), None)):
        notes.append(told)
    if Budget.parse(track.budget).kind != "seconds":
        return notes
    versions = sorted({clean(run.record.environment.genbench, 40) for run in runs if run.record.environment})
    if len(versions) > 1:
        notes.append(f"The budget is a time and the runs were made by several versions of the harness: {', '.join(versions)}.")
    devices = sorted({clean(run.record.environment.device, 80) for run in runs if run.record.environment})
    if len(devices) > 1:
        notes.append(f"The budget is a time and the runs were made on several processors: {', '.join(devices)}.")
    rates = {id(run): statistics.fmean(run.record.spent.gemm_gflops) for run in runs if run.record.spent and run.record.spent.gemm_gflops}
    if rates:
        usual = statistics.median(rates.values())
        off = sorted(
            f"{labels[run.row]} seed {run.seed} ({rates[id(run)] / usual - 1:+.0%})"
            for run in runs
            if id(run) in rates and usual > 0 and abs(rates[id(run)] / usual - 1) > 0.15
        )
        if off:
            notes.append(f"The machine was more than 15 % faster or slower than usual (calibrated matrix product) for: {', '.join(off)}.")
    return notes
