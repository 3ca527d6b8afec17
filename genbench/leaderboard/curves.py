"""The score of a row along the budget, over its seeds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from genbench.budget import Budget
from genbench.leaderboard.columns import group_thousands
from genbench.leaderboard.table import Row, Table
from genbench.records import HOLDOUT_NLL
from genbench.track import Track


@dataclass(frozen=True)
class Line:
    """One model's curve: shares of the budget, what was spent there, median score over seeds, its range."""

    label: str
    shares: tuple[float, ...]
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
    reached = tuple(sorted(gathered))
    points = [gathered[share] for share in reached]
    scores = [[score for _, score in group] for group in points]
    return Line(
        row.label, reached, tuple(statistics.median(x for x, _ in group) for group in points), tuple(map(statistics.median, scores)),
        tuple(map(min, scores)), tuple(map(max, scores)),
    )  # fmt: skip


def curve_title(track: Track) -> str:
    """What the curves of a track show."""
    if track.ranks_by_likelihood:
        return "negative log-likelihood of holdout images"
    return f"FID of {group_thousands(track.curve_samples)} samples" if track.curve_samples else "FID"
