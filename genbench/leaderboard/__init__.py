"""The leaderboard: a pure function of the records on disk. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group


def build(results: Path | Sequence[Path], out: Path, jobs: int = 1, remember: bool = False) -> list[Path]:
    """Results folders -> README.md, a page, CSV, JSON and LaTeX a track, and ``site/index.html`` under `out`. Returns its files.

    `jobs`: processes that make pages at a time. `remember`: leave alone what an earlier build into `out` made of the same records.
    Raises GenbenchError where there is no readable record or `out` can't be written.
    """
    from genbench.leaderboard import render

    return render.build(results, Path(out), jobs, remember)


def read_rows(results: Path | Sequence[Path], track: str | None = None) -> list[dict[str, Any]]:
    """Results folders -> one JSON-ready object a row (of one track where named), in the order of the tables."""
    from genbench.leaderboard import aggregate, tabular

    return tabular.rows([table for table in aggregate.read(results).tables if track in (None, table.track.name)])


def terminal(results: Path | Sequence[Path], track: str | None = None) -> Group:
    """Results folders -> their rankings (of one track where named) as a rich renderable at most 100 columns wide."""
    from genbench.leaderboard import console

    return console.terminal(results, track)
