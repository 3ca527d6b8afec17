"""The page of a track: its tables, what they mean, samples side by side, figures, failures, every run."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from genbench.harmless import clean
from genbench.leaderboard import words
from genbench.leaderboard.columns import ARROWS, Column, Form, write
from genbench.leaderboard.site.frame import model_file, render
from genbench.leaderboard.site.grids import Grid
from genbench.leaderboard.table import Row, Run, Table, full_seeds
from genbench.leaderboard.text import is_shipped, stem, track_file

FIGURES = (
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
    (
        "pareto-sampling",
        "Quality against speed of sampling",
        "Scatter chart: FID against sampling throughput of each model, with the front that no model beats in both",
        "Down and to the right is better, at the best batch size measured. Bold: no other model both draws faster and is closer to real.",
    ),
    (
        "pareto-memory",
        "Quality against memory",
        "Scatter chart: FID against peak memory of training of each model, with the front that no model beats in both",
        "Down and to the left is better. Bold: no other model both takes less memory and is closer to the real images.",
    ),
)
"""Figures of a table: name of the file, title, alternative text, caption."""
_TALL = 25
"""Rows from which a table scrolls by itself, below a heading that stays."""


def track_page(tables: Sequence[Table], figures: Collection[str], grids: Mapping[str, Grid], built: str) -> bytes:
    """The tables of a track, the paths of the figures drawn, each row's grid by ``<table>-<row>``, a word on the build -> a page."""
    track = tables[0].track
    file = stem(track.name)
    return render(
        "track.html.j2",
        title=f"{track.name} · genbench",
        description=clean(track.description, 300),
        track=track,
        file=file,
        facts=words.facts(tables),
        key=words.key_facts(tables),
        sections=[_section(position, table, file, figures, grids, alone=len(tables) == 1) for position, table in enumerate(tables)],
        legend=words.legend(tables),
        own_tracks=words.own_tracks(tables),
        built=built,
    )


def _section(position: int, table: Table, file: str, figures: Collection[str], grids: Mapping[str, Grid], alone: bool) -> dict[str, Any]:
    """One table as the template wants it."""
    footnotes: list[str] = []
    shown = [(row, grids[f"{position}-{row.id}"]) for row in table.all_rows]
    main = _view(table, table.main_columns, footnotes, median=words.shows_median(table))
    return {
        "id": f"t{position}",
        "heading": "" if alone else words.which(table),
        "headline": words.headline(table),
        "main": main,
        "tools": _tools(table),
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
        "plots": _plots(position, table, file, figures),
        "grids": [(grid, model_file(row)) for row, grid in shown if grid.path],
        "missing": [grid for _, grid in shown if not grid.path],
        "failures": words.failures(table.all_rows),
        "recipes": [
            {
                "label": row.label,
                "hparams": clean(row.hparams, 400),
                "from": words.provenance(row),
                "command": words.recipe(row, table.track),
            }
            for row in table.all_rows
        ],
        "own_track": "" if is_shipped(table.track) else track_file(table.track),
        "runs": [_run(table, row, run) for row in table.all_rows for run in row.runs],
        "rank_title": table.rank_column.name if table.rank_column else "",
    }


def _plots(position: int, table: Table, file: str, figures: Collection[str]) -> list[dict[str, str]]:
    plots = []
    fewer = 0 < table.track.curve_samples < table.track.num_samples and not table.track.ranks_by_likelihood
    for kind, title, alt, caption in FIGURES:
        caption += " Scored on fewer images than in the table, so the level is higher." if kind == "curves" and fewer else ""
        light, dark = (f"img/{file}-{position}-{kind}-{theme}.svg" for theme in ("light", "dark"))
        if light in figures:
            plots.append({"title": title, "light": light, "dark": dark, "alt": alt, "caption": caption})
    return plots


def _tools(table: Table) -> dict[str, Any]:
    """What the models of a table can be filtered by: families, and words that hold for some rows but not for all."""
    families = sorted({row.family for row in table.rows})
    told = [set(marks(row)) for row in table.rows]
    shown = []
    for word, with_it, without in _FILTERS:
        having = sum(word in some for some in told)
        if 0 < having < len(told):
            shown += [(f"+{word}", with_it), (f"-{word}", without)]
    return {"families": families if len(families) > 1 else [], "words": shown}


_FILTERS = (
    ("preliminary", "preliminary", "with a full rank"),
    ("failed", "with failed seeds", "without failed seeds"),
    ("conditional", "told the class", "not told the class"),
    ("pretrained", "with outside weights or data", "without outside weights or data"),
    ("contended", "contended for cores", "not contended"),
    ("memorised", "that copy training images", "that do not copy training images"),
    ("verified", "verified by others or anew (T1 and up)", "as reported (T0)"),
)


def marks(row: Row) -> list[str]:
    """The words of `_FILTERS` that hold for a row."""
    flags = " ".join(flag for run in row.runs for flag in run.record.flags)
    found = {
        "preliminary": row.preliminary,
        "failed": row.done < len(row.runs),
        "conditional": "conditional" in flags,
        "pretrained": bool(row.model.pretrained),
        "contended": any(run.record.spent and run.record.spent.contended for run in row.runs),
        "memorised": "memorised" in flags,
        "verified": not row.tier.startswith("T0"),
    }
    return [word for word, holds in found.items() if holds]


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
        told = f"The median over seeds ranks; a failed run counts as worst. {ranked.help}"
        heads.insert(0, {**_head(ranked), "title": f"median {ranked.title}", "help": told})
    floor = None
    if any(col.key in table.floor for col in columns):
        values = [write(table.floor[col.key], col.form)[0] if col.key in table.floor else "" for col in columns]
        floor = ([""] if ranked else []) + values
    views = [(row, _row(table, row, columns, ranked, footnotes)) for row in (table.all_rows if rows is None else rows)]
    models, controls = ([view for row, view in views if row.control is wanted] for wanted in (False, True))
    groups = [(name, len(list(some))) for name, some in itertools.groupby(head["group"] for head in heads)]
    lettered = rows is None and words.shows_groups(table)
    return {
        "heads": heads,
        "groups": groups,
        "models": models,
        "controls": controls,
        "floor": floor,
        "floor_of": floor_of,
        "lettered": lettered,
        "fixed": 5 if lettered else 4,
        "tall": len(models) > _TALL,
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
        best = bool(cell and cell.best)
        cells.append({"mean": mean, "half": half, "sort": cell.mean if cell else None, "best": best, "mark": mark, "tip": _tip(row, col)})
    return {
        "rank": words.rank(row),
        "rank_sort": row.rank,
        "interval": words.rank_interval(row),
        "group": row.group,
        "preliminary": row.preliminary,
        "full": full_seeds(row.planned),
        "label": row.label,
        "href": model_file(row),
        "hparams": clean(row.hparams, 90),
        "family": row.kind,
        "filter": row.family,
        "words": " ".join(marks(row)),
        "seeds": row.seeds,
        "tier": row.tier,
        "done": row.done,
        "all_done": row.done == len(row.runs),
        "status": row.status,
        "flags": row.flags,
        "cells": cells,
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
    steps, seconds = (record.spent.steps, record.spent.seconds) if record.spent else (None, None)
    speed = record.throughput.train if record.throughput else None
    return {
        "label": row.label,
        "href": model_file(row),
        "seed": run.seed,
        "status": record.status,
        "numbers": [
            _sortable(value, col.form if col else "score"),
            _sortable(steps, "count"),
            _sortable(seconds, "seconds"),
            _sortable(speed or None, "rate"),
        ],
        "started": clean(record.started, 40),
        "folder": record.spec.folder.as_posix(),
        "flags": ", ".join(clean(flag, 60) for flag in record.flags),
    }


def _sortable(value: float | None, form: Form) -> dict[str, Any]:
    """A number as it is shown and as its column is sorted by; a dash, which goes last, where there is none."""
    return {"shown": "–", "sort": ""} if value is None else {"shown": write(value, form)[0], "sort": value}
