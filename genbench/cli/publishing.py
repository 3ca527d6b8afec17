"""Commands for those who publish results and those who check them: verify, leaderboard check, submit, export."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genbench.cli.options import Json, Results, Weights, console_for, escaped, print_rows
from genbench.errors import GenbenchError

if TYPE_CHECKING:
    from genbench.verification import Verification

Out = Annotated[Path, typer.Option(help="Folder of published tables; records go under records/ in it.")]


def verify_command(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or its record.json.", metavar="RUN")],
    tier: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=3,
            help="1: recompute every score from the stored samples. 2: also draw again from the checkpoint, with the recorded seed and with"
            " a fresh one. 3: also train again with fresh seeds and test, one-sidedly. By default 2 where there is a checkpoint, else 1.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[str, typer.Option(help="Who verifies; self where you made the run.")] = "self",
    model: Annotated[str, typer.Option(help="File of a model that is not packaged.", metavar="FILE.py:CLASS")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; by default what the run was made on.", show_default=False)] = "",
    repeats: Annotated[int, typer.Option(min=0, help="Trainings at tier 3; 0: as many as the test needs, 1 or 3.")] = 0,
    weights: Weights = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Write no verification record beside the run.")] = False,
    as_json: Json = False,
) -> None:
    """Recompute what a run's record says, tell what differs and by how much, and write a record of that beside it.

    Nothing in the run's folder is executed. Exit code 1 where something is not as recorded.
    """
    from genbench import progress
    from genbench import run as runs
    from genbench.verification import write_verification
    from genbench.verify import summary, verify

    console = console_for(stderr=True)
    with runs.supervised() as supervisor:
        found = verify(
            run, supervisor, tier=tier or 0, by=by, model=model, device=device, weights=weights, repeats=repeats,
            tell=lambda text: console.print(escaped(text), style="dim", highlight=False, soft_wrap=True),
            watch=lambda planned, position: progress.shown(planned, position, console),
        )  # fmt: skip
    if as_json:
        print(found.model_dump_json(indent=1))
    else:
        _print_verification(found)
        out = console_for()
        out.print(summary(found), style="green" if found.ok else "red", highlight=False, markup=False, soft_wrap=True)
    if not dry:
        folder = run.parent if run.name == "record.json" else run
        path = write_verification(folder, found)
        console.print(f"written: {path}", style="dim", highlight=False, markup=False, soft_wrap=True)
    if not found.ok:
        sys.exit(1)


_MARKS: dict[bool | None, str] = {True: "ok", False: "DIFFERS", None: "-"}


def _print_verification(found: Verification) -> None:
    """Findings, then a line a score with every way it was computed anew."""
    print_rows(["", "what", "found"], [[_MARKS[one.ok], one.what, one.detail] for one in found.findings])
    origins = list(dict.fromkeys(one.of for one in found.scores))
    if not origins:
        return
    by_score: dict[str, dict[str, Any]] = {}
    for one in found.scores:
        by_score.setdefault(one.score, {})[one.of] = one
    rows = []
    for name, ways in by_score.items():
        recorded = next(iter(ways.values())).recorded
        rows.append([name, _number(recorded), *(_cell(ways[of]) if of in ways else "" for of in origins)])
    print_rows(["score", "recorded", *origins], rows)


def _cell(one: Any) -> str:
    """``ok``, ``ok +0.31 (within 0.5)``, ``DIFFERS -2.1 (within 0.01)``, ``- +0.02``."""
    if one.found is None or one.recorded is None:
        return " ".join(filter(None, (_MARKS[one.ok], "" if one.found is None else _number(one.found), one.note and f"({one.note})")))
    if one.ok and not one.difference:
        return "ok, equal"
    within = f"(within {one.tolerance:.2g})" if one.tolerance is not None else ""
    return " ".join(filter(None, (_MARKS[one.ok], f"{one.difference:+.3g}", within, one.note)))


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"


def leaderboard_check_command(
    folder: Annotated[Path, typer.Argument(help="Folder of tables, with records/ in it.", metavar="DIR")] = Path("leaderboards"),
    against: Annotated[
        Path | None,
        typer.Option(help="The same folder before a change: its records must all be there, byte for byte.", show_default=False),
    ] = None,
    records_only: Annotated[bool, typer.Option("--records-only", help="Leave tables alone: they are built after a merge.")] = False,
    as_json: Json = False,
) -> None:
    """Check published records and tables: every table is what its records give, and no record contradicts itself or its neighbours.

    For CI: reads files as data, imports no plugin and no torch. One line a fault; exit code 1 where there is one.
    """
    from genbench.leaderboard.check import check

    report = check(folder, against=against, tables=not records_only)
    if as_json:
        print(json.dumps({"ok": not report.faults, **report._asdict()}, indent=1))
    else:
        for fault in report.faults:
            print(f"fault: {fault}")
        for line in report.unchecked:
            print(f"not checked: {line}")
        tables = f"{report.files} files of tables and pages" if not records_only else "no tables"
        print(f"{report.records} records, {tables} checked; {len(report.faults)} fault{'s' * (len(report.faults) != 1)}")
    if report.faults:
        sys.exit(1)


def submit_command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or a results folder for all in it.", metavar="RUN...")],
    out: Out = Path("leaderboards"),
    by: Annotated[str, typer.Option(help="Who submits.")] = "",
    plugin_url: Annotated[str, typer.Option(help="Where others get the model's package, if not from the index.")] = "",
    files_url: Annotated[str, typer.Option(help="Where others get samples and checkpoints: URL/TRACK/MODEL/SEED-HASH/FILE.")] = "",
    model: Annotated[str, typer.Option(help="File of a model that is not packaged.", metavar="FILE.py")] = "",
    as_json: Json = False,
) -> None:
    """Make a submission: records, grids and what else is small, as new files under DIR/records, and the checklist."""
    from genbench.submit import submit

    made = submit(runs, out, by=by, plugin_url=plugin_url, files_url=files_url, model=Path(model.partition(":")[0]) if model else None)
    if as_json:
        print(json.dumps({**made._asdict(), "written": [str(path) for path in made.written]}, indent=1))
        return
    for warning in made.warnings:
        print(f"note: {warning}", file=sys.stderr)
    print(f"{len(made.written)} new files under {out / 'records'}")
    for done, text in made.checklist:
        print(f"[{'x' if done else ' '}] {text}")


def export_command(
    form: Annotated[str, typer.Argument(help="eval-results, model-index or papers-csv.", metavar="FORM")],
    results: Results = Path("leaderboards/records"),
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("exported"),
    track: Annotated[str, typer.Option(help="Only this track.")] = "",
    hub_dataset: Annotated[
        str, typer.Option(help="eval-results: the Hugging Face dataset that is registered as the benchmark.", metavar="ORG/NAME")
    ] = "",
    url: Annotated[str, typer.Option(help="Where the leaderboard is published: named as the source.")] = "",
    as_json: Json = False,
) -> None:
    """Write rows in the forms that other sites take: Hugging Face .eval_results YAML, its model-index, or a Papers-with-Code-style CSV."""
    from genbench.leaderboard.elsewhere import export

    written = export(form, results, out, track=track, hub_dataset=hub_dataset, url=url)
    if as_json:
        print(json.dumps([str(path) for path in written]))
        return
    if not written:
        raise GenbenchError(f"no row of {track or results} has a score to export")
    print(f"{len(written)} files written to {out}")
