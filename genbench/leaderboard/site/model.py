"""The page of a model: what it is, and on every track its scores seed by seed, its samples, curves, runs and environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genbench.budget import Budget
from genbench.harmless import clean
from genbench.leaderboard import words
from genbench.leaderboard.columns import ARROWS, SECTIONS, Column, group_thousands, write
from genbench.leaderboard.site.drawings import Line, chart
from genbench.leaderboard.site.frame import model_file, paper_link, render
from genbench.leaderboard.site.grids import Grid
from genbench.leaderboard.table import Row, Run, Table
from genbench.leaderboard.text import is_shipped, stem, track_file
from genbench.records import HOLDOUT_NLL, CurvePoint

_LOSSES = 8
"""Charts of losses a track, at most."""
_TITLES: dict[str, str] = {"quality": "Quality", "speed": "Speed and size", **{section.group: section.title for section in SECTIONS}}


def model_page(places: Sequence[tuple[Table, Row]], grids: Mapping[str, Grid], siblings: Sequence[Row], built: str) -> bytes:
    """A model's rows with their tables, grids by ``<run's hash>-<seed>``, other rows of its name, a word on the build -> a page."""
    row = places[0][1]
    model = row.model
    name = clean(model.name, 60) or "_"
    return render(
        "model.html.j2",
        root="../",
        title=f"{name} · genbench",
        description=f"{name}: scores, seeds, samples and how to run it again",
        name=name,
        kind=row.kind,
        control=row.control,
        badges=_badges(places),
        facts=_facts(row),
        paper={"href": paper_link(model), "text": clean(model.paper, 120)},
        hparams=[(clean(key, 40), clean(str(value), 60), key in model.changed) for key, value in sorted(model.hparams.items())],
        siblings=[
            {"href": model_file(other), "hparams": clean(other.hparams, 120) or "defaults", "from": words.provenance(other)}
            for other in siblings
        ],
        places=[_place(table, own, grids, position) for position, (table, own) in enumerate(places)],
        built=built,
    )


def _facts(row: Row) -> list[tuple[str, str]]:
    model = row.model
    tuned = f"preset {clean(model.preset, 40)}" if model.preset else ""
    trials = f"{model.trials} configuration{'s' * (model.trials != 1)} tried" if model.trials else ""
    found = [
        ("Family", row.kind),
        ("Package", f"{clean(model.distribution, 60)} {clean(model.version, 30)}"),
        ("Source", clean(model.source, 120)),
        ("Digest of its source", clean(model.digest, 64)),
        ("Hparams", ", ".join(filter(None, (tuned, trials))) or ("changed from the defaults" if model.changed else "the defaults")),
        ("Outside weights or data", clean(model.pretrained, 120) or "none declared"),
    ]
    return found + ([("Learns from", "train and holdout")] if model.holdout else [])


def _badges(places: Sequence[tuple[Table, Row]]) -> list[tuple[str, bool]]:
    """Words on the whole model, each with whether it is bad news."""
    rows = [row for _, row in places]
    found: list[tuple[str, bool]] = []
    if any("conditional" in run.record.flags for row in rows for run in row.runs):
        found.append(("told the class", False))
    if rows[0].model.pretrained:
        found.append(("outside weights or data", False))
    return found


def _place(table: Table, row: Row, grids: Mapping[str, Grid], position: int) -> dict[str, Any]:
    """A model's part of one table as the template wants it."""
    track, median = table.track, words.median_run(row, table.track.rank_by)
    charts = _charts(table, row, median)
    shown = [own for run in row.runs if (own := grids.get(f"{run.record.spec.hash}-{run.seed}")) and own.path]
    return {
        "id": f"p{position}",
        "track": track.name,
        "href": f"{stem(track.name)}.html",
        "tier": row.tier,
        "track_hash": words.track_hash(table),
        "standing": _standing(table, row),
        "badges": [
            *([(row.status, True)] if row.done < len(row.runs) else []),
            *([(f"preliminary: {row.seeds} seeds", False)] if row.preliminary and not row.control else []),
            *((flag, flag.startswith("memorised")) for flag in row.flags),
        ],
        "seeds": [run.seed for run in row.runs],
        "median_seed": median.seed if median else None,
        "groups": _groups(table, row),
        "runs": [_run(run) for run in row.runs],
        "failures": words.failures([row]),
        "grids": sorted(shown, key=lambda own: (median is None or own.seed != median.seed, own.seed)),
        "charts": charts,
        "fewer": any(chart["is_fid"] for chart in charts) and track.curve_samples < track.num_samples,
        "environment": _environment([run for run in row.runs if run.record.environment]),
        "recipe": words.recipe(row, track),
        "own_track": "" if is_shipped(track) else track_file(track),
    }


def _standing(table: Table, row: Row) -> str:
    """One sentence: where the row stands."""
    col = table.rank_column
    cell = row.cells.get(col.key) if col else None
    if col is None or cell is None or cell.median is None:
        return f"{row.seeds} seeds finished; not ranked."
    told = f"{col.title} {write(cell.median, col.form)[0]}, median of {row.seeds} seeds"
    if col.key in table.floor:
        told += f" (real images: {write(table.floor[col.key], col.form)[0]})"
    if row.control:
        return f"A control, not ranked: {told}."
    if row.rank is None:
        return f"Not ranked: {told}."
    preliminary = ", preliminary" if row.preliminary else ""
    interval = ""
    if row.rank_interval:
        low, high = row.rank_interval
        interval = f" (95 % interval of the rank: {low})" if low == high else f" (95 % interval of the rank: {low} to {high})"
    alike = [other.label for other in table.rows if other.id != row.id and set(other.groups) & set(row.groups)]
    told = f"Rank {row.rank} of {len(table.rows)}{preliminary}{interval}: {told}."
    return told + (f" Not distinguishable from {_listed(alike)}." if alike else "")


def _listed(labels: Sequence[str], most: int = 6) -> str:
    shown = list(labels[:most])
    return ", ".join(shown) + (f" and {len(labels) - most} more" if len(labels) > most else "")


def _groups(table: Table, row: Row) -> list[dict[str, Any]]:
    """Every measure of the row by kind: mean, half-width, each seed's value, real data."""
    found: dict[str, list[dict[str, Any]]] = {}
    for col in table.columns:
        cell = row.cells.get(col.key)
        if cell is None or not any(value is not None for value in cell.values.values()):
            continue
        mean, half = words.number(cell, col)
        floor = write(table.floor[col.key], col.form)[0] if col.key in table.floor else ""
        found.setdefault(col.group, []).append(
            {
                "name": col.name,
                "arrow": ARROWS[col.better],
                "help": col.help,
                "mean": mean,
                "half": half,
                "best": cell.best,
                "values": [_value(cell.values.get(run.seed), col) for run in row.runs],
                "floor": floor,
                "note": cell.note,
            }
        )
    return [{"title": _TITLES.get(group) or clean(group, 40).capitalize(), "measures": measures} for group, measures in found.items()]


def _value(value: float | None, col: Column) -> str:
    return "–" if value is None else write(value, col.form)[0]


def _run(run: Run) -> dict[str, Any]:
    record = run.record
    spent, speed = record.spent, record.throughput
    return {
        "seed": run.seed,
        "status": record.status,
        "steps": write(spent.steps, "count")[0] if spent else "–",
        "images": write(spent.images, "count")[0] if spent else "–",
        "seconds": write(spent.seconds, "seconds")[0] if spent else "–",
        "speed": write(speed.train, "rate")[0] if speed and speed.train else "–",
        "waited": f"{spent.waited:.1%}".replace("%", "\u202f%") if spent and spent.waited is not None else "–",
        "started": clean(record.started, 40).replace("T", " ").removesuffix("+00:00"),
        "folder": record.spec.folder.as_posix(),
        "samples": clean(record.digests.get("samples", ""), 64),
        "checkpoint": clean(record.digests.get("checkpoint", ""), 64),
    }


def _charts(table: Table, row: Row, median: Run | None) -> list[dict[str, Any]]:
    """The score along the budget, then every loss, one line a seed."""
    kind = Budget.parse(table.track.budget).kind
    x_title = {"images": "images seen", "steps": "steps"}.get(kind, "seconds of training")
    samples = table.track.curve_samples
    likelihood = table.track.ranks_by_likelihood
    score = "Negative log-likelihood, holdout" if likelihood else f"FID of {group_thousands(samples)} samples" if samples else "FID"
    names = sorted({name for run in row.runs for point in run.record.curve for name in point.losses if name != HOLDOUT_NLL})
    wanted: list[tuple[str, str | None]] = [(score, HOLDOUT_NLL if likelihood else None), *((clean(n, 40), n) for n in names[:_LOSSES])]
    charts = []
    for title, name in wanted:
        lines = [
            Line(tuple(_points(run.record.curve, kind, name)), bold=median is not None and run.seed == median.seed, failed=not run.done)
            for run in row.runs
        ]
        told = f"Line chart: {title} of {row.label} on {table.track.name} against {x_title}, one line a seed"
        drawn = chart(lines, description=told, x_title=x_title, log=name is None)
        if drawn:
            charts.append({"title": title, "drawn": drawn, "is_fid": name is None})
    return charts


def _points(curve: Iterable[CurvePoint], kind: str, name: str | None) -> list[tuple[float, float]]:
    """A run's curve -> (what the budget counts, the named loss or the FID) where there is a value, by rising x."""
    found = []
    for point in curve:
        x = float({"images": point.images, "steps": point.steps}.get(kind, point.seconds))
        y = point.fid if name is None else point.losses.get(name)
        if y is not None and x >= 0:
            found.append((x, y))
    return sorted(found)


def _environment(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Runs -> what they ran on and with, each value once."""
    told: dict[str, dict[str, None]] = {}
    for run in runs:
        own = run.record.environment
        if own is None:
            continue
        values = [
            ("device", own.device),
            ("cores, threads", f"{own.cores}, {own.threads}"),
            ("platform", own.platform),
            ("genbench", own.genbench + (f" (commit {own.git})" if own.git else "")),
            ("python", own.python),
            ("torch", own.torch),
            *sorted(own.packages.items()),
        ]
        for word, value in values:
            told.setdefault(clean(word, 60), {})[clean(value, 120)] = None
    return [(word, "; ".join(values)) for word, values in told.items()]

