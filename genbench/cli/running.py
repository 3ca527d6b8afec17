"""Commands that train: run and sweep."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genbench.cli.options import Json, Results, Weights, console_for, hparams_written, model_named, print_rows, track_named
from genbench.errors import GenbenchError

if TYPE_CHECKING:
    from genbench.records import RunRecord
    from genbench.run import Event
    from genbench.sweep.cell import Cell


def run_command(
    models: Annotated[list[str], typer.Argument(help="Names of installed models, or FILE.py:CLASS.", metavar="MODEL...")],
    track: Annotated[str, typer.Option(help="Name of a track, or a TOML file.")],
    seeds: Annotated[int, typer.Option(min=1, help="Number of training seeds: 0, 1, ...")] = 1,
    hp: Annotated[list[str] | None, typer.Option(help="Hyper-parameter of a model; may be repeated.", metavar="MODEL.KEY=VALUE")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices that train a run together, each on its part of every batch.")] = 1,
    budget: Annotated[str, typer.Option(help="Instead of the track's: 60s, 10m, 200kimg, 5000steps, 1e15flops.")] = "",
    results: Results = Path("results"),
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")] = None,
    weights: Weights = None,
    retry_failed: Annotated[bool, typer.Option(help="Run failed runs again.")] = False,
    as_json: Json = False,
) -> None:
    """Train models on a track, score them and print the leaderboard. The same command again repeats nothing that is done."""
    from genbench import progress
    from genbench import run as runs
    from genbench.inventory import inventory
    from genbench.leaderboard import terminal
    from genbench.lease import BusyError
    from genbench.sweep.cell import Cell, attempt

    console = console_for(stderr=as_json)
    with runs.supervised() as supervisor:
        found, chosen = inventory(), track_named(track, budget)
        described = [model_named(name, found) for name in dict.fromkeys(models)]
        changed = hparams_written(hp or [], described)
        runs.check_changes(described, changed)
        place = runs.check(chosen, supervisor, results=results, device=device, threads=threads, weights=weights, devices=devices)
        planned = runs.plan(described, chosen, range(seeds), place, changed)
        finished = {one.spec.folder: record for one in planned if (record := place.store.get(one.spec))}
        progress.plan_line(chosen, len(planned), len(finished), console)
        records = []
        for number, one in enumerate(planned, 1):
            position = f"{number}/{len(planned)}"
            record = finished.get(one.spec.folder)
            again = record is not None and record.status != "done" and retry_failed
            if record is None or again:
                try:
                    if again:
                        runs.retry(one, place.store)
                    with progress.shown(one, position, console) as show:
                        record = attempt(Cell(one, place), supervisor, show, runs.run)
                except BusyError:
                    raise GenbenchError(
                        f"another process works on {one.spec.model.name} seed {one.spec.seed}; the same command goes on when it is done"
                    ) from None
                if record is None:
                    raise KeyboardInterrupt
            progress.outcome_line(record, position, console)
            records.append(record)
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    else:
        console.print(terminal(results, chosen.name))
        console.print(
            f"records: {results}/runs/{chosen.name}   pages: genbench leaderboard build --results {results} --out DIR",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    if any(record.status != "done" for record in records):
        sys.exit(1)


def sweep_command(
    file: Annotated[Path, typer.Argument(help="TOML file: models, tracks, seeds, grids or random draws.", metavar="FILE.toml")],
    results: Results = Path("results"),
    executor: Annotated[str, typer.Option(help="Where runs happen: local, or ray: the nodes of a Ray cluster.")] = "local",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once: on the CPU, on each GPU or on the cluster; by default one, there all that fit.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each run; by default this machine's cores, or a node's, divided by its runs.")
    ] = None,
    weights: Weights = None,
    only: Annotated[list[str] | None, typer.Option(help="A model, a track or track/model/seed; may be repeated.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Run failed runs again.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would run, and stop.")] = False,
    address: Annotated[
        str, typer.Option(help="Of the Ray cluster: HOST:PORT; by default the one this machine belongs to, else a new one on it.")
    ] = "",
    storage: Annotated[
        str, typer.Option(help="Where nodes leave runs if they share no results folder: s3://bucket/folder, file:///folder.", metavar="URL")
    ] = "",
    resource: Annotated[
        list[str] | None, typer.Option(help="A Ray resource that nodes must have, like accelerator_type:H100; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run models x tracks x seeds x hparams. The same command again goes on where it was; several may share a results folder."""
    from genbench import progress
    from genbench.inventory import inventory
    from genbench.leaderboard import terminal
    from genbench.sweep import night
    from genbench.sweep.cell import Wishes
    from genbench.sweep.plan import load_sweep

    asked, console = load_sweep(file), console_for(stderr=as_json)
    wishes = Wishes(results, device, jobs, threads, weights, address, storage, tuple(resource or ()), asked.devices)
    with night.started(executor, wishes) as where:
        found = inventory()
        models = {name: model_named(name, found) for name in dict.fromkeys(asked.models)}
        tracks = [track_named(name, asked.budget) for name in dict.fromkeys(asked.tracks)]
        cells = night.cells_of(asked, models, tracks, where, only or [])
        if dry_run:
            _print_plan(night.outlook(cells, retry_failed), as_json)
            return
        if retry_failed:
            night.reopen_failed(cells, where)
        board = progress.Board([cell.planned for cell in cells], where.slots, console)
        begins = f"{file}: {len(cells)} runs, {where.slots} at a time on {cells[0].place.checked.device_class}"
        console.print(begins, highlight=False, markup=False)
        records, skipped = [], []

        def on_record(cell: Cell, record: RunRecord) -> None:
            records.append(record)
            board.record(cell.planned, record)

        def on_event(cell: Cell, event: Event) -> None:
            if event["kind"] == "elsewhere":
                skipped.append(cell)
                console.print(f"skipped: {event['reason']}", style="red", highlight=False, markup=False, soft_wrap=True)
            board.event(cell.planned, event)

        with board.shown():
            where.execute(cells, on_event, on_record)
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    else:
        ended = {record.spec.track.name for record in records}  # of a track whose runs were all skipped there may be no table
        for name in dict.fromkeys(cell.planned.spec.track.name for cell in cells):
            if name in ended:
                console.print(terminal(results, name))
        console.print(board.summary() + f"; {len(skipped)} skipped" * bool(skipped), highlight=False)
    if skipped or any(record.status != "done" for record in records):
        sys.exit(1)


def _print_plan(rows: list[dict[str, Any]], as_json: bool) -> None:
    """What a sweep would do: a line a run, and the device time that is still to be spent."""
    from genbench.sweep.night import cost

    if as_json:
        print(json.dumps(rows, indent=1))
        return
    headers = ["track", "model", "seed", "hparams", "budget", "state"]
    told = [{**row, "hparams": ", ".join(f"{key}={value}" for key, value in row["changed"].items())} for row in rows]
    print_rows(headers, [[row[header] for header in headers] for row in told])
    print(cost(rows))
