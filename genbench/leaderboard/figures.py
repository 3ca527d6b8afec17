"""The figures of a table: the score along the budget, and quality against speed and memory. SVG, once for light and once for dark pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from genbench.budget import Budget
from genbench.leaderboard.columns import write
from genbench.leaderboard.curves import Line, curve, curve_title
from genbench.leaderboard.drawing import THEMES, Theme, canvas, label_ends, label_points, look, plain_ticks, rendered, short
from genbench.leaderboard.fronts import Cost, front, quality_and_cost
from genbench.leaderboard.table import Row, Table

__all__ = ["DRAWN", "THEMES", "Theme", "draw_curves", "draw_lines", "draw_pareto", "levels"]

_DASHES: dict[str, Any] = {"gan": "-", "vae": (0, (5, 1.5)), "other": (0, (1, 1.2))}
_COST_TITLES: dict[Cost, str] = {
    "train_throughput": "training images/s (faster →)",
    "sample_throughput": "sampling images/s (faster →)",
    "train_peak_bytes": "peak memory of training, MiB (smaller ←)",
}
_MOST_NAMED = 24
"""Models with a name and a colour in one figure: more could not be read."""
_REACH = 4.0
"""How many times above the worst model, or below the best, a control's line may lie before it would squeeze the models together."""


def levels(table: Table) -> list[tuple[str, float]]:
    """Controls and real data -> (label, FID) of the horizontal lines, worst first; a control's curve point is preferred, for its N."""
    found = []
    for row in table.controls:
        line = curve(row, table)
        cell = row.cells.get("fid")
        value = line.median[-1] if line else cell.median if cell else None
        if value is not None and value > 0:
            found.append((row.label, value))
    if table.floor.get("fid", 0.0) > 0 and table.track.curve_samples in (0, table.track.num_samples):
        found.append(("real data", table.floor["fid"]))
    return sorted(found, key=lambda pair: -pair[1])


def draw_curves(table: Table, theme: Theme) -> bytes | None:
    """The score against the budget spent, log scale, one line a model -> SVG; None where no run has a curve."""
    lines = [(row, line) for row in table.rows if (line := curve(row, table))]
    if not lines:
        return None
    horizontal = levels(table)
    figure, (axes,) = canvas(theme, height=max(4.3, 0.9 + 0.17 * (min(len(lines), _MOST_NAMED) + len(horizontal))))
    draw_lines(axes, lines, table, theme, horizontal)
    return rendered(figure)


def draw_lines(axes: Any, lines: Sequence[tuple[Row, Line]], table: Table, theme: Theme, across: Sequence[tuple[str, float]] = ()) -> None:
    """Curves of some rows, and horizontal lines `across`, into log axes, with their names at their ends; beyond `_MOST_NAMED` thin ones."""
    labels = []
    if rest := lines[_MOST_NAMED:]:
        from matplotlib.collections import LineCollection

        axes.add_collection(
            LineCollection([list(zip(line.x, line.median, strict=True)) for _, line in rest], colors=theme.ink, linewidths=0.6, alpha=0.25)
        )
        axes.autoscale_view()
    for position, (row, line) in enumerate(lines[:_MOST_NAMED]):
        colour, marker = look(position, theme)
        axes.plot(
            line.x,
            line.median,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.8,
            linestyle=_DASHES.get(row.model.family, "-"),
            zorder=3,
        )
        if line.low != line.high:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0, zorder=2)
        labels.append((line.median[-1], line.label, colour))
    for label, value in across:
        axes.axhline(value, color=theme.ink, alpha=0.55, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        labels.append((value, label, theme.ink))
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    low, high = axes.get_ylim()
    values = [value for value, _, _ in labels]
    axes.set_ylim(min(low, min(values) * 0.8), max(high, max(values) * 1.25))
    label_ends(axes, labels)
    plain_ticks(axes.yaxis)
    kind = Budget.parse(table.track.budget).kind
    axes.set_xlabel({"seconds": "seconds of training", "images": "images seen", "steps": "steps"}.get(kind, "seconds of training"))
    axes.set_ylabel(curve_title(table.track))


def draw_pareto(table: Table, theme: Theme, cost: Cost = "train_throughput") -> bytes | None:
    """FID against images/s or memory, both log, with the front -> SVG; None with fewer than two models to show.

    Dotted: controls and real data whose FID is within reach; those far above or below are named at the edge they lie beyond. Of more than
    `_MOST_NAMED` models the front and the best have names, the others are small dots.
    """
    unit = 2**20 if cost == "train_peak_bytes" else 1
    found = quality_and_cost(table, cost)
    points = {row.id: (x / unit, y) for row, x, y in found}
    labels = {row.id: row.label for row, _, _ in found}
    if len(points) < 2:
        return None
    figure, (axes,) = canvas(theme)
    axes.set_xscale("log")
    axes.set_yscale("log")
    best = [row.id for row in front(table, cost)]
    corners = sorted(points[key] for key in best)
    # what is reachable: at each cost the best score that is to be had for no more
    where = "post" if cost == "train_peak_bytes" else "pre"
    axes.step([x for x, _ in corners], [y for _, y in corners], where=where, color=theme.ink, alpha=0.5, linewidth=1.2, zorder=1)
    curves = [row for row in table.rows if curve(row, table)]
    coloured = {row.id: position for position, row in enumerate(curves or table.rows)}
    ranked = sorted(points, key=lambda key: (key not in best, points[key][1], labels[key]))
    named, rest = ranked[:_MOST_NAMED], [points[key] for key in ranked[_MOST_NAMED:]]
    axes.scatter([x for x, _ in rest], [y for _, y in rest], s=12, color=theme.ink, alpha=0.3, linewidth=0, zorder=2)
    for key in named:
        x, y = points[key]
        colour, marker = look(coloured.get(key, len(coloured)), theme)
        axes.scatter([x], [y], s=52, color=colour, marker=marker, edgecolor=theme.paper, linewidth=0.8, zorder=3)
    axes.margins(0.22)
    _draw_levels(axes, _table_levels(table), [y for _, y in points.values()], theme)
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis)
    label_points(figure, axes, [(labels[key], points[key], key in best) for key in named], theme, rest)
    axes.set_xlabel(_COST_TITLES[cost])
    axes.set_ylabel("FID (better ↓)")
    return rendered(figure)


def _draw_levels(axes: Any, found: Sequence[tuple[str, float]], scores: Sequence[float], theme: Theme) -> None:
    """Horizontal lines of what lies within `_REACH` of the models' scores; the rest in words, at the edge it lies beyond."""
    low, high = min(scores) / _REACH, max(scores) * _REACH
    shown = [(label, value) for label, value in found if low <= value <= high]
    values = [*scores, *(value for _, value in shown)]
    room = (max(values) / min(values)) ** 0.12 * 1.08
    axes.set_ylim(min(values) / room, max(values) * room)
    for _, value in shown:
        axes.axhline(value, color=theme.ink, alpha=0.55, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    label_ends(axes, [(value, label, theme.ink) for label, value in shown])
    edges = (("↑", 0.985, "top", [pair for pair in found if pair[1] > high]), ("↓", 0.015, "bottom", [p for p in found if p[1] < low]))
    for arrow, place, side, beyond in edges:
        if beyond:
            named = [f"{short(label)} {write(value, 'score')[0]}" for label, value in beyond[:4]]
            more = f", {len(beyond) - 4} more" if len(beyond) > 4 else ""
            axes.annotate(
                f"{arrow} {', '.join(named)}{more}", (0.012, place), xycoords="axes fraction", va=side, color=theme.ink, alpha=0.7,
                fontsize=8, parse_math=False,
            )  # fmt: skip


def _table_levels(table: Table) -> list[tuple[str, float]]:
    """Controls and real data -> (label, FID as in the table), worst first."""
    cells = [(row.label, row.cells.get("fid")) for row in table.controls]
    found = [(label, cell.median) for label, cell in cells if cell and cell.median is not None and cell.median > 0]
    if table.floor.get("fid", 0.0) > 0:
        found.append(("real data", table.floor["fid"]))
    return sorted(found, key=lambda pair: -pair[1])


DRAWN: dict[str, Callable[[Table, Theme], bytes | None]] = {
    "curves": draw_curves,
    "pareto": draw_pareto,
    "pareto-sampling": partial(draw_pareto, cost="sample_throughput"),
    "pareto-memory": partial(draw_pareto, cost="train_peak_bytes"),
}
"""The figures of a table by kind."""
