"""How sure a ranking is: the interval of each row's rank, and the groups of rows that can't be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from genbench.leaderboard import statistics
from genbench.leaderboard.columns import Column
from genbench.leaderboard.table import Row


def qualify(rows: Sequence[Row], col: Column | None) -> list[Row]:
    """Ranked rows -> the same with `rank_interval` and `group`, by what the track ranks by; rows of one finished seed get neither.

    Values are compared as logarithms where all are above 0. An interval always holds the row's own rank, which is by the median.
    """
    ranked = [at for at, row in enumerate(rows) if row.rank is not None]
    if col is None or len(ranked) < 2:
        return list(rows)
    finished = [finished_values(rows[at], col.key) for at in ranked]
    costs = oriented(finished, col)
    failures = [len(rows[at].runs) - len(values) for at, values in zip(ranked, finished, strict=True)]
    found = list(rows)
    for at, interval in zip(ranked, statistics.rank_intervals(costs, failures), strict=True):
        rank = rows[at].rank
        if interval is not None and rank is not None:
            found[at] = replace(found[at], rank_interval=(min(rank, interval[0]), max(rank, interval[1])))
    several = [(at, values) for at, values in zip(ranked, costs, strict=True) if len(values) > 1]
    if len(several) > 1:
        groups = statistics.letter_groups(statistics.games_howell([values for _, values in several]))
        for (at, _), numbers, group in zip(several, groups, statistics.letters(groups), strict=True):
            found[at] = replace(found[at], groups=tuple(numbers), group=group)
    return found


def finished_values(row: Row, key: str) -> list[float]:
    """A row -> its finished seeds' values of a measure, by seed."""
    cell = row.cells.get(key)
    return [] if cell is None else [value for _, value in sorted(cell.values.items()) if value is not None]


def oriented(groups: Sequence[Sequence[float]], col: Column) -> list[list[float]]:
    """Values of a column -> on the scale they are compared on, turned so that lower is better."""
    sign = -1.0 if col.better == "higher" else 1.0
    return [[sign * value for value in group] for group in statistics.on_scale(groups, statistics.scale_of(groups))]


def explanation(rows: Sequence[Row], col: Column | None) -> str:
    """What intervals and letters of these rows mean, in one sentence; empty where there are none."""
    if col is None or not any(row.rank_interval or row.group for row in rows):
        return ""
    values = [finished_values(row, col.key) for row in rows if row.rank is not None]
    of = "the logarithm of the score" if statistics.scale_of(values) == "log" else "the score itself, which is not above 0 everywhere"
    told = f"95 % intervals of ranks are simulated from each row's t distribution of {of}"
    if any(row.group for row in rows):
        told += "; rows that share a letter of their group are not distinguishable by it (Games–Howell, 5 %)"
    return told + "."
