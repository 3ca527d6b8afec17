"""Two figures a table: the score along the budget, and quality against speed. SVG, once for light and once for dark pages."""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench.budget import Budget
from genbench.leaderboard.columns import group_thousands
from genbench.leaderboard.table import Row, Table
from genbench.records import HOLDOUT_NLL

_MARKERS = "osD^vP*Xh<>p"
_DASHES: dict[str, Any] = {"gan": "-", "vae": (0, (5, 1.5)), "other": (0, (1, 1.2))}


@dataclass(frozen=True)
class Theme:
    """Colours of a figure on one kind of page; the categorical ones stay apart for colour-blind readers."""

    name: str
    ink: str
    faint: str
    paper: str
    colours: tuple[str, ...]


# Okabe and Ito's palette, yellow darkened for paper and black lightened for the dark page.
THEMES = (
    Theme(
        "light", "#1f2328", "#d0d4da", "#ffffff", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7b4fc9", "#444444")
    ),
    Theme(
        "dark", "#e6e8eb", "#3d444d", "#14171b", ("#56b4e9", "#ff8a3c", "#2fd6a3", "#e79bc6", "#f0e442", "#7fa8ff", "#b79cff", "#c8ccd2")
    ),
)


@dataclass(frozen=True)
class Line:
    """One model's curve: x in `unit`, median score over seeds, its range."""

    label: str
    x: tuple[float, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def curve(row: Row, table: Table) -> Line | None:
    """A row -> its score along the budget: at each planned share the median and range over seeds; None without points above 0.

    The score is FID, or the negative log-likelihood where the track ranks by that.
    """
    kind = Budget.parse(table.track.budget).kind
    shares = table.track.curve
    gathered: dict[float, list[tuple[float, float]]] = {}
    for run in row.runs:
        for point in run.record.curve:
            score = point.losses.get(HOLDOUT_NLL) if table.track.ranks_by_likelihood else point.fid
            if score is None or score <= 0:
                continue
            share = min(shares, key=lambda planned: abs(planned - point.progress)) if shares else round(point.progress, 2)
            x = float({"seconds": point.seconds, "images": point.images, "steps": point.steps}.get(kind, point.seconds))
            gathered.setdefault(share, []).append((x, score))
    if not gathered:
        return None
    points = [gathered[share] for share in sorted(gathered)]
    scores = [[score for _, score in group] for group in points]
    return Line(
        row.label, tuple(statistics.median(x for x, _ in group) for group in points), tuple(map(statistics.median, scores)),
        tuple(map(min, scores)), tuple(map(max, scores)),
    )  # fmt: skip


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


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Label -> (throughput, score where lower is better): the labels that no other beats in both, by rising throughput."""
    kept = [
        label
        for label, (speed, score) in points.items()
        if not any((s >= speed and q <= score) and (s > speed or q < score) for s, q in points.values())
    ]
    return sorted(kept, key=lambda label: (points[label], label))


def speed_and_quality(table: Table) -> dict[str, tuple[float, float]]:
    """Models with both -> label: (mean training images/s, median FID)."""
    found = {}
    for row in table.rows:
        fid, speed = row.cells.get("fid"), row.cells.get("train_throughput")
        if fid and speed and fid.median is not None and fid.median > 0 and speed.mean:
            found[row.label] = (speed.mean, fid.median)
    return found


def draw_curves(table: Table, theme: Theme) -> bytes | None:
    """The score against the budget spent, log scale, one line a model -> SVG; None where no run has a curve."""
    lines = [(row, line) for row in table.rows if (line := curve(row, table))]
    if not lines:
        return None
    figure, axes = _figure(theme)
    labels = []
    for position, (row, line) in enumerate(lines):
        colour, marker = _look(position, theme)
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
    for label, value in levels(table):
        axes.axhline(value, color=theme.ink, alpha=0.55, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        labels.append((value, label, theme.ink))
    axes.set_yscale("log")
    _label_ends(axes, labels)
    _plain_ticks(axes.yaxis)
    kind = Budget.parse(table.track.budget).kind
    axes.set_xlabel({"seconds": "seconds of training", "images": "images seen", "steps": "steps"}.get(kind, "seconds of training"))
    samples = table.track.curve_samples
    fid = f"FID of {group_thousands(samples)} samples" if samples else "FID"
    axes.set_ylabel("negative log-likelihood of holdout images" if table.track.ranks_by_likelihood else fid)
    axes.set_xlim(left=0)
    return _svg(figure)


def draw_pareto(table: Table, theme: Theme) -> bytes | None:
    """FID against training throughput, both log, with the front -> SVG; None with fewer than two models to show."""
    points = speed_and_quality(table)
    if len(points) < 2:
        return None
    figure, axes = _figure(theme)
    axes.set_xscale("log")
    axes.set_yscale("log")
    best = front(points)
    corners = [points[label] for label in best]
    steps_x = [x for x, _ in corners]
    # what is reachable: at each score the fastest model that is at least as good
    axes.step(steps_x, [y for _, y in corners], where="pre", color=theme.ink, alpha=0.5, linewidth=1.2, zorder=1)
    curves = [row for row in table.rows if curve(row, table)]
    coloured = {row.label: position for position, row in enumerate(curves or table.rows)}
    for label, (x, y) in points.items():
        colour, marker = _look(coloured.get(label, len(coloured)), theme)
        axes.scatter([x], [y], s=52, color=colour, marker=marker, edgecolor=theme.paper, linewidth=0.8, zorder=3)
    axes.margins(0.22)
    for axis in (axes.xaxis, axes.yaxis):
        _plain_ticks(axis)
    _label_points(figure, axes, points, set(best), theme)
    axes.set_xlabel("training images/s (faster →)")
    axes.set_ylabel("FID (better ↓)")
    return _svg(figure)


def _look(position: int, theme: Theme) -> tuple[str, str]:
    return theme.colours[position % len(theme.colours)], _MARKERS[position % len(_MARKERS)]


def _figure(theme: Theme) -> tuple[Any, Any]:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 10.5, "text.parse_math": False, "text.color": theme.ink, "axes.labelcolor": theme.ink, "axes.edgecolor": theme.ink,
        "xtick.color": theme.ink, "ytick.color": theme.ink, "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(6.2, 4.3), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.grid(True, which="major", color=theme.faint, linewidth=0.7)
        axes.set_axisbelow(True)
    figure.patch.set_alpha(0)
    return figure, axes


def _label_ends(axes: Any, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write each line's name at its right end, moved apart where they would overlap (log scale, about 22 lines fit)."""
    low, high = axes.get_ylim()
    values = [value for value, _, _ in labels]
    low, high = min(low, min(values) * 0.8), max(high, max(values) * 1.25)
    axes.set_ylim(low, high)
    span = math.log(high / low)
    gap = min(0.052, 1.0 / max(1, len(labels)))
    placed: list[float] = []
    ordered = sorted(labels)
    for value, _, _ in ordered:
        place = math.log(value / low) / span
        placed.append(max(place, placed[-1] + gap) if placed else place)
    overflow = placed[-1] - 1.0
    for position in range(len(placed) - 1, -1, -1):  # push back down what went over the top
        ceiling = 1.0 if position == len(placed) - 1 else placed[position + 1] - gap
        placed[position] = min(placed[position], ceiling) if overflow > 0 else placed[position]
    for (value, label, colour), place in zip(ordered, placed, strict=True):
        ends = (math.log(value / low) / span, place)
        axes.plot([1.003, 1.03], ends, transform=axes.transAxes, color=colour, linewidth=0.8, alpha=0.7, clip_on=False)
        axes.annotate(
            _short(label),
            (1.035, place),
            xycoords="axes fraction",
            va="center",
            color=colour,
            fontsize=9.5,
            annotation_clip=False,
            parse_math=False,
        )


def _plain_ticks(axis: Any) -> None:
    """Label a log axis at 1, 2 and 5 times powers of ten (powers alone over more than two decades) with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    wide = high / low > 100
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: group_thousands(value) if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label_points(figure: Any, axes: Any, points: Mapping[str, tuple[float, float]], best: set[str], theme: Theme) -> None:
    """Write each point's name at the first of eight places around it that is free."""
    with _quiet():
        figure.canvas.draw()
    taken = [axes.transData.transform(point) for point in points.values()]
    boxes: list[tuple[float, float, float, float]] = [(x - 6, y - 6, x + 6, y + 6) for x, y in taken]
    offsets = [
        (9, 0, "left"),
        (-9, 0, "right"),
        (0, 12, "center"),
        (0, -12, "center"),
        (8, 11, "left"),
        (8, -11, "left"),
        (-8, 11, "right"),
        (-8, -11, "right"),
    ]
    renderer = figure.canvas.get_renderer()
    for label, point in sorted(points.items(), key=lambda item: (item[1], item[0])):
        text = None
        for dx, dy, align in offsets:
            if text is not None:
                text.remove()
            text = axes.annotate(_short(label), point, xytext=(dx, dy), textcoords="offset points", ha=align, va="center", color=theme.ink,
                                 fontsize=9.5, fontweight="bold" if label in best else "normal", parse_math=False)  # fmt: skip
            with _quiet():
                extent = text.get_window_extent(renderer)
            box = (extent.x0, extent.y0, extent.x1, extent.y1)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
                break
        boxes.append(box)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A name in a script that the font lacks is drawn as boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _short(label: str) -> str:
    return label if len(label) <= 26 else label[:25] + "…"


def _svg(figure: Any) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    # the salt and the missing date make equal records give equal bytes
    with matplotlib.rc_context({"svg.hashsalt": "genbench", "svg.fonttype": "path", "text.parse_math": False}), _quiet():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return buffer.getvalue()
