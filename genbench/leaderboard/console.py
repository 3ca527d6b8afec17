"""The table printed at the end of ``genbench run``: the vital columns, within 100 characters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.errors import GenbenchError
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.columns import ARROWS, Form, write
from genbench.leaderboard.table import Cell, Row, Table

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

_VITAL = ("is", "precision", "recall", "statistical_fidelity", "train_throughput", "sample_throughput")
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
    """A table -> a rich table at most 100 characters wide for names of ordinary length."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    ranked = table.rank_column
    first = [ranked] if ranked else []
    vital = [col for key in _VITAL for col in table.columns if col.key == key and col != ranked]
    title = Text(
        f"{table.track.name}  ·  {table.device_class}  ·  {table.track.num_samples} samples  ·  {table.track.extractor}", style="bold"
    )
    shown = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    shown.add_column("#", justify="right")
    shown.add_column("model", overflow="fold", max_width=22)
    shown.add_column("family")
    shown.add_column("seeds", justify="right")
    for col in first + vital:
        heading = _TITLES.get(col.key, col.title)
        joint = " " if "\n" in heading else "\n"  # the arrow on a line of its own keeps narrow columns narrow
        shown.add_column(Text(f"{heading}{joint}{ARROWS[col.better]}".strip()), justify="right")
    for row in table.rows:
        cells = [_cell(row, row.cells.get(col.key), col.form, interval=col in first) for col in first + vital]
        rank = "–" if row.rank is None else f"({row.rank})" if row.preliminary else str(row.rank)
        style = "dim" if row.preliminary else "bold"
        shown.add_row(
            Text(rank, style), Text(row.label), Text(row.family), Text(row.seeds, "red" if row.done < len(row.runs) else ""), *cells
        )
    if table.controls or table.floor:
        shown.add_section()
    for row in table.controls:
        cells = [_cell(row, row.cells.get(col.key), col.form, interval=col in first) for col in first + vital]
        shown.add_row("", Text(row.label, "dim"), Text("control", "dim"), Text(row.seeds, "dim"), *cells)
    if table.floor:
        values = [Text(write(table.floor[col.key], col.form)[0] if col.key in table.floor else "", "dim") for col in first + vital]
        shown.add_row("", Text("real data", "dim"), Text("floor", "dim"), "", *values)
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
