"""What a page says about a track and its outcome, as plain text: shared by the Markdown and the HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genbench.harmless import clean
from genbench.leaderboard.across import Across, Entrant
from genbench.leaderboard.columns import Column, group_thousands, write
from genbench.leaderboard.table import Cell, Row, Run, Table, device_class
from genbench.leaderboard.text import command, is_shipped, track_file, track_toml
from genbench.track import Track

if TYPE_CHECKING:
    from genbench.leaderboard.compare import Comparison, Pair

REFERENCES = {"test": "held-out test images", "train": "training images", "holdout": "images carved from train for tuning"}
TIERS = (
    ("T0", "reported: the record says so"),
    ("T1", "recomputed: every metric again from the stored samples"),
    ("T2", "regenerated: samples drawn again from the sealed checkpoint, with the recorded seed and with a fresh one"),
    ("T3", "retrained: the model trained again from its source, and the recorded value no better than chance allows"),
)
"""How far a row was verified, and what that took; ``(self)``: by whoever made the run."""


def facts(tables: Sequence[Table]) -> list[tuple[str, str]]:
    """The tables of a track -> what the track fixes, as (word, value)."""
    track = tables[0].track
    split = REFERENCES[track.reference]
    accuracy = next((table.accuracy for table in tables if table.accuracy is not None), None)
    known = f", {_percent(accuracy)} accurate on the test set" if accuracy is not None else ""
    planned = f"{track.seeds} seed{'s' if track.seeds > 1 else ''}"
    found = [
        ("Dataset", clean(track.dataset)),
        ("Image size", f"{track.size} × {track.size} pixels"),
        ("Training budget", f"{track.budget} for every model" + (", horizontal flips" if track.flip else "")),
        ("Precision", track.precision),
        ("Samples scored", f"{group_thousands(track.num_samples)} (protocol “{track.protocol}”)"),
        ("Feature extractor", f"{clean(track.extractor)}{known}"),
        ("Reference", split),
        (
            "Ranked by",
            f"{_title(tables[0], track.rank_by)}, median over {planned}, a failed run counting as worst",
        ),
        ("Track hash", ", ".join(dict.fromkeys(track_hash(table) for table in tables))),
        ("Device", "; ".join(dict.fromkeys(device(table) for table in tables))),
        ("Harness", "genbench " + ", ".join(sorted({version for table in tables for version in table.harness}) or ["unknown"])),
    ]
    return found


def key_facts(tables: Sequence[Table]) -> list[str]:
    """The tables of a track -> the few words that a reader needs beside its title."""
    track = tables[0].track
    accuracy = next((table.accuracy for table in tables if table.accuracy is not None), None)
    known = f" ({_percent(accuracy)} accurate)" if accuracy is not None else ""
    return [
        f"{clean(track.dataset, 60)}, {track.size} × {track.size} pixels",
        f"{track.budget} of training, {track.precision}",
        f"{group_thousands(track.num_samples)} samples against {REFERENCES[track.reference]}",
        f"features of {clean(track.extractor, 40)}{known}",
        ", ".join(dict.fromkeys(table.device_class for table in tables)),
    ]


def track_hash(table: Table) -> str:
    """The hash that the table's records name, which may be anything in one that nobody checked, as harmless text."""
    return clean(table.track_hash, 40)


def which(table: Table) -> str:
    """What tells tables of one track apart: ``Track 1a2b3c4d on cpu-2``."""
    return f"Track {track_hash(table)} on {table.device_class}"


def _percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %")


def device(table: Table) -> str:
    """A table -> ``cpu-2: AMD EPYC, 150–165 GFLOP/s``."""
    told = table.device_class
    names = [name for name in table.devices if name != table.device_class]
    told += f": {', '.join(names)}" if names else ""
    if table.gemm:
        low, high = (f"{rate:.0f}" for rate in table.gemm)
        told += f", {low if low == high else f'{low}–{high}'} GFLOP/s (float32 matrix product)"
    return told


def _title(table: Table, key: str) -> str:
    return next((col.name for col in table.columns if col.key == key), clean(key, 40))


def headline(table: Table) -> str:
    """One sentence: who leads and who is fastest; empty where nothing is ranked."""
    col, leader = table.rank_column, next((row for row in table.rows if row.rank == 1), None)
    if col is None or leader is None:
        return ""
    cell = leader.cells[col.key]
    assert cell.median is not None, "a ranked row has a median"
    seeds = f"median of {len(leader.runs)} seeds" if len(leader.runs) > 1 else "one seed"
    told = (
        f"{leader.label} leads with {col.title} {write(cell.median, col.form)[0]} ({seeds}{', preliminary' if leader.preliminary else ''})"
    )
    if col.key in table.floor:
        told += f"; real images reach {write(table.floor[col.key], col.form)[0]}"
    fastest = next((row for row in table.rows if (speed := row.cells.get("train_throughput")) and speed.best), None)
    if fastest is not None and len(table.rows) > 1:
        value = fastest.cells["train_throughput"].mean
        assert value is not None, "the best has a mean"
        told += f". Fastest to train: {fastest.label}, {write(value, 'rate')[0]} images/s"
    return told + "."


def rank(row: Row) -> str:
    """``2``, ``(2)`` while preliminary, ``–`` unranked, nothing for a control."""
    if row.control:
        return ""
    if row.rank is None:
        return "–"
    return f"({row.rank})" if row.preliminary else str(row.rank)


def rank_interval(row: Row) -> str:
    """``1–3``: the 95 % interval of its rank; ``2`` where that is one rank, nothing where there is none."""
    if row.rank_interval is None:
        return ""
    low, high = row.rank_interval
    return str(low) if low == high else f"{low}–{high}"


def standing(row: Row) -> str:
    """``2 [1–3]``: its rank and the interval of it."""
    return f"{rank(row)} [{interval}]" if (interval := rank_interval(row)) else rank(row)


def shows_groups(table: Table) -> bool:
    """Whether rows have letters of their groups."""
    return any(row.group for row in table.rows)


def shows_median(table: Table) -> bool:
    """Whether the ranking median differs from the mean for some row, so that it deserves a column."""
    key = table.track.rank_by
    return any((cell := row.cells.get(key)) and cell.median != cell.mean for row in table.all_rows)


def number(cell: Cell | None, col: Column) -> tuple[str, str]:
    """A cell -> mean and half-width as text; a dash where there is no mean."""
    if cell is None or cell.mean is None:
        return "–", ""
    return write(cell.mean, col.form, cell.half)


def marks(table: Table, row: Row, col: Column, footnotes: list[str]) -> str:
    """Footnote sign of a cell whose protocol is not the column's most frequent one; its text is added to `footnotes`."""
    cell = row.cells.get(col.key)
    if cell is None or cell.mean is None or not cell.protocols:
        return ""
    usual = col.protocols[:1] or cell.protocols[:1]
    if cell.protocols == usual:
        return ""
    own, other = (", ".join(map(clean, some)) for some in (cell.protocols, usual))
    text = f"{col.name}: measured under protocol {own}, where the column's is {other}: not comparable."
    if text not in footnotes:
        footnotes.append(text)
    return sign(footnotes.index(text))


def sign(position: int) -> str:
    """0, 1, … -> ``a``, ``b``, … ``z``, ``a2``."""
    return chr(ord("a") + position % 26) + (str(position // 26 + 1) if position >= 26 else "")


def verified(rows: Sequence[Row]) -> str:
    """Rows -> ``Verified (T0 reported, … T3 retrained): sngan T2 (self); the others T0.``; nothing without rows."""
    if not rows:
        return ""
    tiers = Counter(row.tier for row in rows)
    usual = max(tiers, key=lambda tier: (tiers[tier], tier == "T0"))
    told = [f"{row.label} {row.tier}" for row in rows if row.tier != usual]
    told.append(f"{'the others' if told else 'all rows'} {usual}")
    meaning = ", ".join(f"{name} {text.partition(':')[0]}" for name, text in TIERS)
    return f"Verified ({meaning}): {'; '.join(told)}."


def failures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows -> their runs that did not end as planned: label, seed, status, reason, last lines of their log."""
    return [
        {
            "label": row.label,
            "seed": run.seed,
            "status": run.record.status,
            "reason": clean(run.record.reason, 500) or "no reason recorded",
            "log": [clean(line, 300) for line in run.record.log_tail[-12:]],
        }
        for row in rows
        for run in row.runs
        if not run.done
    ]


def recipe(row: Row, track: Track) -> str:
    """The shell command that repeats a row."""
    return command(row.model, track, max(1, len(row.runs)), device_class(row.runs[0].record) if row.runs else "cpu")


def own_tracks(tables: Sequence[Table]) -> dict[str, str]:
    """The tables of a track -> file name: TOML of each track among them that does not ship with genbench; equal hashes share a file."""
    found: dict[str, str] = {}
    for table in tables:
        if not is_shipped(table.track):
            found.setdefault(track_file(table.track), track_toml(table.track))
    return found


def provenance(row: Row) -> str:
    """``genbench-gans 0.1.0, plugin digest 1a2b3c4d5e6f``."""
    return f"{clean(row.model.distribution, 60)} {clean(row.model.version, 30)}, plugin digest {clean(row.model.digest, 12)}"


def median_run(row: Row, key: str) -> Run | None:
    """The finished run whose score is the (lower) median of the row's; any finished one where none has the score; None without any."""
    cell = row.cells.get(key)
    scored = sorted((value, run.seed) for run in row.runs if run.done and cell and (value := cell.values.get(run.seed)) is not None)
    if scored:
        seed = scored[(len(scored) - 1) // 2][1]
        return next(run for run in row.runs if run.seed == seed)
    return next((run for run in row.runs if run.done), None)


def legend(tables: Sequence[Table]) -> list[tuple[str, str]]:
    """Every column's name and explanation, once, in order."""
    found: dict[str, str] = {}
    for table in tables:
        for col in table.columns:
            found.setdefault(col.name, col.help)
    return list(found.items())


def rank_and_time(across: Across, entrant: Entrant, at: int) -> str:
    """An entrant's rank in a track and, where that has a target, the seconds it took to it: ``2 (95 s)``, ``4 (never)``."""
    rank, time = entrant.ranks[at], entrant.times[at]
    if across.targets[at] is None:
        return f"{rank:g}"
    return f"{rank:g} ({'never' if time is None else f'{time:.0f} s'})"


def over_tracks(across: Across) -> list[str]:
    """What the tables of a device class say together, as sentences."""
    told = [across.refused] if across.refused else []
    if (test := across.friedman) is not None:
        count = f"{len(across.entrants)} models over {len(across.tracks)} tracks"
        told.append(
            f"Friedman's test, {count}: chi² = {test.chi2:.2f}, p {_equals(test.p)}. Mean ranks less than {test.critical_difference:.2f} "
            f"apart are not distinguishable (Nemenyi, 5 %)"
            + ("; with this p no difference between them is shown." if test.p >= 0.05 else ".")
        )
    if any(target is not None for target in across.targets):
        told.append("In parentheses: median device-seconds of training until the curve's FID first reached the track's target.")
    return told + list(across.notes)


def verdict(pair: Pair) -> str:
    """What may be said of two rows, in two or three words."""
    if pair.difference is None:
        return "nothing can be said"
    return "distinguishable" if pair.difference.p < 0.05 else "not distinguishable"


def estimate(pair: Pair) -> tuple[str, str]:
    """A pair -> its ratio or difference, and the 95 % interval: ``0.60``, ``0.47 to 0.77``; dashes where there is none."""
    if pair.estimate is None:
        return "–", "–"
    value, low, high = (_short_number(number) for number in pair.estimate)
    return value, f"{low} to {high}"


def _short_number(value: float) -> str:
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1e4 or value == 0 else f"{value:.1e}"


def sentence(comparison: Comparison, pair: Pair) -> str:
    """Two rows -> ``FID of a is 0.60 times that of b (95 % interval 0.47 to 0.77), p = 0.003: distinguishable.``"""
    title = comparison.column.title
    if pair.difference is None:
        return f"{title} of {pair.a} and {pair.b}: {' and '.join(map(str, pair.seeds))} finished seeds, nothing can be said."
    value, interval = estimate(pair)
    relation = f"is {value} times that of {pair.b}" if pair.scale == "log" else f"less that of {pair.b} is {value}"
    told = f"{title} of {pair.a} {relation} (95 % interval {interval}), p {_equals(pair.difference.p)}"
    told += f", Hedges' g = {pair.difference.g:.2f}" if pair.difference.g is not None else ""
    return f"{told}: {verdict(pair)} at 5 %."


def _equals(p: float) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


def p_value(p: float) -> str:
    """0.0123 -> ``0.012``; below 0.001 ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
