"""Commands on records: leaderboards, comparisons."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from genbench.cli.options import Json, Results, console_for


def build_command(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder to write tables and pages to.")] = Path("leaderboards"),
    jobs: Annotated[int, typer.Option(min=0, help="Processes that make pages at a time; 0: as many as there are cores.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make everything anew, also what is unchanged since the last build.")] = False,
    as_json: Json = False,
) -> None:
    """Write Markdown, CSV, JSON, LaTeX and HTML tables, one set per track, from the records.

    Pages whose records have not changed since the last build into the same folder are left as they are; the files are the same as
    those of a build from scratch. Open site/index.html: it needs no server and no network.
    """
    from genbench.leaderboard import build

    written = build(results, out, jobs or os.cpu_count() or 1, remember=not fresh)
    if as_json:
        print(json.dumps([str(path) for path in written]))
        return
    print(f"{len(written)} files in {out}")
    print((out / "site" / "index.html").resolve())


def compare_command(
    names: Annotated[list[str], typer.Argument(metavar="A B ...", help="Labels as in the tables; a model's name where one row has it.")],
    track: Annotated[str, typer.Option(help="Name or hash of the track; needed where records are of several.")] = "",
    results: Results = Path("results"),
    score: Annotated[str, typer.Option(help="Score to compare by [default: what the track ranks by].")] = "",
    device: Annotated[str, typer.Option(help="Device class, like cpu-2; needed where records are of several.")] = "",
    figure: Annotated[Path | None, typer.Option(help="Draw curves and differences into this .svg, .png or .pdf file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare rows of a table: differences with 95 % intervals, p-values, effect sizes, and the curves.

    Scores above 0 are compared as logarithms, so that a difference is a ratio. Two rows: Welch's t test and an exact permutation test.
    More: all pairs together, by Games and Howell. A row takes two finished seeds for anything to be said of it.
    """
    from genbench.leaderboard import compare

    if figure is not None:
        compare.check_figure(figure)
    found = compare.compare(results, names, track, score, device)
    if figure is not None:
        compare.write_figure(found, figure)
    if as_json:
        print(json.dumps(compare.to_json(found), allow_nan=False))
        return
    from genbench.leaderboard.console import compared

    console_for().print(compared(found))
    if figure is not None:
        print(f"figure: {figure}")
