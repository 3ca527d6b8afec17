"""What is printed: the table at the end of ``genbench run``, its vital columns within 100 characters, and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.errors import GenbenchError
from genbench.leaderboard import words
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.columns import ARROWS, Form, write
from genbench.leaderboard.curves import curve, curve_title
from genbench.leaderboard.table import Cell, Row, Table

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

    from genbench.leaderboard.compare import Comparison

_VITAL = ("is", "precision", "recall", "statistical_fidelity", "train_throughput", "sample_throughput")
_DISPENSABLE = ("is", "sample_throughput", "precision", "recall", "statistical_fidelity", "train_throughput")
"""What makes room, in this order, where a table would be wider than `_WIDTH` characters."""
_WIDTH = 100
_TITLES = {"train_throughput": "train\nimg/s", "sample_throughput": "sample\nimg/s", "precision": "prec."}


def terminal(results: Path | Sequence[Path], track: str | None = None) -> Group:
    """Results folder -> its rankings (of one track where named) as a rich renderable. Raises GenbenchError where there are none."""
    from rich.console import Group

    found = read(results)
    tables = [table for table in found.tables if track in (None, table.track.name)]
    if not tables:
        raise GenbenchError(f"no record of track {track!r}; there are: {', '.join(found.by_track)}")
    return Group(*(render(table) for table in tables))


def render(table: Table) -> RichTable:
    """A table -> a rich table at most 100 characters wide for names of ordinary length: columns that rank nothing make room."""
    from rich.console import Console
    from rich.measure import Measurement

    wide = Console(width=1000, force_terminal=False)
    keys = [key for key in _VITAL if key in {col.key for col in table.columns} and key != table.track.rank_by]
    for _ in range(len(keys)):
        shown = _ranking(table, keys)
        if Measurement.get(wide, wide.options, shown).maximum <= _WIDTH:
            return shown
        keys.remove(next(key for key in _DISPENSABLE if key in keys))
    return _ranking(table, keys)


def _ranking(table: Table, keys: Sequence[str]) -> RichTable:
    """A table with the columns of some measures beside the one it is ranked by."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    ranked = table.rank_column
    first = [ranked] if ranked else []
    intervals, groups = any(row.rank_interval for row in table.rows), words.shows_groups(table)
    vital = [col for key in keys for col in table.columns if col.key == key and col != ranked]
    title = Text(
        f"{table.track.name}  ·  {table.device_class}  ·  {table.track.num_samples} samples  ·  {table.track.extractor}", style="bold"
    )
    shown = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    shown.add_column("#", justify="right")
    if intervals:
        shown.add_column("95 %", justify="right")
    shown.add_column("model", overflow="fold", max_width=22)
    shown.add_column("family")
    shown.add_column("seeds", justify="right")
    if groups:
        shown.add_column("group", overflow="ellipsis", max_width=8)
    for col in first + vital:
        heading = _TITLES.get(col.key, col.title)
        joint = " " if "\n" in heading else "\n"  # the arrow on a line of its own keeps narrow columns narrow
        shown.add_column(Text(f"{heading}{joint}{ARROWS[col.better]}".strip()), justify="right", no_wrap=col in first)
    for row in table.rows:
        cells = [_cell(row, row.cells.get(col.key), col.form, interval=col in first) for col in first + vital]
        style = "dim" if row.preliminary else "bold"
        start = [Text(words.rank(row), style), *([Text(words.rank_interval(row), "dim")] if intervals else [])]
        seeds = Text(row.seeds, "red" if row.done < len(row.runs) else "")
        shown.add_row(*start, Text(row.label), Text(row.family), seeds, *([Text(row.group)] if groups else []), *cells)
    if table.controls or table.floor:
        shown.add_section()
    for row in table.controls:
        cells = [_cell(row, row.cells.get(col.key), col.form, interval=col in first) for col in first + vital]
        start = [Text("")] * (1 + intervals)
        shown.add_row(*start, Text(row.label, "dim"), Text("control", "dim"), Text(row.seeds, "dim"), *[""] * groups, *cells)
    if table.floor:
        values = [Text(write(table.floor[col.key], col.form)[0] if col.key in table.floor else "", "dim") for col in first + vital]
        shown.add_row(*[""] * (1 + intervals), Text("real data", "dim"), Text("floor", "dim"), *[""] * (1 + groups), *values)
    if table.notes:
        shown.caption = Text(" ".join(table.notes), style="dim")
        shown.caption_justify = "left"
    return shown


def _cell(row: Row, cell: Cell | None, form: Form, interval: bool) -> Text:
    from rich.text import Text

    if cell is None or cell.mean is None:
        # a row without its score says why in the place where one looks for it
        return Text(row.status if interval and row.done < len(row.runs) else "–", "red" if interval else "dim")
    mean, half = write(cell.mean, form, cell.half if interval else None)
    text = f"{mean} ± {half}" if interval and half else mean
    return Text(text, "bold" if cell.best else "dim" if row.control else "")


_SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of the budget at which curves are printed."""


def compared(comparison: Comparison) -> Group:
    """A comparison -> rich renderables: rows with every seed, pairs, curves, what to know."""
    from rich.console import Group
    from rich.text import Text

    table, col = comparison.table, comparison.column
    title = Text(f"{table.track.name}  ·  {table.device_class}  ·  {col.heading}", style="bold")
    shown: list[RenderableType] = [title, _rows(comparison), _pairs(comparison)]
    curves = _curves(comparison)
    shown += [curves] if curves.row_count else []
    if len(comparison.pairs) == 1:
        (pair,) = comparison.pairs
        shown.append(Text(words.sentence(comparison, pair)))
        if (dealt := pair.permutation) is not None:
            least = f"the least that {pair.seeds[0]} against {pair.seeds[1]} seeds can give is {dealt.smallest:.2g}"
            shown.append(Text(f"Exact permutation test: p = {dealt.p:.2g}; {least}."))
    return Group(*shown, *(Text(note, "dim") for note in comparison.notes))


def _rows(comparison: Comparison) -> RichTable:
    from rich.text import Text

    col = comparison.column
    shown = _plain("row", "seeds", "mean", "median", "by seed")
    for row in comparison.rows:
        cell = row.cells.get(col.key)
        mean, half = words.number(cell, col)
        middle = "–" if cell is None or cell.median is None else write(cell.median, col.form)[0]
        seeds = ", ".join("–" if value is None else write(value, col.form)[0] for _, value in sorted(cell.values.items())) if cell else ""
        shown.add_row(Text(row.label), row.seeds, f"{mean} ± {half}" if half else mean, middle, seeds)
    return shown


def _pairs(comparison: Comparison) -> RichTable:
    from rich.text import Text

    shown = _plain("pair", "ratio" if comparison.scale == "log" else "difference", "95 % interval", "p", "Hedges' g", "")
    joint = " / " if comparison.scale == "log" else " − "
    for pair in comparison.pairs:
        found = pair.difference
        p, g = ("–", "–") if found is None else (words.p_value(found.p), "–" if found.g is None else f"{found.g:.2f}")
        clear = found is not None and found.p < 0.05
        shown.add_row(Text(f"{pair.a}{joint}{pair.b}"), *words.estimate(pair), p, g, Text(words.verdict(pair), "bold" if clear else "dim"))
    return shown


def _curves(comparison: Comparison) -> RichTable:
    """The median curve of each row at a few shares of the budget."""
    from rich.text import Text

    track = comparison.table.track
    shares = [share for share in _SHARES if share in track.curve] or list(track.curve[-5:])
    shown = _plain(f"{curve_title(track)} after", *(f"{share:.0%}".replace("%", " %") for share in shares))
    for row in comparison.rows:
        if line := curve(row, comparison.table):
            scores = dict(zip(line.shares, line.median, strict=True))
            shown.add_row(Text(row.label), *(write(scores[share], "score")[0] if share in scores else "–" for share in shares))
    return shown


def _plain(*heads: str) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for at, head in enumerate(heads):
        shown.add_column(head, justify="right" if at else "left", overflow="fold")
    return shown
