"""What several commands share: options, names -> what they mean, tables on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genbench.errors import GenbenchError

if TYPE_CHECKING:
    from rich.console import Console

    from genbench.inventory import Inventory, ModelDescription
    from genbench.track import Track

Results = Annotated[Path, typer.Option(help="Results folder.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout and nothing else.")]
Weights = Annotated[Path | None, typer.Option(help="File with the extractor's weights, where they can't be fetched.")]


def model_named(name: str, found: Inventory) -> ModelDescription:
    """Name of an installed model, or ``FILE.py:CLASS`` -> its description. Raises GenbenchError."""
    from genbench.inventory import describe_file

    return describe_file(name) if ".py" in name else found.model(name)


def track_named(name: str, budget: str) -> Track:
    """Name of a track, or a TOML file -> the track, with another budget where one is given. Raises GenbenchError."""
    from genbench.budget import Budget
    from genbench.inventory import inventory
    from genbench.track import load_track, with_budget

    chosen = load_track(Path(name)) if name.endswith(".toml") else inventory(["track"]).track(name)
    return with_budget(chosen, str(Budget.parse(budget))) if budget else chosen


def hparams_written(written: list[str], models: list[ModelDescription]) -> dict[str, dict[str, str]]:
    """``["dcgan.z_dim=64"]`` -> ``{"dcgan": {"z_dim": "64"}}``."""
    from genbench.errors import unknown

    changed: dict[str, dict[str, str]] = {}
    names = [model.name for model in models]
    for text in written:
        left, equals, value = text.partition("=")
        name, dot, key = left.rpartition(".")
        if not (equals and dot and name and key):
            raise GenbenchError(f"--hp {text!r} is not of the form MODEL.KEY=VALUE, like dcgan.z_dim=64")
        if name not in names:
            raise GenbenchError(f"--hp {text!r}: {unknown('model', name, names)}".replace("installed:", "this run has:"))
        changed.setdefault(name, {})[key] = value
    return changed


def print_rows(headers: list[str], rows: list[list[Any]]) -> None:
    """Rows of cells as a table on standard output."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*[escaped(str(cell)) for cell in row])
    console_for().print(table)


def console_for(stderr: bool = False) -> Console:
    """Tables need 100 columns; where output goes to a file or a pipe they get them."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=100)


def escaped(text: str) -> str:
    """Any text -> what rich prints as it stands, on one line and without control characters."""
    from rich.markup import escape

    return escape("".join(c for c in text if c.isprintable()))
