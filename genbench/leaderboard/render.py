"""Records -> everything that is published: Markdown, CSV, JSON, and a static site that works from ``file://``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from genbench.errors import GenbenchError
from genbench.leaderboard import export, figures, markdown, page, words
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.table import Row, Table
from genbench.leaderboard.text import is_shipped, stem, track_toml
from genbench.records import safe_name, write_atomic

_LARGEST_GRID = 8_000_000
"""Bytes; a larger file beside a record is not taken for a grid."""


def build(results: Path | Sequence[Path], out: Path) -> list[Path]:
    """Results folders -> tables, pages and figures under `out`: a pure function of records and grids. Returns the files."""
    found = read(results)
    files: dict[str, bytes] = {}
    galleries: dict[str, list[page.Grid]] = {}
    for name, tables in found.by_track.items():
        file = stem(name)
        drawn = _figures(tables, file)
        files |= {f"site/{path}": content for path, content in drawn.items()}
        grids: dict[str, page.Grid] = {}
        for position, table in enumerate(tables):
            for row in table.all_rows:
                grid, content = _grid(row, table, f"img/{file}-{position}-{safe_name(row.model.name)[:40]}-{row.id}.png")
                grids[f"{position}-{row.id}"] = grid
                if content is not None:
                    files[f"site/{grid.path}"] = content
        galleries[name] = [grids[f"0-{row.id}"] for row in tables[0].all_rows if grids[f"0-{row.id}"].path]
        images = {key: f"site/{grid.path}" for key, grid in grids.items() if grid.path}
        plots = {key: f"site/{path}" for key in _figure_keys(tables) if (path := f"img/{file}-{key}-light.svg") in drawn}
        files[f"{file}.md"] = markdown.track_page(tables, plots, images).encode()
        files[f"{file}.csv"] = export.to_csv(tables)
        files[f"{file}.json"] = export.to_json(tables)
        files[f"site/{file}.html"] = page.track_page(tables, set(drawn), grids).encode()
        if not is_shipped(tables[0].track):
            files[f"{file}.toml"] = track_toml(tables[0].track).encode()
    files["README.md"] = markdown.index(found).encode()
    files["site/index.html"] = page.index(found, galleries).encode()
    try:
        for path in sorted(files):
            write_atomic(out / path, files[path])
    except OSError as error:
        raise GenbenchError(
            f"leaderboard folder {out} can't be written: {error.strerror or error}; choose another with --out DIR"
        ) from None
    return [out / path for path in sorted(files)]


def _figure_keys(tables: Sequence[Table]) -> list[str]:
    return [f"{position}-{kind}" for position in range(len(tables)) for kind in ("curves", "pareto")]


def _figures(tables: Sequence[Table], file: str) -> dict[str, bytes]:
    """The figures of a track's tables by path inside the site."""
    drawn = {}
    for position, table in enumerate(tables):
        for kind, draw in (("curves", figures.draw_curves), ("pareto", figures.draw_pareto)):
            for theme in figures.THEMES:
                content = draw(table, theme)
                if content is not None:
                    drawn[f"img/{file}-{position}-{kind}-{theme.name}.svg"] = content
    return drawn


def _grid(row: Row, table: Table, path: str) -> tuple[page.Grid, bytes | None]:
    """The grid of the row's median run, checked to be a PNG; without one, a grid that says why."""
    from PIL import Image

    run = words.median_run(row, table.track.rank_by)
    if run is None:
        return page.Grid(row.label, "", 0, 0, 0, "no run finished"), None
    file = run.grid
    try:
        if file.stat().st_size > _LARGEST_GRID:
            return page.Grid(row.label, "", 0, 0, run.seed, "the grid beside its record is too large"), None
        content = file.read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            width, height = image.size
            image.verify()
    except FileNotFoundError:
        return page.Grid(row.label, "", 0, 0, run.seed, "no grid beside its record"), None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return page.Grid(row.label, "", 0, 0, run.seed, "the grid beside its record is damaged"), None
    return page.Grid(row.label, path, width, height, run.seed, ""), content
