"""Rows in the forms that other sites take: Hugging Face's ``.eval_results`` and model-index, and a Papers-with-Code-style CSV.

Controls are left out; so is a row without the score that its track ranks by. The forms are those of huggingface/hub-docs
(``eval_results.yaml`` with ``task_id``, ``modelcard.md``) and of the evaluation tables that Papers with Code published.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError
from genbench.harmless import clean, csv_cell
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.columns import Column
from genbench.leaderboard.table import Cell, Row, Table
from genbench.leaderboard.text import stem
from genbench.records import safe_name, write_atomic

FORMS = ("eval-results", "model-index", "papers-csv")
_TASK = "unconditional-image-generation"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})", re.IGNORECASE)


def export(
    form: str, results: Path | Sequence[Path], out: Path, *, track: str = "", hub_dataset: str = "", url: str = ""
) -> list[Path]:  # fmt: skip
    """Results folders -> files of one of `FORMS` under `out`. Returns them. Raises GenbenchError."""
    if form not in FORMS:
        raise GenbenchError(f"form {form!r} is none that is known; forms: {', '.join(FORMS)}")
    if form == "eval-results" and not _HUB_ID.fullmatch(hub_dataset):
        raise GenbenchError(f"--hub-dataset {hub_dataset!r}: .eval_results name the Hub's dataset of the benchmark, like ORG/NAME")
    if url and not url.startswith("https://"):
        raise GenbenchError(f"--url {url!r} must begin with https://")
    tables = [table for table in read(results).tables if track in ("", table.track.name)]
    files: dict[str, bytes] = {}
    if form == "papers-csv":
        content = to_papers_csv(tables, url)
        files = {"papers.csv": content} if content.count(b"\n") > 1 else {}
    else:
        for position, table, row in _rows(tables):
            folder = f"{stem(table.track.name)}-{position}/{safe_name(row.label)[:60]}-{row.id}"
            if form == "eval-results":
                made = yaml(to_eval_results(table, row, hub_dataset, url))
                files[f"{folder}/.eval_results/genbench-{stem(table.track.name)}.yaml"] = made
            else:
                files[f"{folder}/model-index.yaml"] = yaml(to_model_index(table, row, url))
    try:
        for name, content in files.items():
            write_atomic(out / name, content)
    except OSError as error:
        raise GenbenchError(f"{out} can't be written: {error.strerror or error}; choose another with --out DIR") from None
    return [out / name for name in files]


def to_eval_results(table: Table, row: Row, hub_dataset: str, url: str = "") -> list[dict[str, Any]]:
    """A row -> the one value that its track ranks by, as the Hub's ``.eval_results/*.yaml`` hold it."""
    col, cell = _ranked(table, row)
    entry: dict[str, Any] = {
        "dataset": {"id": hub_dataset, "task_id": table.track.name},
        "value": cell.mean,
        "date": max(run.record.started for run in row.runs)[:10],
        "notes": f"{col.name}, {_seeds(row, cell)}; {_about(table, row, cell)}",
    }
    if url:
        entry["source"] = {"url": url, "name": "genbench leaderboard"}
    return [entry]


def to_model_index(table: Table, row: Row, url: str = "") -> dict[str, Any]:
    """A row -> the ``model-index`` of a model card, every measure of the ranking with its interval and protocol."""
    track = table.track
    metrics = []
    for col in table.main_columns:
        cell = row.cells.get(col.key)
        if cell is None or cell.mean is None:
            continue
        args: dict[str, Any] = {"better": col.better, "seeds": row.seeds, "protocol": ", ".join(cell.protocols)}
        args |= {} if cell.half is None else {"half_width_95": cell.half}
        metrics.append({"type": clean(col.key, 60), "name": clean(col.name, 80), "value": cell.mean, "args": args})
    result: dict[str, Any] = {
        "task": {"type": _TASK, "name": "Class-conditional image generation" if "conditional" in row.family else "Image generation"},
        "dataset": {
            "type": clean(track.dataset, 80), "name": f"{clean(track.dataset, 80)} at {track.size}x{track.size}", "split": track.reference,
            "args": {"track": track.name, "track_hash": table.track_hash, "budget": track.budget, "samples": track.num_samples,
                     "device_class": clean(table.device_class, 80)},
        },
        "metrics": metrics,
    }  # fmt: skip
    if url:
        result["source"] = {"name": "genbench leaderboard", "url": url}
    return {"model-index": [{"name": clean(row.label, 80), "results": [result]}]}


def to_papers_csv(tables: Sequence[Table], url: str = "") -> bytes:
    """Tables -> a line for each measure of each ranked row, in the columns of Papers with Code's evaluation tables."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ["task", "dataset", "model_name", "metric_name", "metric_value", "paper", "paper_url", "code_url", "evaluated_on"]
    writer.writerow([*head, "uses_additional_data", "note"])
    for _, table, row in _rows(tables):
        paper, track = _ARXIV.search(row.model.paper), table.track
        for col in table.main_columns:
            cell = row.cells.get(col.key)
            if cell is None or cell.mean is None:
                continue
            line = [
                "Image Generation", f"{track.dataset} {track.size}x{track.size} ({track.name})", row.label, col.name,
                cell.mean, row.model.paper, f"https://arxiv.org/abs/{paper[1]}" if paper else "", url,
                max(run.record.started for run in row.runs)[:10], bool(row.model.pretrained),
                f"{_seeds(row, cell)}; {_about(table, row, cell)}",
            ]  # fmt: skip
            writer.writerow([csv_cell(value) for value in line])
    return buffer.getvalue().encode()


def yaml(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Plain values -> YAML whose texts are quoted, so that none is taken for anything else."""
    return "\n".join(_lines(value)).encode() + b"\n"


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            nested = isinstance(inner, Mapping | list | tuple)
            yield f"{key}:" if nested else f"{key}: {_scalar(inner)}"
            if nested:
                yield from (f"  {line}" for line in _lines(inner))
    else:
        for item in value:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)


def _scalar(value: Any) -> str:
    return json.dumps(clean(value, 400) if isinstance(value, str) else value, ensure_ascii=False, allow_nan=False)


def _rows(tables: Sequence[Table]) -> Iterator[tuple[int, Table, Row]]:
    """Models with the score that their track ranks by; `position` tells apart the tables of one track."""
    seen: dict[str, int] = {}
    for table in tables:
        position = seen[table.track.name] = seen.get(table.track.name, -1) + 1
        for row in table.rows:
            cell = row.cells.get(table.track.rank_by)
            if table.rank_column is not None and cell is not None and cell.mean is not None:
                yield position, table, row


def _ranked(table: Table, row: Row) -> tuple[Column, Cell]:
    col = table.rank_column
    assert col is not None
    return col, row.cells[col.key]


def _seeds(row: Row, cell: Cell) -> str:
    spread = f" ± {cell.half:.3g} (95 %)" if cell.half is not None else ""
    return f"mean of {row.seeds} seeds{spread}" + (", preliminary" if row.preliminary else "")


def _about(table: Table, row: Row, cell: Cell) -> str:
    protocol = ", ".join(cell.protocols)
    return clean(f"track {table.track.name} {table.track_hash}, protocol {protocol}, {table.device_class}, {row.tier}", 200)
