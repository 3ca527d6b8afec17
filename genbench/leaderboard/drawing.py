"""How figures look: themes, axes, names beside lines and points; matplotlib without a screen. Equal input gives equal bytes."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from genbench.leaderboard.columns import group_thousands

_MARKERS = "osD^vP*Xh<>p"
_ROUND: tuple[tuple[float, ...], ...] = ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 3, 4, 5, 6, 8))
_UNDATED: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


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


def look(position: int, theme: Theme) -> tuple[str, str]:
    """Colour and marker of the n-th model."""
    return theme.colours[position % len(theme.colours)], _MARKERS[position % len(_MARKERS)]


def canvas(theme: Theme, width: float = 6.2, height: float = 4.3, panels: int = 1, grid: bool = True) -> tuple[Any, list[Any]]:
    """A figure, in inches, and its axes side by side, in a theme's colours on transparent ground."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 10.5, "text.parse_math": False, "text.color": theme.ink, "axes.labelcolor": theme.ink, "axes.edgecolor": theme.ink,
        "xtick.color": theme.ink, "ytick.color": theme.ink, "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        found = [figure.add_subplot(1, panels, at + 1) for at in range(panels)]
        for axes in found:
            if grid:
                axes.grid(True, which="major", color=theme.faint, linewidth=0.7)
            axes.set_axisbelow(True)
    figure.patch.set_alpha(0)
    return figure, found


def label_ends(axes: Any, labels: Sequence[tuple[float, str, str]]) -> None:
    """(y, name, colour) of lines -> their names at the right end of the axes, moved apart where they would overlap (about 22 fit).

    Limits and scale of the axes must be set.
    """
    if not labels:
        return
    gap = min(0.052, 1.0 / len(labels))
    to_share = axes.transData + axes.transAxes.inverted()
    middle = axes.get_xlim()[1]
    ordered = sorted((float(to_share.transform((middle, value))[1]), label, colour) for value, label, colour in labels)
    placed: list[float] = []
    for share, _, _ in ordered:
        placed.append(max(share, placed[-1] + gap) if placed else share)
    overflow = placed[-1] - 1.0
    for position in range(len(placed) - 1, -1, -1):  # push back down what went over the top
        ceiling = 1.0 if position == len(placed) - 1 else placed[position + 1] - gap
        placed[position] = min(placed[position], ceiling) if overflow > 0 else placed[position]
    for (share, label, colour), place in zip(ordered, placed, strict=True):
        axes.plot([1.003, 1.03], (share, place), transform=axes.transAxes, color=colour, linewidth=0.8, alpha=0.7, clip_on=False)
        axes.annotate(
            short(label), (1.035, place), xycoords="axes fraction", va="center", color=colour, fontsize=9.5, annotation_clip=False,
            parse_math=False,
        )  # fmt: skip


def plain_ticks(axis: Any) -> None:
    """Label a log axis with plain numbers: the fewest of the round ones that make three, or evenly spaced ones where it is short."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    for steps in _ROUND:
        found = round_values(low, high, steps)
        if 3 <= len(found) <= 12:
            axis.set_major_locator(FixedLocator(found))
            break
    axis.set_major_formatter(FuncFormatter(lambda value, _: group_thousands(value) if value >= 1000 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def round_values(low: float, high: float, steps: Sequence[float]) -> list[float]:
    """The multiples of powers of ten, by each of `steps`, within limits above 0."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = (float(f"{step:g}e{decade}") for decade in decades for step in steps)
    return [value for value in values if low <= value <= high]


def label_points(
    figure: Any,
    axes: Any,
    points: Sequence[tuple[str, tuple[float, float], bool]],
    theme: Theme,
    nameless: Sequence[tuple[float, float]] = (),
) -> None:
    """Names, points and whether each is among the best -> its name at the first of eight places around it that is free.

    The best come first, and get a name even where no place is free; another is then left out. `nameless` are points to keep clear of too.
    """
    with quiet():
        figure.canvas.draw()
    taken = axes.transData.transform([*(point for _, point, _ in points), *nameless])
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
    for label, point, best in sorted(points, key=lambda one: (not one[2], one[1], one[0])):
        text: Any = None
        for dx, dy, align in offsets:
            if text is not None:
                text.remove()
            text = axes.annotate(short(label), point, xytext=(dx, dy), textcoords="offset points", ha=align, va="center", color=theme.ink,
                                 fontsize=9.5, fontweight="bold" if best else "normal", parse_math=False)  # fmt: skip
            with quiet():
                extent = text.get_window_extent(renderer)
            box = (extent.x0, extent.y0, extent.x1, extent.y1)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
                break
        else:
            if not best:
                text.remove()
                continue
        boxes.append(box)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A name in a script that the font lacks is drawn as boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def short(label: str) -> str:
    """A label -> what fits beside a line: its start, and its end, which is what tells it from its namesakes."""
    return label if len(label) <= 26 else f"{label[:15]}…{label[-10:]}"


def rendered(figure: Any, form: str = "svg") -> bytes:
    """A figure -> the bytes of its file: ``svg``, ``pdf`` or ``png``."""
    import matplotlib

    buffer = io.BytesIO()
    # the salt and the missing date make equal records give equal bytes
    with matplotlib.rc_context({"svg.hashsalt": "genbench", "svg.fonttype": "path", "text.parse_math": False}), quiet():
        figure.savefig(buffer, format=form, metadata=_UNDATED[form], transparent=form == "svg", dpi=200)
    return buffer.getvalue()
