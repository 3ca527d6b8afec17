"""Small line charts for the pages of models: SVG inside the page, coloured by its style, hence light and dark in one.

One line a seed, the median seed's bold. The figures of tracks, which people put into papers, are matplotlib's (`figures`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from genbench.leaderboard.columns import group_thousands

_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 34
_MOST_POINTS = 400
"""A longer line is thinned: a page stays light whatever a plugin logged."""


@dataclass(frozen=True)
class Line:
    """One seed's line: its points as (x, y) by rising x, whether it is the one to look at, whether its run failed."""

    points: tuple[tuple[float, float], ...]
    bold: bool = False
    failed: bool = False


def chart(lines: Sequence[Line], *, description: str, x_title: str, log: bool = False) -> Markup:
    """Lines -> an SVG element; nothing where no line has two points. `log`: logarithmic y, where all values are above 0."""
    drawn = [line for line in lines if len(line.points) > 1]
    if not drawn:
        return Markup("")
    values = [y for line in drawn for _, y in line.points]
    log = log and min(values) > 0
    right = max(x for line in drawn for x, _ in line.points) or 1.0
    low, high = _span(values, log)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log(y / low) / math.log(high / low)) if log else (y - low) / (high - low)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / right, _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    parts = []
    for tick in ticks(low, high, log):
        _, y = place(0.0, tick)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in ticks(0.0, right, False):
        x, _ = place(tick, low)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">{_number(tick)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_title)}</text>')
    for line in sorted(drawn, key=lambda line: line.bold):
        shape = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in _thin(line.points)))
        looks = " ".join(["line", *(["bold"] if line.bold else []), *(["failed"] if line.failed else [])])
        parts.append(f'<polyline class="{looks}" points="{shape}"/>')
    head = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(description)}">'
    # everything above is a number or escaped
    return Markup(head + "".join(parts) + "</svg>")


def ticks(low: float, high: float, log: bool) -> list[float]:
    """An axis from `low` to `high` -> two to six round values on it."""
    if log:
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(float(n) for n in range(1, 10))):
            found = [step * 10.0**decade for decade in decades for step in steps]
            found = [value for value in found if low <= value <= high]
            if len(found) >= 2:
                return found[:: math.ceil(len(found) / 5)]
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(step * times for times in (1, 2, 5, 10) if (high - low) / (step * times) <= 4)
    return [round(position * step, 12) for position in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _span(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Values -> the ends of their axis, a little beyond them."""
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** 0.06, 1.05)
        return low / room, high * room
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = math.ceil(len(points) / _MOST_POINTS)
    return points if step == 1 else [*points[::step], points[-1]]


def _number(value: float) -> str:
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g}\u202fM"
    if size >= 1e4:
        return f"{value / 1e3:g}\u202fk"
    return group_thousands(value) if size >= 1000 else f"{value:.3g}"
