"""Commands on records: leaderboards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from genbench.cli.options import Json, Results


def build_command(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder to write tables and pages to.")] = Path("leaderboards"),
    as_json: Json = False,
) -> None:
    """Write Markdown, CSV, JSON and HTML tables, one set per track, from the records."""
    from genbench.leaderboard import build

    written = build(results, out)
    if as_json:
        print(json.dumps([str(path) for path in written]))
        return
    print(f"{len(written)} files written to {out}")
    print((out / "site" / "index.html").resolve())
