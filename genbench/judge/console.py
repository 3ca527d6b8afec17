"""A judgement on the terminal: what was asked, who counts, a line a model, how much to trust it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from genbench.harmless import clean
from genbench.judgements import FULL_PEOPLE, JudgedModel, Judgement
from genbench.records import Score

_QUESTIONS = {"real-or-fake": "Real or fake", "which-is-better": "Which is better"}
_COLUMNS = {
    "real-or-fake": [("hype", "HYPE∞"), ("fakes_error", "fakes taken for real"), ("d_prime", "d′")],
    "which-is-better": [("preferred", "preferred"), ("strength", "strength")],
}
_SHARES = frozenset({"hype", "fakes_error", "reals_error", "preferred"})
_LEGENDS = {
    "real-or-fake": "HYPE∞: mean of the errors on fakes and on real images; 50 % means nobody can tell. d′: 0 means the same. In brackets "
    "95 % intervals, for other people and other images.",
    "which-is-better": "preferred: expected share of votes against the others, a tie as half; strength: Bradley–Terry, log odds against "
    "the average model. In brackets 95 % intervals, for other people.",
}


def report(found: Sequence[Judgement]) -> Group:
    """Judgements -> what is printed."""
    return Group(*(part for one in found for part in _one(one)))


def _one(found: Judgement) -> Iterator[RenderableType]:
    limit = f", {found.exposure_ms} ms" if found.exposure_ms else ""
    yield Text(f"{_QUESTIONS[found.mode]} on {clean(found.track, 60)}{limit}", "bold")
    people = f"{found.people} {'person' if found.people == 1 else 'people'}, {found.votes} votes"
    kept = f"; {found.repeats_alike} of {found.repeats} repeats answered alike" if found.repeats else ""
    yield Text(f"{people}{kept}; {found.device_class}, study {found.study}", "dim")
    if found.preliminary:
        yield Text(f"Preliminary: fewer than {FULL_PEOPLE} people.", "yellow")
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("model", overflow="fold")
    columns = _COLUMNS[found.mode]
    for _, title in columns:
        shown.add_column(title, justify="right")
    shown.add_column("votes", justify="right")
    for model in sorted(found.models, key=lambda one: (-_value(one, columns[0][0]), one.label)):
        cells = [_cell(_named(model.scores, name), name) for name, _ in columns]
        shown.add_row(Text(clean(model.label, 60)), *cells, str(model.votes))
    yield shown
    for score in found.overall:
        yield Text(f"Real images taken for fakes: {_cell(score, score.name)}, of {score.n_real} shown.")
    if found.meetings:
        yield _matrix(found)
    yield Text(_LEGENDS[found.mode], "dim")
    yield Text("Left out, by rules fixed before the data:", "dim")
    for rule in found.excluded:
        yield Text(f"  {rule.people}  {rule.rule}", "dim")
    yield Text("")


def _matrix(found: Judgement) -> Table:
    """Wins of the row against the column, with the ties of both after a plus sign."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="votes for that at the left over the one above (+ ties)", title_style="dim")
    order = sorted(found.models, key=lambda one: (-_value(one, "preferred"), one.label))
    shown.add_column("")
    for model in order:
        shown.add_column(Text(clean(model.label, 30)), justify="right", overflow="fold")
    cells: dict[tuple[str, str], str] = {}
    for one in found.meetings:
        tied = f" +{one.ties}" if one.ties else ""
        cells[one.a, one.b], cells[one.b, one.a] = f"{one.a_won}{tied}", f"{one.b_won}{tied}"
    for model in order:
        shown.add_row(Text(clean(model.label, 30)), *(cells.get((model.row, other.row), "") for other in order))
    return shown


def _named(scores: Sequence[Score], name: str) -> Score | None:
    return next((score for score in scores if score.name == name), None)


def _value(model: JudgedModel, name: str) -> float:
    score = _named(model.scores, name)
    return -1e9 if score is None or score.value is None else score.value


def _cell(score: Score | None, name: str) -> str:
    """``31.2 % [26.0, 36.9]``."""
    if score is None or score.value is None:
        return "–"
    numbers = [score.value, *(score.interval or ())]
    if name in _SHARES:
        shown = [f"{100 * number:.1f}" for number in numbers]
        return f"{shown[0]} % [{', '.join(shown[1:])}]"
    shown = [f"{number:.2f}" for number in numbers]
    return f"{shown[0]} [{', '.join(shown[1:])}]"
