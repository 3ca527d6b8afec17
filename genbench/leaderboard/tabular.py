"""Tables as CSV and JSON, with raw numbers. `schemas` says what the JSON holds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.harmless import csv_cell
from genbench.leaderboard import words
from genbench.leaderboard.across import Across, time_to_target
from genbench.leaderboard.fronts import fronts
from genbench.leaderboard.table import Row, Table

SCHEMA = 1
_LONGEST_COMMAND = 20_000
"""Characters: a command that is cut is none, and a spreadsheet takes 32 767 in a cell."""


def rows(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Tables -> one JSON-ready object a row: identity, rank, seeds, status and every measure with its values by seed."""
    found = []
    for table in tables:
        extractors = {col.key: col.extractor for col in table.columns}
        found += [_row(table, row, extractors) for row in table.all_rows]
    return found


def _row(table: Table, row: Row, extractors: Mapping[str, str]) -> dict[str, Any]:
    times, time = time_to_target(row, table.track.target)
    return {
        "track": table.track.name,
        "track_hash": table.track_hash,
        "device_class": table.device_class,
        "rank": row.rank,
        "rank_interval_95": row.rank_interval,
        "group": row.group,
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
        "tier": row.tier,
        "status": row.status,
        "flags": list(row.flags),
        "distribution": row.model.distribution,
        "version": row.model.version,
        "digest": row.model.digest,
        "paper": row.model.paper,
        "changed": row.model.changed,
        "reproduce": words.recipe(row, table.track),
        "seconds_to_target": {"target": table.track.target, "median": time, "by_seed": {str(seed): value for seed, value in times.items()}},
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
                "fronts": fronts(table),
                "rows": rows([table]),
            }
            for table in tables
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def across_to_json(found: Sequence[Across]) -> bytes:
    """What the tables say together -> strict JSON."""
    content = {"schema_version": SCHEMA, "across": [_across(across) for across in found]}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _across(across: Across) -> dict[str, Any]:
    test = across.friedman
    return {
        "device_class": across.device_class,
        "tracks": [{"name": name, "target": target} for name, target in zip(across.tracks, across.targets, strict=True)],
        "entrants": [
            {
                "label": entrant.label,
                "mean_rank": entrant.mean_rank,
                "ranks": list(entrant.ranks),
                "medians": list(entrant.scores),
                "seconds_to_target": list(entrant.times),
            }
            for entrant in across.entrants
        ],
        "friedman": test and {"chi2": test.chi2, "p": test.p, "critical_difference": test.critical_difference},
        "not_distinguishable": [[entrant.label for entrant in across.entrants[first : last + 1]] for first, last in across.alike],
        "refused": across.refused,
        "notes": list(across.notes),
    }


_FIXED = (
    "track",
    "track_hash",
    "device_class",
    "rank",
    "rank_low",
    "rank_high",
    "group",
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
    "tier",
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
        scores = [row["scores"].get(key, {}) for key in keys]
        low, high = row["rank_interval_95"] or (None, None)
        fixed = {**row, "rank_low": low, "rank_high": high}
        values = [score.get(part) for score in scores for part in ("mean", "half_width_95", "median")]
        hparams = ", ".join(f"{key}={value}" for key, value in sorted(row["changed"].items()))
        cells = [csv_cell(value) for value in (*(fixed[name] for name in _FIXED), hparams, *values)]
        writer.writerow([*cells, csv_cell(row["reproduce"], _LONGEST_COMMAND)])
    return buffer.getvalue().encode()
