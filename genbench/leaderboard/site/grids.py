"""Sample grids: which there are, whether they are pictures, and how large they are shown."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

from genbench.leaderboard import words
from genbench.leaderboard.table import Row, Run, Table
from genbench.leaderboard.text import stem
from genbench.records import safe_name

_LARGEST = 8_000_000
"""Bytes; a larger file beside a record is not taken for a grid."""
_WIDTH = 300
"""Pixels a grid may take; it is scaled by the largest whole number that stays within."""


@dataclass(frozen=True)
class Grid:
    """A run's sample grid: path inside the site, size in pixels, the seed it shows; without one `missing` says why."""

    label: str
    path: str
    width: int
    height: int
    seed: int
    missing: str
    content: bytes = b""

    @property
    def scale(self) -> int:
        """Whole-number magnification."""
        return max(1, _WIDTH // self.width) if self.width else 1


def median_grid(row: Row, table: Table) -> Grid:
    """A row -> the grid of the run with its median score, not of its best."""
    run = words.median_run(row, table.track.rank_by)
    return Grid(row.label, "", 0, 0, 0, "no run finished") if run is None else grid(row, run)


def grid(row: Row, run: Run) -> Grid:
    """A run of a row -> its grid, checked to be a PNG; without one, a grid that says why."""
    from PIL import Image

    try:
        if run.grid.stat().st_size > _LARGEST:
            return Grid(row.label, "", 0, 0, run.seed, "the grid beside its record is too large")
        content = run.grid.read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            width, height = image.size
            image.verify()
    except FileNotFoundError:
        return Grid(row.label, "", 0, 0, run.seed, "no grid beside its record")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return Grid(row.label, "", 0, 0, run.seed, "the grid beside its record is damaged")
    return Grid(row.label, _path(run), width, height, run.seed, "", content)


def _path(run: Run) -> str:
    spec = run.record.spec
    return f"img/{stem(spec.track.name)}-{safe_name(spec.model.name)[:40]}-{run.seed}-{spec.hash}.png"


def grid_digest(run: Run) -> str:
    """SHA-256 of the file where a run's grid would be; empty where there is none to read."""
    try:
        return hashlib.sha256(run.grid.read_bytes()).hexdigest() if run.grid.stat().st_size <= _LARGEST else "large"
    except OSError:
        return ""
