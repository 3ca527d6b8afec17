"""Rows of one table against each other: differences with intervals, p-values and effect sizes, and their curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError, unknown
from genbench.harmless import clean
from genbench.leaderboard import statistics
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.columns import Column
from genbench.leaderboard.curves import curve
from genbench.leaderboard.statistics import Difference, Permutation, Scale
from genbench.leaderboard.table import Row, Table
from genbench.leaderboard.uncertainty import finished_values
from genbench.records import write_atomic


@dataclass(frozen=True)
class Pair:
    """Two rows: a less b, on the scale they are compared on."""

    a: str
    b: str
    seeds: tuple[int, int]
    """Finished seeds of each that count."""
    scale: Scale
    difference: Difference | None
    """None where a row has fewer than two finished seeds: nothing can be said."""
    permutation: Permutation | None

    @property
    def estimate(self) -> tuple[float, float, float] | None:
        """Difference, low and high; ratios of geometric means, a over b, on the log scale."""
        if self.difference is None:
            return None
        ends = (self.difference.value, self.difference.low, self.difference.high)
        return (_exp(ends[0]), _exp(ends[1]), _exp(ends[2])) if self.scale == "log" else ends


@dataclass(frozen=True)
class Comparison:
    """Rows of one table in one measure."""

    table: Table
    column: Column
    rows: tuple[Row, ...]
    scale: Scale
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    @property
    def none(self) -> float:
        """The estimate that means no difference."""
        return 1.0 if self.scale == "log" else 0.0


def compare(results: Path | Sequence[Path], names: Sequence[str], track: str = "", score: str = "", device: str = "") -> Comparison:
    """Results folders and two or more labels (a model's name, or a row's eight digits, where one row has it) -> their comparison.

    `track`: name or hash, needed where records are of several; `device`: device class, likewise; `score`: a column's key, by default what
    the track ranks by. Raises GenbenchError.
    """
    if len(names) < 2:
        raise GenbenchError(f"compare takes two rows or more, got {', '.join(names) or 'none'}; name them as the tables do")
    table = find_table(read(results).tables, names, track, device)
    rows = tuple(find_row(table, name) for name in names)
    if len({row.id for row in rows}) < len(rows):
        raise GenbenchError(f"compare: {', '.join(names)} name the same row more than once; labels: {_labels(table)}")
    key = score or table.track.rank_by
    col = next((col for col in table.columns if col.key == key), None)
    if col is None:
        raise GenbenchError(f"{unknown('score', key, [col.key for col in table.columns])}".replace("installed:", "there are:"))
    protocols = {protocol for row in rows if (cell := row.cells.get(key)) for protocol in cell.protocols}
    if len(protocols) > 1:
        raise GenbenchError(
            f"{col.name} of {', '.join(row.label for row in rows)} was measured under several protocols ({', '.join(sorted(protocols))}): "
            "such scores are not comparable; score the older runs again"
        )
    return _compared(table, col, rows)


def _compared(table: Table, col: Column, rows: tuple[Row, ...]) -> Comparison:
    values = [finished_values(row, col.key) for row in rows]
    scale = statistics.scale_of(values)
    scaled = statistics.on_scale(values, scale)
    among = sum(len(some) > 1 for some in scaled)
    pairs = []
    for (a, x), (b, y) in itertools.combinations(zip(rows, scaled, strict=True), 2):
        enough = len(x) > 1 and len(y) > 1
        found = statistics.difference(x, y, among) if enough else None
        dealt = statistics.permutation(x, y) if enough and len(rows) == 2 else None
        pairs.append(Pair(a.label, b.label, (len(x), len(y)), scale, found, dealt))
    return Comparison(table, col, rows, scale, tuple(pairs), tuple(_notes(col, rows, values, scale, among)))


def _notes(col: Column, rows: Sequence[Row], values: Sequence[Sequence[float]], scale: Scale, among: int) -> list[str]:
    notes = []
    few = [row.label for row, some in zip(rows, values, strict=True) if len(some) < 2]
    if few:
        notes.append(
            f"Fewer than two finished seeds with a score: {', '.join(few)}. Nothing can be said about a difference: how far another seed "
            "would lie from this one is not known."
        )
    lost = [f"{row.label} {row.seeds}" for row in rows if row.done < len(row.runs)]
    if lost:
        notes.append(f"Failed seeds are left out of differences, though they count in ranks: {', '.join(lost)}.")
    if among > 2:
        notes.append(f"p and intervals hold for all pairs of the {among} rows together (Games–Howell).")
    elif among == 2:
        notes.append("p and interval by Welch's t test.")
    if among > 1 and scale == "log":
        notes.append("Compared as logarithms: ratios of geometric means.")
    elif among > 1:
        notes.append(f"Some values of {col.title} are not above 0: compared as they are, not as logarithms.")
    if among > 1 and any(1 < len(some) < 5 for some in values):
        notes.append("Fewer than five seeds: the spread itself is hardly known, hence the width of the intervals.")
    notes += [f"{row.label}: {flag}." for row in rows for flag in row.flags if flag.startswith(("memorised", "collapsed", "contended"))]
    return notes


def find_table(tables: Sequence[Table], names: Sequence[str], track: str, device: str) -> Table:
    """The one table that is meant. Raises GenbenchError that says what tells the others apart."""
    found = [table for table in tables if track in ("", table.track.name, table.track_hash)]
    if not found:
        known = dict.fromkeys(table.track.name for table in tables)
        raise GenbenchError(f"{unknown('track', track, known)}".replace("installed:", "records are of:"))
    fits = [table for table in found if device in ("", table.device_class)]
    if not fits:
        raise GenbenchError(f"no record on device {device!r}; there are: {', '.join(dict.fromkeys(table.device_class for table in found))}")
    if len(fits) > 1:
        holding = [table for table in fits if all(_matches(table, name) for name in names)]
        fits = holding or fits
    if len(fits) > 1:
        told = "; ".join(f"--track {t.track.name if not track else clean(t.track_hash, 40)} --device {t.device_class!r}" for t in fits)
        raise GenbenchError(f"{', '.join(names)}: scores of different tracks and devices are not comparable; choose one: {told}")
    return fits[0]


def find_row(table: Table, name: str) -> Row:
    """A table and a label, or a model's name or row id that one row has -> the row. Raises GenbenchError listing labels."""
    found = _matches(table, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise GenbenchError(f"{len(found)} rows are called {name!r}; name one by its label or id: {_labels(table, found)}")
    raise GenbenchError(f"{unknown('row', name, [row.label for row in table.all_rows])}".replace("installed:", "labels:"))


def _matches(table: Table, name: str) -> list[Row]:
    rows = table.all_rows
    exact = [row for row in rows if name in (row.label, row.id)]
    return exact or [row for row in rows if row.model.name == name]


def _labels(table: Table, rows: Sequence[Row] | None = None) -> str:
    return ", ".join(f"{row.label!r} ({row.id})" for row in (table.all_rows if rows is None else rows))


def to_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison -> a JSON-ready object."""
    table, key = comparison.table, comparison.column.key
    return {
        "track": table.track.name,
        "track_hash": table.track_hash,
        "device_class": table.device_class,
        "score": key,
        "better": comparison.column.better,
        "scale": comparison.scale,
        "rows": [
            {
                "label": row.label,
                "row": row.id,
                "done": row.done,
                "ended": len(row.runs),
                "planned": row.planned,
                "mean": cell.mean if (cell := row.cells.get(key)) else None,
                "half_width_95": cell.half if cell else None,
                "median": cell.median if cell else None,
                "by_seed": {str(seed): value for seed, value in cell.values.items()} if cell else {},
                "curve": _curve(row, table),
            }
            for row in comparison.rows
        ],
        "pairs": [_pair_to_json(pair) for pair in comparison.pairs],
        "notes": list(comparison.notes),
    }


FORMS = ("svg", "png", "pdf")


def check_figure(path: Path) -> None:
    """Refuse, before any work, a file that no figure can be written to. Raises GenbenchError."""
    if path.suffix.lower().removeprefix(".") not in FORMS:
        raise GenbenchError(f"figure {path}: a figure is written as .svg, .png or .pdf")
    if not path.parent.is_dir():
        raise GenbenchError(f"figure {path}: folder {path.parent} does not exist")


def write_figure(comparison: Comparison, path: Path) -> None:
    """Draw curves and differences into a file. Raises GenbenchError where there is nothing to draw or the file can't be written."""
    from genbench.leaderboard.diagrams import draw_comparison

    content = draw_comparison(comparison, form=path.suffix.lower().removeprefix("."))
    if content is None:
        raise GenbenchError(f"figure {path}: nothing to draw, no row has a curve and no pair has two finished seeds each")
    try:
        write_atomic(path, content)
    except OSError as error:
        raise GenbenchError(f"figure {path} can't be written: {error.strerror or error}") from None


def _curve(row: Row, table: Table) -> list[dict[str, float]]:
    """The row's median curve: share of the budget, what was spent in the budget's kind, score."""
    line = curve(row, table)
    if line is None:
        return []
    return [{"share": share, "spent": x, "score": y} for share, x, y in zip(line.shares, line.x, line.median, strict=True)]


def _pair_to_json(pair: Pair) -> dict[str, Any]:
    found, estimate, dealt = pair.difference, pair.estimate, pair.permutation
    return {
        "a": pair.a,
        "b": pair.b,
        "seeds": list(pair.seeds),
        "estimate": estimate and _finite(estimate[0]),
        "interval_95": estimate and [_finite(end) for end in estimate[1:]],
        "p": found and found.p,
        "df": found and found.df,
        "hedges_g": found and found.g,
        "permutation": dealt and {"p": dealt.p, "smallest_attainable": dealt.smallest},
        "distinguishable": None if found is None else found.p < 0.05,
    }


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
