"""What `genbench evaluate` shows: how far it is, then the scores, metric by metric, beside those of real images."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from genbench.records import Score

if TYPE_CHECKING:
    from genbench.evaluate import Evaluation

_ARROWS = {"lower": "↓", "higher": "↑", "neither": " "}
_NEEDS = {
    "real": "the real images themselves", "train": "a train split", "holdout": "a holdout split", "labels": "labels of the real images",
    "asked": "images made for asked labels", "model": "the model",
}  # fmt: skip
_HEADER = ("  measure", "", "value", "95 % interval", "real data", "N/N real")
_INTERVAL = 3
_NARROWEST = 60
"""Columns; where there are fewer, lines break."""


@contextmanager
def steps(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Within the block, ``show(step, done, total)`` moves a bar on a terminal; elsewhere a finished step is one line."""
    if not console.is_terminal:

        def say(step: str, done: int, total: int) -> None:
            if done == total:
                console.print(f"{step}: {total}", highlight=False, markup=False, soft_wrap=True)

        yield say
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def move(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step)
            progress.update(tasks[step], completed=done, total=total)

        yield move


def sheet(found: Evaluation, width: int) -> Text:
    """The scores as lines of at most `width` columns; a note stands behind its score where it fits, else below it."""
    width = max(width, _NARROWEST)
    table = [_HEADER, *(_cells(score) for scores in found.scores.values() for score in scores)]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEADER))]
    if not any(row[_INTERVAL] for row in table[1:]):
        widths[_INTERVAL] = 0
    text = Text("\n".join(_wrapped(line, width, "  ") for line in _about(found)) + "\n")
    text.append("\n" + _line(_HEADER, widths) + "\n", "bold")
    for name, scores in found.scores.items():
        if scores:
            text.append("\n" + _wrapped(_heading(found, name, scores), width, "  ") + "\n", "bold dim")
        for score in scores:
            line, note = _line(_cells(score), widths), _printable("; ".join(filter(None, (score.unit, score.note))))
            text.append(line)
            if note and len(line) + 2 + len(note) <= width:
                text.append(f"  {note}\n", "dim")
            else:
                text.append("\n" + (textwrap.indent(_wrapped(note, width - 4), "    ") + "\n" if note else ""), "dim")
    text.append("\n" + "\n".join(_wrapped(line, width) for line in _legend(found)), "dim")
    return text


def _about(found: Evaluation) -> Iterator[str]:
    """What was compared with what."""
    n, channels, height, width = found.images
    reference = found.reference
    if reference.statistics is not None:
        against = f"published statistics {reference.name}"
    elif reference.of == "all":
        against = f"all {len(reference.real)} images of {reference.name}"
    else:
        against = f"the {len(reference.real)} {reference.of} images of {reference.name}"
    yield _printable(f"{n} images, {channels}x{height}x{width}, against {against}")
    yield _printable(f"features: {found.extractor.name}, {found.extractor.description}")
    if reference.resize:
        yield _printable(f"size: {reference.resize}")
    if found.flags:
        yield f"note: {', '.join(found.flags)}"


def _legend(found: Evaluation) -> Iterator[str]:
    """What the columns mean, and which metrics are not there."""
    reference, n = found.reference, found.images[0]
    if reference.statistics is not None:
        real = "Statistics hold no images, so there is no value of real data beside the samples'."
    elif reference.of == "all":
        real = f"Real data: what {min(n, len(reference.halves()[0]))} images of one half of the reference score against its other half."
    else:
        real = f"Real data: what {min(n, len(reference.splits[reference.second]))} real images score that are not the reference's own."
    yield f"↓ lower is better, ↑ higher. {real} 95 % interval: of these samples, not over trainings. N/N real: images generated and real."
    if found.left_out:
        names = (f"{name} (needs {' and '.join(_NEEDS.get(need, need) for need in needs)})" for name, needs in found.left_out.items())
        yield f"left out: {', '.join(names)}"


def _heading(found: Evaluation, name: str, scores: list[Score]) -> str:
    seen = sorted({score.extractor or "pixels" for score in scores})
    return _printable(f"{name}: {found.metrics[name].description} ({' and '.join(seen)})")


def _cells(score: Score) -> tuple[str, ...]:
    interval = "" if score.interval is None else f"{score.interval[0]:.3g} … {score.interval[1]:.3g}"
    return (
        f"  {_printable(score.name)}", _ARROWS[score.better], _number(score.value), interval, _number(score.floor),
        f"{_count(score.n_fake)}/{_count(score.n_real)}",
    )  # fmt: skip


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    aligned = "<<>>>>"
    parts = [f"{cell:{side}{width}}" for cell, side, width in zip(cells, aligned, widths, strict=True) if width]
    return " ".join(parts).rstrip()


def _wrapped(line: str, width: int, indent: str = "") -> str:
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _count(n: int | None) -> str:
    return "?" if n is None else str(n)


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())
