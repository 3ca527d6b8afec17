"""Quality against what it costs: which models of a table no other beats in both."""

from __future__ import annotations

from typing import Literal

from genbench.leaderboard.statistics import pareto_front
from genbench.leaderboard.table import Row, Table

Cost = Literal["train_throughput", "sample_throughput", "train_peak_bytes"]
COSTS: tuple[Cost, ...] = ("train_throughput", "sample_throughput", "train_peak_bytes")


def quality_and_cost(table: Table, cost: Cost = "train_throughput") -> list[tuple[Row, float, float]]:
    """Models that have both, with mean images/s or bytes and median FID. FIDs of several protocols are not comparable: none."""
    fid = next((col for col in table.columns if col.key == "fid"), None)
    if fid is None or fid.mixed:
        return []
    pairs = ((row, _mean(row, cost), _median(row, "fid")) for row in table.rows)
    return [(row, x, y) for row, x, y in pairs if x and y is not None and y > 0]


def front(table: Table, cost: Cost = "train_throughput") -> list[Row]:
    """Rows that no model beats in both FID and cost, by rising throughput or memory."""
    memory = cost == "train_peak_bytes"
    found = quality_and_cost(table, cost)
    rows = {row.id: row for row, _, _ in found}
    best = [rows[key] for key in pareto_front({row.id: (-x if memory else x, y) for row, x, y in found})]
    return best[::-1] if memory else best


def fronts(table: Table) -> dict[str, list[str]]:
    """Cost -> labels of the front of FID against it, where two models have both."""
    return {cost: [row.label for row in front(table, cost)] for cost in COSTS if len(quality_and_cost(table, cost)) > 1}


def _mean(row: Row, key: str) -> float | None:
    cell = row.cells.get(key)
    return None if cell is None else cell.mean


def _median(row: Row, key: str) -> float | None:
    cell = row.cells.get(key)
    return None if cell is None else cell.median
