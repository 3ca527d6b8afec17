"""The static site: one HTML page a track and an index. All text is escaped by jinja2; a strict policy forbids any network."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from genbench.leaderboard import words
from genbench.leaderboard.columns import ARROWS, Column, write
from genbench.leaderboard.table import Results, Row, Run, Table
from genbench.leaderboard.text import clean, is_shipped, stem, track_toml

_TEMPLATES = Path(__file__).parent / "templates"
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5}(?:v\d+)?)", re.IGNORECASE)
_GRID_WIDTH = 300
"""Pixels a grid may take; it is scaled by the largest whole number that stays within."""


@dataclass(frozen=True)
class Grid:
    """A row's sample grid: path inside the site, size in pixels, the seed it shows; without one `missing` says why."""

    label: str
    path: str
    width: int
    height: int
    seed: int
    missing: str

    @property
    def scale(self) -> int:
        """Whole-number magnification."""
        return max(1, _GRID_WIDTH // self.width) if self.width else 1


def track_page(tables: Sequence[Table], figures: set[str], grids: Mapping[str, Grid]) -> str:
    """The tables of a track, the figures drawn and each row's grid -> an HTML page."""
    track = tables[0].track
    file = stem(track.name)
    sections = [_section(position, table, file, figures, grids, alone=len(tables) == 1) for position, table in enumerate(tables)]
    return _render(
        "track.html.j2",
        title=f"{track.name} · genbench",
        track=track,
        file=file,
        facts=words.facts(tables),
        key=words.key_facts(tables),
        sections=sections,
        legend=words.legend(tables),
        toml="" if is_shipped(track) else track_toml(track),
    )


def index(results: Results, galleries: Mapping[str, Sequence[Grid]]) -> str:
    """All tables and each track's grids -> the index page."""
    tracks = []
    for name, tables in results.by_track.items():
        table = tables[0]
        col = table.rank_column
        top = [_standing(row, col) for row in table.rows[:8]]
        tracks.append(
            {
                "name": name,
                "file": stem(name),
                "description": clean(table.track.description, 300),
                "headline": words.headline(table),
                "top": top,
                "column": f"{col.name} {ARROWS[col.better]}".strip() if col else "",
                "more": len(table.rows) - len(top),
                "grids": list(galleries.get(name, ()))[:3],
                "budget": table.track.budget,
                "device": table.device_class,
                "others": len(tables) - 1,
            }
        )
    return _render("index.html.j2", title="Leaderboards · genbench", tracks=tracks, damaged=results.damaged)


def _standing(row: Row, col: Column | None) -> dict[str, Any]:
    """A row of the index: its place and its ranking score."""
    cell = row.cells.get(col.key) if col else None
    mean, half = words.number(cell, col) if col else ("–", "")
    value = row.status if mean == "–" else f"{mean} ± {half}" if half else mean
    return {
        "rank": words.rank(row),
        "label": row.label,
        "family": row.kind,
        "seeds": row.seeds,
        "value": value,
        "best": bool(cell and cell.best),
    }


def _section(position: int, table: Table, file: str, figures: set[str], grids: Mapping[str, Grid], alone: bool) -> dict[str, Any]:
    """One table as the template wants it."""
    footnotes: list[str] = []
    main = table.main_columns
    plots = []
    fewer = 0 < table.track.curve_samples < table.track.num_samples
    for kind, title, alt, caption in _PLOTS:
        caption += " Scored on fewer images than in the table, so the level is higher." if kind == "curves" and fewer else ""
        light, dark = (f"img/{file}-{position}-{kind}-{theme}.svg" for theme in ("light", "dark"))
        if light in figures:
            plots.append({"title": title, "light": light, "dark": dark, "alt": alt, "caption": caption})
    shown = [grids[f"{position}-{row.id}"] for row in table.all_rows]
    return {
        "id": f"t{position}",
        "heading": "" if alone else f"Track {table.track_hash} on {table.device_class}",
        "headline": words.headline(table),
        "main": _view(table, main, footnotes, median=words.shows_median(table)),
        "sections": [
            {
                "title": section.title,
                "caption": section.caption,
                "view": _view(table, columns, footnotes, median=False, rows=rows, floor_of=section.floor),
            }
            for section, columns, rows in table.sections()
        ],
        "footnotes": [(words.sign(i), text) for i, text in enumerate(footnotes)],
        "notes": table.notes,
        "plots": plots,
        "grids": [grid for grid in shown if grid.path],
        "missing": [grid for grid in shown if not grid.path],
        "failures": words.failures(table),
        "recipes": [
            {
                "label": row.label,
                "hparams": clean(row.hparams, 400),
                "from": words.provenance(row),
                "command": words.recipe(row, table.track),
            }
            for row in table.all_rows
        ],
        "runs": [_run(table, row, run) for row in table.all_rows for run in row.runs],
        "rank_title": table.rank_column.name if table.rank_column else "",
    }


_PLOTS = (
    (
        "curves",
        "Along the budget",
        "Line chart: the score of each model against the training budget spent, controls as horizontal lines",
        "Median over seeds, the band is their range; drawn and scored off the clock. Dotted: controls.",
    ),
    (
        "pareto",
        "Quality against speed",
        "Scatter chart: FID against training throughput of each model, with the front that no model beats in both",
        "Down and to the right is better. Bold: no other model is both faster to train and closer to the real images.",
    ),
)


def _view(
    table: Table,
    columns: Sequence[Column],
    footnotes: list[str],
    *,
    median: bool,
    rows: Sequence[Row] | None = None,
    floor_of: str = "train, equal N",
) -> dict[str, Any]:
    """Some rows (or all) over `columns` as the template wants them; `floor_of`: which real images the floor row is of."""
    ranked = table.rank_column if median else None
    heads = [_head(col) for col in columns]
    if ranked:
        heads.insert(
            0,
            {
                **_head(ranked),
                "title": f"median {ranked.title}",
                "help": f"The median over seeds ranks; a failed run counts as worst. {ranked.help}",
            },
        )
    floor = None
    if any(col.key in table.floor for col in columns):
        values = [write(table.floor[col.key], col.form)[0] if col.key in table.floor else "" for col in columns]
        floor = ([""] if ranked else []) + values
    views = [(row, _row(table, row, columns, ranked, footnotes)) for row in (table.all_rows if rows is None else rows)]
    models, controls = ([view for row, view in views if row.control is wanted] for wanted in (False, True))
    groups = [(name, len(list(some))) for name, some in itertools.groupby(head["group"] for head in heads)]
    return {
        "heads": heads,
        "groups": groups,
        "models": models,
        "controls": controls,
        "floor": floor,
        "floor_of": floor_of,
        "width": len(heads) + 4,
    }


def _head(col: Column) -> dict[str, str]:
    group = f"seen by {col.extractor}" if col.extractor else "speed and size" if col.group == "speed" else ""
    return {"title": col.title, "arrow": ARROWS[col.better], "better": col.better, "help": f"{col.name}: {col.help}", "group": group}


def _row(table: Table, row: Row, columns: Sequence[Column], ranked: Column | None, footnotes: list[str]) -> dict[str, Any]:
    cells = []
    if ranked:
        cell = row.cells.get(ranked.key)
        worst = "–" if cell is None or cell.median is None else write(cell.median, ranked.form)[0]
        cells.append({"mean": worst, "half": "", "sort": None if cell is None else cell.median, "best": False, "mark": "", "tip": ""})
    for col in columns:
        cell = row.cells.get(col.key)
        mean, half = words.number(cell, col)
        mark = words.marks(table, row, col, footnotes)
        cells.append(
            {
                "mean": mean,
                "half": half,
                "sort": cell.mean if cell else None,
                "best": bool(cell and cell.best),
                "mark": mark,
                "tip": _tip(row, col),
            }
        )
    arxiv = _ARXIV.fullmatch(row.model.paper.strip())
    return {
        "rank": words.rank(row),
        "rank_sort": row.rank,
        "preliminary": row.preliminary,
        "label": row.label,
        "hparams": clean(row.hparams, 90),
        "family": row.kind,
        "seeds": row.seeds,
        "done": row.done,
        "all_done": row.done == len(row.runs),
        "status": row.status,
        "flags": row.flags,
        "cells": cells,
        "paper": f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else "",
        "id": row.id,
    }


def _tip(row: Row, col: Column) -> str:
    """What a cell says on hover: every seed's value."""
    cell = row.cells.get(col.key)
    if cell is None:
        return ""
    told = [f"seed {seed}: {'–' if value is None else write(value, col.form)[0]}" for seed, value in cell.values.items()]
    return "; ".join([*told, *([cell.note] if cell.note else [])])


def _run(table: Table, row: Row, run: Run) -> dict[str, Any]:
    record, col = run.record, table.rank_column
    cell = row.cells.get(col.key) if col else None
    value = cell.values.get(run.seed) if cell else None
    speed = record.throughput.train if record.throughput else None
    return {
        "label": row.label,
        "seed": run.seed,
        "status": record.status,
        "value": write(value, col.form)[0] if col and value is not None else "–",
        "steps": write(record.spent.steps, "count")[0] if record.spent else "–",
        "seconds": write(record.spent.seconds, "seconds")[0] if record.spent else "–",
        "speed": write(speed, "rate")[0] if speed else "–",
        "started": clean(record.started, 40),
        "folder": record.spec.folder.as_posix(),
        "flags": ", ".join(clean(flag, 60) for flag in record.flags),
    }


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _render(template: str, **values: Any) -> str:
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "sort.js"))
    own = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    policy = f"default-src 'none'; img-src 'self' file:; {own}; base-uri 'none'; form-action 'none'"
    # style and script are files of this package, the only text that is not escaped
    return _environment().get_template(template).render(style=style, script=script, policy=policy, **values)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
