"""Figures over tracks and of comparisons: critical differences, performance profiles, differences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.leaderboard.across import Across
from genbench.leaderboard.curves import curve
from genbench.leaderboard.drawing import THEMES, Theme, canvas, label_ends, look, plain_ticks, rendered, short
from genbench.leaderboard.figures import draw_lines
from genbench.leaderboard.friedman import performance_profile

if TYPE_CHECKING:
    from genbench.leaderboard.compare import Comparison

_AXIS = 3.4
"""Inches that the axis of a critical-difference diagram is long."""


def draw_critical_difference(across: Across, theme: Theme) -> bytes | None:
    """Mean ranks on one axis, best left, bars over models that Nemenyi's test can't tell apart -> SVG; None below six tracks.

    Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), figure 1.
    """
    test = across.friedman
    if test is None:
        return None
    entrants, bars = across.entrants, across.alike
    count, half = len(entrants), (len(across.entrants) + 1) // 2
    rows = max(half, count - half)
    step = 0.26  # inches between names, and half of that between bars
    below = 0.18 + 0.13 * len(bars)
    height = 0.95 + below + step * rows
    names = 0.75 + 0.085 * max(len(short(entrant.label)) for entrant in entrants)  # inches on either side
    figure, (axes,) = canvas(theme, width=2 * names + _AXIS, height=height, grid=False)
    axes.set_axis_off()
    span = count - 1
    axes.set_xlim(1 - span * names / _AXIS, count + span * names / _AXIS)
    axes.set_ylim(-below - step * rows, 0.8)  # inches below and above the axis
    axes.plot([1, count], [0, 0], color=theme.ink, linewidth=1.2, solid_capstyle="butt")
    for tick in _ticks(count):
        axes.plot([tick, tick], [0, 0.08], color=theme.ink, linewidth=1.0)
        axes.annotate(f"{tick:g}", (tick, 0.13), ha="center", va="bottom", color=theme.ink, fontsize=9)
    _draw_ruler(axes, min(test.critical_difference, float(span)), test.critical_difference, theme)
    for position, (first, last) in enumerate(bars):
        y, room = -0.13 - 0.13 * position, 0.012 * span
        ends = (entrants[first].mean_rank - room, entrants[last].mean_rank + room)
        axes.plot(ends, [y, y], color=theme.ink, linewidth=3.4, solid_capstyle="round")
    for position, entrant in enumerate(entrants):
        left = position < half
        # the outermost ranks get the shortest way to their names, so that no two lines cross
        place = position if left else count - 1 - position
        y = -below - step * (place + 0.5)
        edge = 1 - 0.03 * span if left else count + 0.03 * span
        colour = theme.colours[position % len(theme.colours)]
        axes.plot([entrant.mean_rank, entrant.mean_rank, edge], [0, y, y], color=colour, linewidth=1.1, solid_joinstyle="round")
        told = f"{short(entrant.label)}  {entrant.mean_rank:.2f}" if left else f"{entrant.mean_rank:.2f}  {short(entrant.label)}"
        axes.annotate(
            told, (edge, y), xytext=(-4 if left else 4, 0), textcoords="offset points", ha="right" if left else "left", va="center",
            color=colour, fontsize=10, parse_math=False,
        )  # fmt: skip
    return rendered(figure)


def _ticks(count: int) -> list[int]:
    step = max(1, math.ceil((count - 1) / 12))
    return [*range(1, count + 1, step)]


def _draw_ruler(axes: Any, length: float, critical: float, theme: Theme) -> None:
    """The critical difference as a length above the axis, cut where it is longer than that."""
    axes.plot([1, 1 + length], [0.5, 0.5], color=theme.ink, linewidth=1.2)
    for end in (1, 1 + length):
        axes.plot([end, end], [0.45, 0.55], color=theme.ink, linewidth=1.2)
    more = " (longer than the axis)" if critical > length else ""
    told = f"critical difference {critical:.2f}{more}"
    axes.annotate(told, (1 + length / 2, 0.58), ha="center", va="bottom", color=theme.ink, fontsize=9)


def draw_profile(across: Across, theme: Theme) -> bytes | None:
    """Share of tracks whose target a model reaches within τ times the fastest's seconds -> SVG; None below two such tracks or models."""
    ratios = across.ratios
    if len(across.timed) < 2 or len(ratios) < 2:
        return None
    table = np.array(ratios).T
    longest = max(2.0, float(table[np.isfinite(table)].max()))
    tau = np.unique(np.concatenate([[1.0, longest * 1.1], table[np.isfinite(table)]]))
    profile = performance_profile(table, tau)
    figure, (axes,) = canvas(theme)
    axes.set_xscale("log")
    axes.set_xlim(1.0, longest * 1.1)
    axes.set_ylim(0.0, 1.04)
    labels = []
    for position, (entrant, shares) in enumerate(zip(across.entrants, profile, strict=True)):
        colour, marker = look(position, theme)
        axes.step(tau, shares, where="post", color=colour, linewidth=1.8, marker=marker, markersize=4, markevery=_jumps(shares), zorder=3)
        labels.append((float(shares[-1]), entrant.label, colour))
    label_ends(axes, labels)
    plain_ticks(axes.xaxis)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}".replace("%", " %"))
    axes.set_xlabel("time to the target, in multiples of the fastest model's")
    axes.set_ylabel(f"share of {len(across.timed)} tracks (more ↑)")
    return rendered(figure)


def _jumps(shares: Any) -> list[int]:
    """Where a step function rises: only there it has a marker."""
    return [at for at in range(len(shares)) if shares[at] > (shares[at - 1] if at else 0.0)]


def draw_comparison(comparison: Comparison, theme: Theme = THEMES[0], form: str = "svg") -> bytes | None:
    """Curves of the rows compared, and their differences with 95 % intervals -> a figure; None where there is neither."""
    table, col = comparison.table, comparison.column
    lines = [(row, line) for row in comparison.rows if (line := curve(row, table))]
    pairs = [pair for pair in comparison.pairs if pair.difference is not None]
    panels = bool(lines) + bool(pairs)
    if not panels:
        return None
    figure, found = canvas(theme, width=0.6 + 5.6 * panels, height=max(3.4, 1.3 + 0.34 * len(pairs)), panels=panels)
    if form != "svg":
        figure.patch.set_alpha(1)
        figure.patch.set_facecolor(theme.paper)
    if lines:
        draw_lines(found[0], lines, table, theme)
    if not pairs:
        return rendered(figure, form)
    axes = found[-1]
    for at, pair in enumerate(pairs):
        assert pair.estimate is not None, "a pair with a difference has an estimate"
        assert pair.difference is not None, "pairs without one were left out"
        value, low, high = pair.estimate
        clear = pair.difference.p < 0.05
        axes.plot([low, high], [-at, -at], color=theme.ink, linewidth=1.6, alpha=1.0 if clear else 0.5, zorder=2)
        axes.scatter([value], [-at], s=42, color=theme.ink if clear else theme.paper, edgecolor=theme.ink, zorder=3)
    axes.axvline(comparison.none, color=theme.ink, alpha=0.55, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    if comparison.scale == "log":
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.set_ylim(-len(pairs) + 0.4, 0.6)
    axes.set_yticks([-at for at in range(len(pairs))])
    joint = "/" if comparison.scale == "log" else "−"
    axes.set_yticklabels([f"{short(pair.a)} {joint} {short(pair.b)}" for pair in pairs], parse_math=False)
    axes.grid(False, axis="y")
    better = {"lower": "below: the first is better", "higher": "above: the first is better", "neither": ""}[col.better]
    kind = "ratio" if comparison.scale == "log" else "difference"
    axes.set_xlabel(f"{kind} of {col.title}, 95 % interval{f' ({better})' if better else ''}", parse_math=False)
    return rendered(figure, form)


ACROSS: dict[str, Callable[[Across, Theme], bytes | None]] = {"critical-difference": draw_critical_difference, "profile": draw_profile}
"""The figures over tracks by kind."""
