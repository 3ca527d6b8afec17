"""Human judgement: a page that collects votes, the report on them, their way between machines, and how many are needed."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from genbench.cli.options import Json, Results, console_for, print_rows
from genbench.errors import GenbenchError


class Mode(StrEnum):
    """What people are asked."""

    real_or_fake = "real-or-fake"
    which_is_better = "which-is-better"


ModeOption = Annotated[Mode, typer.Option(help="One image at a time, real or fake; or two models' images, which is better.")]
Images = Annotated[int, typer.Option("--images", min=1, help="Different images of each model, and real ones, that people see together.")]


def serve_command(
    track: Annotated[str, typer.Option(help="Name or hash of the track whose runs are judged.")],
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Labels as in the tables; all with samples.")] = None,
    mode: ModeOption = Mode.real_or_fake,
    trials: Annotated[int, typer.Option(help="Trials of a person; a tenth as many come a second time, for consistency.")] = 100,
    exposure: Annotated[
        int | None, typer.Option(help="Show each image for so many milliseconds, 100 to 1000 [default: no limit].", show_default=False)
    ] = None,
    images: Images = 500,
    results: Results = Path("results"),
    device: Annotated[str, typer.Option(help="Device class, like cpu-2; needed where records are of several.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8420,
    address: Annotated[str, typer.Option(help="Listen here; other than loopback only with --token.")] = "127.0.0.1",
    token: Annotated[str, typer.Option(help="What others must have in their link: 16 characters or more.")] = "",
    name: Annotated[list[str] | None, typer.Option(help="What people type to reach it, like lab.local, or its proxy's name.")] = None,
) -> None:
    """Open a page where people judge samples of recorded runs, beside held-out real images or each other.

    Votes go to RESULTS/judge/TRACK.sqlite, on disk before the page goes on. The same command again goes on with the same study; anything
    else about it (models, mode, trials, images) makes another. Ctrl-C ends it; nothing is lost then, nor when it is killed.
    """
    from genbench.judge import require

    require("starlette", "uvicorn", "multipart")
    from genbench.judge import serve

    where = serve.bind(address, port)
    port = where.getsockname()[1]
    names = name or []
    gate = serve.gate_for(address, port, token, names)
    choice = serve.Choice(mode.value, trials, images, exposure)
    study, pictures = serve.prepare_study(results, track, models or [], choice, device)
    host = names[0] if names else f"[{address}]" if ":" in address else address
    print(f"{study.title}: {', '.join(entrant.label for entrant in study.entrants)}; study {study.id}")
    print(f"open http://{host}:{port}/{f'?token={quote(token)}' if token else ''}   (Ctrl-C ends)", flush=True)
    serve.serve(study, pictures, results, where, gate)


def report_command(
    track: Annotated[str, typer.Option(help="Only this track.")] = "",
    results: Results = Path("results"),
    dry: Annotated[bool, typer.Option("--dry-run", help="Write no judgement record.")] = False,
    as_json: Json = False,
) -> None:
    """Say what people's votes come to, and write it as records that leaderboard build shows.

    Real or fake: HYPE∞, errors on fakes and on real images, d′; pairs: Bradley–Terry strengths, the matrix of votes. With intervals, and
    with the rules by which people were left out.
    """
    from genbench.judge import report

    found = report.judgements(results, track)
    if not found:
        raise GenbenchError(f"nobody has judged anything on {track or 'any track'} yet; genbench judge serve opens the page")
    written = [] if dry else report.write(results, found)
    if as_json:
        print(json.dumps([json.loads(one.model_dump_json()) for one in found], allow_nan=False))
        return
    from genbench.judge.console import report as shown

    console_for().print(shown(found))
    for path in written:
        print(f"written: {path}")


def export_command(
    track: Annotated[str, typer.Option(help="Name of the track.")],
    out: Annotated[Path, typer.Option(help="CSV file to write; its studies go to NAME.studies.json beside it.")] = Path("votes.csv"),
    results: Results = Path("results"),
) -> None:
    """Write all votes on a track as CSV, a line a vote, undone ones too."""
    from genbench.judge import exchange

    path, beside, people = exchange.export(results, track, out)
    print(f"votes of {people} {'person' if people == 1 else 'people'} written to {path}, with {beside.name} beside it")


def import_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.csv...", help="What judge export wrote, with .studies.json beside it.")],
    results: Results = Path("results"),
) -> None:
    """Add votes that another machine collected. What is here already is counted once; what contradicts it is refused."""
    from genbench.judge import exchange

    for file in files:
        for title, (people, votes) in exchange.merge(results, file).items():
            print(f"{file}: {title}: {people} new people, {votes} new votes")


def plan_command(
    people: Annotated[list[int] | None, typer.Option(help="How many; repeatable. [default: 5, 10, 20, 40]", show_default=False)] = None,
    trials: Annotated[list[int] | None, typer.Option(help="Trials of each; may be repeated. [default: 100]", show_default=False)] = None,
    models: Annotated[int, typer.Option(help="Models that share a person's trials.")] = 3,
    mode: ModeOption = Mode.real_or_fake,
    error: Annotated[float, typer.Option(help="Supposed share of fakes, and of real images, that are misjudged.")] = 0.3,
    ties: Annotated[float, typer.Option(help="Supposed share of ties among pairs.")] = 0.2,
    images: Images = 500,
    studies: Annotated[int, typer.Option(min=2, help="Simulated studies of each size.")] = 100,
    as_json: Json = False,
) -> None:
    """Say how many people and trials give which width of interval, by simulating people and reporting on them.

    People's and images' log odds of a mistake are supposed to spread with standard deviations 0.5 and 0.8.
    """
    from genbench.judge import require
    from genbench.judge.planning import Supposed, table

    if mode is Mode.which_is_better:
        require("evalica")
    supposed = Supposed(mode.value, models, error, ties, pool=images)
    rows = table(supposed, people or [5, 10, 20, 40], trials or [100], studies)
    if as_json:
        print(json.dumps([vars(row) for row in rows], allow_nan=False))
        return
    what = "HYPE∞" if mode is Mode.real_or_fake else "preferred"
    cells = [
        [
            row.people, row.trials, row.people * row.trials,
            f"± {100 * row.half_width:.1f} %", f"{100 * row.smallest:.0f} %", f"{row.coverage:.0%}",
        ]
        for row in rows
    ]
    print_rows(["people", "trials each", "votes", f"{what} of a model", "tells apart", "intervals that hold"], cells)
    print(f"{studies} simulated studies a line, {models} models. Tells apart: two models that differ by so much, in four of five studies.")
