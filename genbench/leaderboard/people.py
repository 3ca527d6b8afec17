"""What people said of a table's rows, as columns: from records of judgement beside the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genbench.errors import GenbenchError
from genbench.harmless import clean
from genbench.judgements import FULL_PEOPLE, Judgement, Mode, counting, judgement_paths, read_judgement
from genbench.leaderboard.columns import Better, Column, Form
from genbench.leaderboard.table import Cell, Damaged, Results, Row, Table
from genbench.records import Score


@dataclass(frozen=True)
class _Known:
    """A column of what people said. `title` is for images that may be looked at as long as one likes."""

    title: str
    better: Better
    form: Form
    explanation: str


_COLUMNS: dict[Mode, dict[str, _Known]] = {
    "real-or-fake": {
        "hype": _Known(
            "HYPE∞", "higher", "ratio",
            "Share of images people misjudge, real and generated ones at equal weight; 0.5: nobody can tell; above it fakes look realer.",
        ),
        "fakes_error": _Known("taken for real", "higher", "ratio", "Share of generated images that people take for real."),
        "d_prime": _Known(
            "d′", "lower", "score", "How well people tell generated from real images, whatever they lean to say; 0: not at all."
        ),
    },
    "which-is-better": {
        "preferred": _Known(
            "preferred", "higher", "ratio",
            "Expected share of people's votes for it beside the other judged models, a tie as half: 0.5 is average. By Bradley–Terry.",
        ),
    },
}  # fmt: skip
_ASKED: dict[Mode, str] = {"real-or-fake": "whether it is real", "which-is-better": "which of two looks more real"}


def with_people(found: Results, roots: Sequence[Path]) -> Results:
    """Tables -> the same with columns of the judgements that lie in the results folders; a damaged one is listed, not fatal."""
    judged: list[Judgement] = []
    damaged: list[Damaged] = []
    for root in roots:
        for path in judgement_paths(root):
            try:
                judged.append(read_judgement(path))
            except GenbenchError as error:
                damaged.append(Damaged(path.relative_to(root).as_posix(), clean(str(error))))
    if not judged and not damaged:
        return found
    counted = counting(judged)
    tables = {id(table): _table(table, [one for one in counted if _is_of(one, table)]) for table in found.tables}
    listed = tuple(sorted({*found.damaged, *damaged}, key=lambda d: (d.path, d.reason)))
    by_track = {name: tuple(tables[id(table)] for table in some) for name, some in found.by_track.items()}
    return replace(found, tables=tuple(tables[id(table)] for table in found.tables), by_track=by_track, damaged=listed)


def _is_of(judgement: Judgement, table: Table) -> bool:
    place = (judgement.track, judgement.track_hash, judgement.device_class)
    return place == (table.track.name, table.track_hash, table.device_class)


def _table(table: Table, judged: Sequence[Judgement]) -> Table:
    for one in judged:
        if any(model.row == row.id and model.scores for model in one.models for row in table.all_rows):
            table = _with(table, one)
    return table


def _with(table: Table, judgement: Judgement) -> Table:
    """A table with the columns of one judgement."""
    suffix, at = (f"-{judgement.exposure_ms}ms", f" at {judgement.exposure_ms} ms") if judgement.exposure_ms else ("", "")
    columns = [_column(name, known, judgement, suffix, at) for name, known in _COLUMNS[judgement.mode].items()]
    short = "pairs" if judgement.mode == "which-is-better" else "images"
    count = f"people's votes on {short}{at}"
    told = f"Counted answers to {_asked(judgement)}."
    columns.append(Column(_key(judgement, "votes", suffix), count, "people", "count", "neither", told))
    models = {model.row: model for model in judgement.models}
    cells: dict[str, dict[str, Cell]] = {}
    for row in table.all_rows:
        if (model := models.get(row.id)) is not None and model.scores:
            own = {_key(judgement, score.name, suffix): _cell(score) for score in model.scores if score.name in _COLUMNS[judgement.mode]}
            votes = float(model.votes)
            cells[row.id] = {**own, _key(judgement, "votes", suffix): Cell({}, votes, None, votes)}
    rows = _marked(table.rows, cells, columns, judgement)
    controls = tuple(replace(row, cells={**row.cells, **cells.get(row.id, {})}) for row in table.controls)
    return replace(table, columns=(*table.columns, *columns), rows=rows, controls=controls, notes=(*table.notes, _note(judgement)))


def _column(name: str, known: _Known, judgement: Judgement, suffix: str, at: str) -> Column:
    title = f"HYPE{at}" if name == "hype" and at else f"{known.title}{at}"
    sizes = f"{judgement.people} people, {judgement.votes} votes" + (", preliminary" if judgement.preliminary else "")
    return Column(_key(judgement, name, suffix), title, "people", known.form, known.better, known.explanation, sizes=sizes)


def _key(judgement: Judgement, name: str, suffix: str) -> str:
    """``human_hype``, ``human_hype-250ms``, ``human_preferred``, ``human_preferred_votes``."""
    if name == "votes":
        name = f"{'hype' if judgement.mode == 'real-or-fake' else 'preferred'}_votes"
    return f"human_{name}{suffix}"


def _cell(score: Score) -> Cell:
    half = (score.interval[1] - score.interval[0]) / 2 if score.interval else None
    over = "people" if score.name == "preferred" else "people and images"
    told = f"95 % interval {score.interval[0]:.3f} to {score.interval[1]:.3f}, over {over}" if score.interval else ""
    return Cell({}, score.value, half, score.value, note=told)


def _marked(rows: Sequence[Row], cells: dict[str, dict[str, Cell]], columns: Sequence[Column], judgement: Judgement) -> tuple[Row, ...]:
    """Rows with their cells; the best of a column is marked where enough people judged."""
    best: dict[str, float] = {}
    for col in columns:
        values = [cell.mean for row in rows if (cell := cells.get(row.id, {}).get(col.key)) and cell.mean is not None]
        if values and col.better != "neither" and not judgement.preliminary:
            best[col.key] = min(values) if col.better == "lower" else max(values)
    return tuple(
        replace(row, cells={**row.cells, **{
            key: replace(cell, best=key in best and cell.mean == best[key]) for key, cell in cells.get(row.id, {}).items()
        }})
        for row in rows
    )  # fmt: skip


def _asked(judgement: Judgement) -> str:
    return f"{_ASKED[judgement.mode]}" + (f", seen for {judgement.exposure_ms} ms" if judgement.exposure_ms else "")


def _note(judgement: Judgement) -> str:
    """How many people judged, and what a reader must know of it, as a sentence."""
    people = f"{judgement.people} {'person' if judgement.people == 1 else 'people'}"
    left_out = sum(rule.people for rule in judgement.excluded)
    told = f"Asked {_asked(judgement)}: {people}, {judgement.votes} votes"
    told += f", {left_out} more left out by rules fixed beforehand" if left_out else ""
    reals = next((score.value for score in judgement.overall if score.name == "reals_error"), None)
    told += f"; they took {reals:.0%} of real images for generated ones".replace("%", " %") if reals is not None else ""
    return told + (f". Preliminary: fewer than {FULL_PEOPLE} people." if judgement.preliminary else ".")
