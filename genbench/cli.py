"""The command line: reads words, calls one function, prints. Errors of the user are one line, exit code 2."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from genbench.errors import GenbenchError

if TYPE_CHECKING:
    from rich.console import Console

    from genbench.inventory import Inventory, ModelDescription
    from genbench.records import RunRecord
    from genbench.sweep.local import Cell
    from genbench.track import Track

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Benchmark suite for generative image models: GANs and VAEs under one fixed budget, scored in one way.",
)  # fmt: skip
boards = typer.Typer(no_args_is_help=True, help="Build leaderboards from the records of runs.")
extractors = typer.Typer(no_args_is_help=True, help="Train the in-domain classifiers whose features FID is computed in.")
app.add_typer(boards, name="leaderboard")
app.add_typer(extractors, name="extractor")

Results = Annotated[Path, typer.Option(help="Results folder.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout and nothing else.")]
Weights = Annotated[Path | None, typer.Option(help="File with the extractor's weights, where they can't be fetched.")]
KINDS = ("models", "datasets", "metrics", "extractors", "tracks")


def main() -> None:
    """Run the command line; exit codes: 0 all done, 1 some run failed, 2 the user's mistake, 130 interrupted."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except GenbenchError as error:
        _exit(f"genbench: {error}", 2)
    except KeyboardInterrupt:
        _exit("genbench: interrupted; the same command resumes", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


@app.command("list")
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


@app.command("run")
def run_command(
    models: Annotated[list[str], typer.Argument(help="Names of installed models, or FILE.py:CLASS.", metavar="MODEL...")],
    track: Annotated[str, typer.Option(help="Name of a track, or a TOML file.")],
    seeds: Annotated[int, typer.Option(min=1, help="Number of training seeds: 0, 1, ...")] = 1,
    hp: Annotated[list[str] | None, typer.Option(help="Hyper-parameter of a model; may be repeated.", metavar="MODEL.KEY=VALUE")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
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

    console = _console(stderr=as_json)
    with runs.supervised() as supervisor:
        found, chosen = inventory(), _track(track, budget)
        described = [_model(name, found) for name in dict.fromkeys(models)]
        changed = _hparams(hp or [], described)
        runs.check_changes(described, changed)
        place = runs.check(chosen, supervisor, results=results, device=device, threads=threads, weights=weights)
        planned = runs.plan(described, chosen, range(seeds), place, changed)
        finished = {one.spec.folder: record for one in planned if (record := place.store.get(one.spec))}
        progress.plan_line(chosen, len(planned), len(finished), console)
        records = []
        for number, one in enumerate(planned, 1):
            position = f"{number}/{len(planned)}"
            record = finished.get(one.spec.folder)
            if record is not None and record.status != "done" and retry_failed:
                runs.retry(one, place.store)
                record = None
            if record is None:
                with progress.shown(one, position, console) as show:
                    record = runs.run(one, place, supervisor, show)
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
            highlight=False,
            soft_wrap=True,
        )
    if any(record.status != "done" for record in records):
        sys.exit(1)


@app.command("sweep")
def sweep_command(
    file: Annotated[Path, typer.Argument(help="TOML file: models, tracks, seeds, grids or random draws.", metavar="FILE.toml")],
    results: Results = Path("results"),
    executor: Annotated[str, typer.Option(help="Where runs happen: local.")] = "local",
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at once; one by default on a CPU, one for each GPU.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each run; the cores divided by --jobs by default.")] = None,
    weights: Weights = None,
    only: Annotated[list[str] | None, typer.Option(help="A model, a track or track/model/seed; may be repeated.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Run failed runs again.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Run models x tracks x seeds x hparams. The same command again goes on where it was; several may share a results folder."""
    from genbench import machine, progress
    from genbench import run as runs
    from genbench.inventory import inventory
    from genbench.leaderboard import terminal
    from genbench.sweep.local import Cell, devices_for, execute, threads_for
    from genbench.sweep.plan import load_sweep, runs_of
    from genbench.sweep.plan import only as only_these

    if executor != "local":
        raise GenbenchError(f"executor {executor!r} is not one of: local")
    asked, console = load_sweep(file), _console(stderr=as_json)
    with runs.supervised() as supervisor:
        found = inventory()
        models = {name: _model(name, found) for name in dict.fromkeys(asked.models)}
        cells: list[Cell] = []
        for name in dict.fromkeys(asked.tracks):
            share = threads or threads_for(machine.cores(), jobs or 1)
            place = runs.check(_track(name, asked.budget), supervisor, results=results, device=device, threads=share, weights=weights)
            cells += [Cell(one, place) for one in runs_of(asked, models, _track(name, asked.budget), place)]
        kept = {id(one) for one in only_these([cell.planned for cell in cells], only or [])}
        cells = [cell for cell in cells if id(cell.planned) in kept]
        if retry_failed and not dry_run:
            for cell in cells:
                if cell.record is not None and cell.record.status != "done":
                    runs.retry(cell.planned, cell.place.store)
        if dry_run:
            _print_plan(cells, as_json)
            return
        devices = devices_for(cells[0].place, jobs)
        board = progress.Board([cell.planned for cell in cells], len(devices), console)
        console.print(f"{file}: {len(cells)} runs, {len(devices)} at a time on {cells[0].place.checked.device_class}", highlight=False)
        records = []

        def on_record(cell: Cell, record: RunRecord) -> None:
            records.append(record)
            board.record(cell.planned, record)

        with board.shown():
            execute(
                cells, supervisor, devices=devices, on_event=lambda cell, event: board.event(cell.planned, event), on_record=on_record
            )  # fmt: skip
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    else:
        for name in dict.fromkeys(cell.planned.spec.track.name for cell in cells):
            console.print(terminal(results, name))
        console.print(board.summary(), highlight=False)
    if any(record.status != "done" for record in records):
        sys.exit(1)


@boards.command("build")
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


@app.command("evaluate")
def evaluate_command(
    samples: Annotated[Path, typer.Argument(help="Folder, zip, npz or npy of images, or the folder of a run.")],
    reference: Annotated[
        str,
        typer.Option(
            help="What they are compared with: a dataset (its test images, where no split is named); folder:PATH or zip:PATH, or just a"
            " path, for all images there (with :train or :test for a part of them); or an npz of mu and sigma. A run's own by default.",
            metavar="DATASET[:SPLIT]|PATH",
            show_default=False,
        ),
    ] = "",
    extractor: Annotated[
        str,
        typer.Option(
            "-x", "--extractor", help="Network for FID and its kin; by default one that knows the reference's classes, or Inception."
        ),
    ] = "",
    metrics: Annotated[list[str] | None, typer.Option("-m", "--metric", help="Only these; may be repeated.")] = None,
    allow_lossy: Annotated[bool, typer.Option(help="Accept JPEG samples; their compression moves every score.")] = False,
    resize: Annotated[
        int | None,
        typer.Option(min=4, help="Reduce images of any size to SIZE x SIZE: area means of the centre square.", metavar="SIZE"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the metrics' random subsets; 0, or a run's own, by default.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Score images you already have."""
    from genbench import report
    from genbench.evaluate import evaluate
    from genbench.score import unseen

    with _nothing(unseen) if as_json else report.steps(_console(stderr=True)) as show:
        found = evaluate(
            samples, reference, extractor=extractor, metrics=metrics, allow_lossy=allow_lossy, resize=resize, seed=seed, device=device,
            weights=weights, show=show,
        )  # fmt: skip
    if as_json:
        print(json.dumps([score.model_dump(mode="json") for scores in found.scores.values() for score in scores], indent=1))
        return
    console = _console()
    console.print(report.sheet(found, console.width), soft_wrap=True)


@app.command("doctor")
def doctor_command(as_json: Json = False) -> None:
    """Say what works here: device, plugins, datasets and weights; and how to get what is missing."""
    from genbench.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
        return
    _print_rows(["", "what", "state"], [["ok" if f.ok else "--", f"{f.kind} {f.name}", f.state] for f in findings])


@app.command("check")
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
    found, console = [], _console(stderr=as_json)
    for entry in entries:
        if not as_json:
            console.print(f"{entry.name}  ({entry.distribution} {entry.version})", style="bold", highlight=False)
        for outcome in outcomes(entry.spec):
            found.append(outcome)
            if not as_json:
                style = {"ok": "green", "failed": "red", "skipped": "dim"}[outcome.status]
                console.print(f"  [{style}]{outcome.status:8}[/]{outcome.check:32}{outcome.seconds:6.1f} s", highlight=False)
                if outcome.message:
                    console.print(Padding(_escaped(outcome.message), (0, 0, 0, 10)), style=style, highlight=False)
    failed = [outcome for outcome in found if outcome.status == "failed"]
    if as_json:
        print(json.dumps([asdict(outcome) for outcome in found], indent=1))
    else:
        console.print(f"{len(found)} checks, {len(failed)} failed", highlight=False)
    if failed:
        sys.exit(1)


@app.command("new")
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


@extractors.command("train")
def extractor_command(
    dataset: Annotated[str, typer.Argument(help="Dataset with labels.")],
    out: Annotated[Path, typer.Option(help="File for the weights (safetensors).")],
    size: Annotated[int | None, typer.Option(help="Image size; the dataset's track size by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of initialisation, order and augmentation.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
) -> None:
    """Train the in-domain classifier of a dataset by the recipe the shipped ones were made with."""
    from genbench.datasets.prepare import prepare, resolve
    from genbench.extractors.recipe import train_cnn
    from genbench.places import data_root
    from genbench.track import shipped_tracks

    sizes = [track.size for track in shipped_tracks() if track.dataset == dataset]
    data = prepare(dataset, size or (sizes[0] if sizes else resolve(dataset).native_size), data_root())

    def report(epoch: int, epochs: int, loss: float) -> None:
        print(f"epoch {epoch}/{epochs}: loss {loss:.4f}", file=sys.stderr)

    print(json.dumps(train_cnn(data, out, seed=seed, epochs=epochs, report=report), indent=1))


@app.callback(invoke_without_command=True)
def version_option(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Answer --version before any command."""
    if version:
        from genbench import __version__

        print(__version__)
        raise typer.Exit


def _model(name: str, found: Inventory) -> ModelDescription:
    from genbench.inventory import describe_file

    return describe_file(name) if ".py" in name else found.model(name)


def _track(name: str, budget: str) -> Track:
    from genbench.budget import Budget
    from genbench.inventory import inventory
    from genbench.track import load_track, with_budget

    chosen = load_track(Path(name)) if name.endswith(".toml") else inventory(["track"]).track(name)
    return with_budget(chosen, str(Budget.parse(budget))) if budget else chosen


def _hparams(written: list[str], models: list[ModelDescription]) -> dict[str, dict[str, str]]:
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


def _print_plan(cells: list[Cell], as_json: bool) -> None:
    """What a sweep would do: a line a run, and the device time that is still to be spent."""
    from genbench.budget import Budget

    rows: list[dict[str, Any]] = []
    for cell in cells:
        spec, record = cell.planned.spec, cell.record
        rows.append({
            "track": spec.track.name, "model": spec.model.name, "seed": spec.seed, "changed": dict(spec.model.changed),
            "budget": spec.track.budget, "state": "to run" if record is None else record.status, "folder": str(spec.folder),
        })  # fmt: skip
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    headers = ["track", "model", "seed", "hparams", "budget", "state"]
    told = [{**row, "hparams": ", ".join(f"{key}={value}" for key, value in row["changed"].items())} for row in rows]
    _print_rows(headers, [[row[header] for header in headers] for row in told])
    left = [Budget.parse(row["budget"]) for row in rows if row["state"] == "to run"]
    seconds = sum(budget.amount for budget in left if budget.kind == "seconds")
    others = sum(budget.kind != "seconds" for budget in left)
    known = f"{seconds / 3600:.2f} device-hours of training" + (f", and {others} runs whose budget is no time" if others else "")
    print(f"{len(rows)} runs, {len(left)} to run: {known}")


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
    _print_rows([column.replace("_", " ") if column != "name" else kind for column in columns], rows)


def _print_rows(headers: list[str], rows: list[list[Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*[_escaped(str(cell)) for cell in row])
    _console().print(table)


def _console(stderr: bool = False) -> Console:
    """Tables need 100 columns; where output goes to a file or a pipe they get them."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=100)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape("".join(c for c in text if c.isprintable()))


def _nothing(value: Any) -> Any:
    import contextlib

    return contextlib.nullcontext(value)


def _terminated(number: int, frame: Any) -> NoReturn:
    """A scheduler that takes the machine back sends SIGTERM: what runs is saved as at Ctrl-C."""
    raise KeyboardInterrupt


def _exit(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)
