"""Tables as CSV and JSON, with raw numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from genbench.leaderboard import words
from genbench.leaderboard.table import Row, Table
from genbench.leaderboard.text import csv_cell

SCHEMA = 1


def rows(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Tables -> one JSON-ready object a row: identity, rank, seeds, status and every measure with its values by seed."""
    return [_row(table, row) for table in tables for row in table.all_rows]


def _row(table: Table, row: Row) -> dict[str, Any]:
    extractors = {col.key: col.extractor for col in table.columns}
    return {
        "track": table.track.name,
        "track_hash": table.track_hash,
        "device_class": table.device_class,
        "rank": row.rank,
        "preliminary": row.preliminary,
        "label": row.label,
        "model": row.model.name,
        "family": row.model.family,
        "prior": row.prior,
        "control": row.control,
        "row": row.id,
        "done": row.done,
        "ended": len(row.runs),
        "planned": row.planned,
        "status": row.status,
        "flags": list(row.flags),
        "distribution": row.model.distribution,
        "version": row.model.version,
        "digest": row.model.digest,
        "paper": row.model.paper,
        "changed": row.model.changed,
        "reproduce": words.recipe(row, table.track),
        "runs": [
            {
                "seed": run.seed,
                "status": run.record.status,
                "reason": run.record.reason,
                "started": run.record.started,
                "folder": run.record.spec.folder.as_posix(),
            }
            for run in row.runs
        ],
        "scores": {
            key: {
                "mean": cell.mean,
                "half_width_95": cell.half,
                "median": cell.median,
                "best": cell.best,
                "extractor": extractors.get(key) or None,
                "protocols": list(cell.protocols),
                "note": cell.note,
                "by_seed": {str(seed): value for seed, value in cell.values.items()},
            }
            for key, cell in row.cells.items()
        },
    }


def to_json(tables: Sequence[Table]) -> bytes:
    """The tables of a track -> strict JSON."""
    content = {
        "schema_version": SCHEMA,
        "track": tables[0].track.model_dump(mode="json"),
        "tables": [
            {
                "track_hash": table.track_hash,
                "device_class": table.device_class,
                "devices": list(table.devices),
                "harness": list(table.harness),
                "gemm_gflops": table.gemm,
                "extractor_accuracy": table.accuracy,
                "rank_by": table.track.rank_by,
                "notes": list(table.notes),
                "columns": [
                    {
                        "key": col.key,
                        "title": col.name,
                        "better": col.better,
                        "unit": col.unit,
                        "explanation": col.help,
                        "protocols": list(col.protocols),
                    }
                    for col in table.columns
                ],
                "floor": table.floor,
                "rows": rows([table]),
            }
            for table in tables
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


_FIXED = (
    "track",
    "track_hash",
    "device_class",
    "rank",
    "preliminary",
    "label",
    "model",
    "family",
    "prior",
    "control",
    "row",
    "done",
    "ended",
    "planned",
    "status",
    "distribution",
    "version",
    "digest",
)


def to_csv(tables: Sequence[Table]) -> bytes:
    """The tables of a track -> CSV, a line a row; of each measure the mean, the half-width of its 95 % interval and the median."""
    keys = list(dict.fromkeys(col.key for table in tables for col in table.columns))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = [*_FIXED, "hparams", *(f"{key}{suffix}" for key in keys for suffix in ("", "_ci95", "_median")), "reproduce"]
    writer.writerow([csv_cell(name) for name in head])
    for row in rows(tables):
        cells = [row["scores"].get(key, {}) for key in keys]
        values = [cell.get(part) for cell in cells for part in ("mean", "half_width_95", "median")]
        hparams = ", ".join(f"{key}={value}" for key, value in sorted(row["changed"].items()))
        writer.writerow([csv_cell(value) for value in (*(row[name] for name in _FIXED), hparams, *values, row["reproduce"])])
    return buffer.getvalue().encode()
