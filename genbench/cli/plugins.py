"""Commands about what is installed and for those who write it: list, doctor, check, new."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genbench.cli.options import Json, console_for, escaped, print_rows
from genbench.errors import GenbenchError

if TYPE_CHECKING:
    from genbench.inventory import Inventory

KINDS = ("models", "datasets", "metrics", "extractors", "tracks")


def list_command(
    kind: Annotated[str, typer.Argument(help="models, datasets, metrics, extractors or tracks; everything where it is left out.")] = "",
    as_json: Json = False,
) -> None:
    """Show what is installed: name, what it is, and the distribution it comes from."""
    from genbench.errors import unknown
    from genbench.inventory import inventory

    if kind and kind not in KINDS:
        raise GenbenchError(str(unknown("kind", kind, KINDS)).replace("installed:", "kinds:"))
    found = inventory([kind.removesuffix("s")] if kind else None)  # type: ignore[list-item]
    if as_json:
        items = [{"kind": name.removesuffix("s"), **item} for name in ([kind] if kind else KINDS) for item in _listing(found, name)]
        print(json.dumps(items, indent=1))
        return
    for name in [kind] if kind else KINDS:
        _print_table(name, found)
    for broken in found.broken:
        print(f"broken: {broken.distribution} {broken.version} ({broken.source}): {broken.reason}", file=sys.stderr)


def doctor_command(as_json: Json = False) -> None:
    """Say what works here: device, plugins, datasets and weights; and how to get what is missing."""
    from genbench.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
        return
    print_rows(["", "what", "state"], [["ok" if f.ok else "--", f"{f.kind} {f.name}", f.state] for f in findings])


def check_command(
    models: Annotated[list[str], typer.Argument(help="Names of installed models, or FILE.py:CLASS.", metavar="MODEL...")],
    as_json: Json = False,
) -> None:
    """Hold models to the contract, one line a check: for their authors. Exit code 1 where one fails."""
    from dataclasses import asdict

    from rich.padding import Padding

    from genbench.catalogue import load_entry
    from genbench.inventory import inventory
    from genbench.testing import outcomes

    entries = [load_entry(name if ".py" in name else inventory().model(name).source, name) for name in dict.fromkeys(models)]
    found, console = [], console_for(stderr=as_json)
    for entry in entries:
        if not as_json:
            console.print(f"{entry.name}  ({entry.distribution} {entry.version})", style="bold", highlight=False)
        for outcome in outcomes(entry.spec):
            found.append(outcome)
            if not as_json:
                style = {"ok": "green", "failed": "red", "skipped": "dim"}[outcome.status]
                console.print(f"  [{style}]{outcome.status:8}[/]{outcome.check:32}{outcome.seconds:6.1f} s", highlight=False)
                if outcome.message:
                    console.print(Padding(escaped(outcome.message), (0, 0, 0, 10)), style=style, highlight=False)
    failed = [outcome for outcome in found if outcome.status == "failed"]
    if as_json:
        print(json.dumps([asdict(outcome) for outcome in found], indent=1))
    else:
        console.print(f"{len(found)} checks, {len(failed)} failed", highlight=False)
    if failed:
        sys.exit(1)


def new_command(
    name: Annotated[str, typer.Argument(help="Of the model: lower-case words joined by dashes, like my-gan.")],
    family: Annotated[str, typer.Option(help="gan or vae: what the model in it starts as.")],
    path: Annotated[Path, typer.Option(help="Folder to write genbench-NAME into.")] = Path(),
    as_json: Json = False,
) -> None:
    """Write a package with a model of your own: it installs, passes its tests and trains as it stands."""
    from genbench.inventory import inventory
    from genbench.scaffold import new_package

    taken = {model.name: model for model in inventory().models}
    if name in taken:
        raise GenbenchError(f"a model called {name!r} is installed already, by {taken[name].distribution}; choose another name")
    written = new_package(name, family, path)
    if as_json:
        print(json.dumps([str(file) for file in written]))
        return
    folder = path / f"genbench-{name}"
    print(f"{folder}: {len(written)} files")
    print(f"  pip install -e {folder}")
    print(f"  genbench check {name}")
    print(f"  genbench run {name} --track digits-20s")
    print(f"then make {written[4]} your own, and choose a licence in pyproject.toml")


def _listing(found: Inventory, kind: str) -> list[dict[str, Any]]:
    return [item.model_dump(mode="json") for item in getattr(found, kind)]


def _print_table(kind: str, found: Inventory) -> None:
    columns = {
        "models": ("name", "family", "paper", "distribution", "version"),
        "datasets": ("name", "description", "distribution"),
        "metrics": ("name", "description", "paper", "distribution"),
        "extractors": ("name", "description", "distribution"),
        "tracks": ("name", "dataset", "size", "budget", "num_samples", "extractor", "rank_by"),
    }[kind]
    rows = [[item.get(column, "") for column in columns] for item in _listing(found, kind)]
    print_rows([column.replace("_", " ") if column != "name" else kind for column in columns], rows)
