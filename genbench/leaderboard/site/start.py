"""The start page: the tracks with their leaders, the newest results, what tracks say together, records that could not be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genbench.harmless import clean
from genbench.leaderboard import words
from genbench.leaderboard.columns import ARROWS, Column
from genbench.leaderboard.site.frame import model_file, render
from genbench.leaderboard.site.grids import Grid
from genbench.leaderboard.table import Results, Row, Table
from genbench.leaderboard.text import stem

_TOP = 8
_NEWEST = 8


def start_page(results: Results, galleries: Mapping[str, Sequence[Grid]], across: Sequence[Mapping[str, Any]], built: str) -> bytes:
    """All tables, a few grids a track, figures over tracks (as dicts for the template) and a word on the build -> the start page."""
    return render(
        "start.html.j2",
        title="Leaderboards · genbench",
        description="Generative image models, each trained under one fixed budget, scored in one way and ranked per track.",
        tracks=[_track(name, tables, galleries.get(name, ())) for name, tables in results.by_track.items()],
        newest=newest(results),
        across=across,
        damaged=results.damaged,
        built=built,
    )


def _track(name: str, tables: Sequence[Table], grids: Sequence[Grid]) -> dict[str, Any]:
    table = tables[0]
    col = table.rank_column
    top = [_standing(row, col) for row in table.rows[:_TOP]]
    return {
        "name": name,
        "file": stem(name),
        "description": clean(table.track.description, 300),
        "headline": words.headline(table),
        "top": top,
        "column": f"{col.name} {ARROWS[col.better]}".strip() if col else "",
        "more": len(table.rows) - len(top),
        "models": len(table.rows),
        "grids": list(grids)[:3],
        "budget": table.track.budget,
        "device": table.device_class,
        "others": len(tables) - 1,
    }


def _standing(row: Row, col: Column | None) -> dict[str, Any]:
    """A row of the start page: its place and its ranking score."""
    cell = row.cells.get(col.key) if col else None
    mean, half = words.number(cell, col) if col else ("–", "")
    value = row.status if mean == "–" else f"{mean} ± {half}" if half else mean
    return {
        "rank": words.rank(row),
        "preliminary": row.preliminary,
        "label": row.label,
        "href": model_file(row),
        "family": row.kind,
        "seeds": row.seeds,
        "value": value,
        "best": bool(cell and cell.best),
    }


def newest(results: Results) -> list[dict[str, Any]]:
    """The models whose latest run started last, newest first: the day (UTC), where they stand and with what score."""
    dated = [(max(run.record.started for run in row.runs), table, row) for table in results.tables for row in table.rows if row.runs]
    dated.sort(key=lambda one: (one[0], one[1].track.name, one[2].label, one[2].id), reverse=True)
    return [
        {
            **_standing(row, table.rank_column),
            "day": clean(started[:10]),
            "track": table.track.name,
            "file": stem(table.track.name),
            "measure": table.rank_column.title if table.rank_column else "",
        }
        for started, table, row in dated[:_NEWEST]
    ]
