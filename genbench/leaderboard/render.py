"""Records -> everything that is published: Markdown, CSV, JSON, and a static site that works from ``file://``.

A pure function of the records, what lies beside them and this package. Parts whose inputs have not changed and whose files lie
in the folder as they were written are left alone (`memory`): the files are the same as those of a build from scratch.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from genbench import __version__
from genbench.errors import GenbenchError
from genbench.harmless import clean
from genbench.leaderboard import latex, markdown, schemas, site, tabular, words
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.memory import Memory, code_digest, digest, write
from genbench.leaderboard.site import plots
from genbench.leaderboard.site.frame import TEMPLATES, model_file
from genbench.leaderboard.site.grids import Grid, grid, grid_digest, median_grid
from genbench.leaderboard.table import Results, Row, Table
from genbench.leaderboard.text import stem

_WORTH_FORKING = 16
"""Parts to make from which more than one process is worth its start."""


@dataclass(frozen=True)
class Part:
    """Some files of the published folder that are made together: a name, a digest of all that they depend on, how they are made."""

    name: str
    key: str
    make: Callable[[], Mapping[str, bytes]]


def build(results: Path | Sequence[Path], out: Path, jobs: int = 1, remember: bool = False) -> list[Path]:
    """Results folders -> tables, pages and figures under `out`, made by up to `jobs` processes. Returns the files.

    `remember`: leave alone what an earlier build into this folder made of the same, and remove what no record gives any more.
    Raises GenbenchError where there is no readable record or `out` can't be written.
    """
    found = read(results)
    memory = Memory(out, lasting=remember)
    todo = [part for part in _parts(found) if not memory.holds(part.name, part.key)]
    for part, files in zip(todo, _make(todo, out, jobs), strict=True):
        memory.keep(part.name, part.key, files)
    memory.close()
    return [out / path for path in memory.files]


def _parts(found: Results) -> list[Part]:
    """All that a build makes: tracks first, which take longest, then models, then what stands above both."""
    rows = {id(row): _row_digest(row) for table in found.tables for row in table.all_rows}
    frames = {id(table): _frame_digest(table) for table in found.tables}
    parts = []
    for name, tables in found.by_track.items():
        inputs = [part for table in tables for part in (frames[id(table)], *(rows[id(row)] for row in table.all_rows))]
        parts.append(Part(f"track {name}", _key(inputs), partial(_track, tables, _built(tables, inputs))))
    models: dict[str, list[tuple[Table, Row]]] = {}
    names: dict[str, dict[str, Row]] = {}
    for table in found.tables:
        for row in table.all_rows:
            models.setdefault(row.id, []).append((table, row))
            names.setdefault(clean(row.model.name, 60), {}).setdefault(row.id, row)
    for own, places in models.items():
        siblings = [row for other, row in sorted(names[clean(places[0][1].model.name, 60)].items()) if other != own]
        # a page names its neighbours in the ranking, hence depends on their labels, letters and number
        inputs = [frames[id(table)] + rows[id(row)] + repr([(o.label, o.group) for o in table.rows]) for table, row in places]
        inputs += [row.id for row in siblings]
        parts.append(Part(f"model {own}", _key(inputs), partial(_model, places, siblings, inputs)))
    everything = [*frames.values(), *rows.values(), repr(found.damaged), repr(found.across)]
    parts.append(Part("front", _key(everything), partial(_front, found, _built(found.tables, everything))))
    return parts


def _track(tables: Sequence[Table], built: str) -> dict[str, bytes]:
    """The tables of a track -> its page, Markdown, CSV, JSON, figures and all grids of its runs."""
    file = stem(tables[0].track.name)
    drawn = plots.of_track(tables)
    files = {f"site/{path}": content for path, content in drawn.items()}
    grids = {}
    for position, table in enumerate(tables):
        for row in table.all_rows:
            grids[f"{position}-{row.id}"] = median_grid(row, table)
            files |= {f"site/{own.path}": own.content for own in (grid(row, run) for run in row.runs) if own.path}
    images = {key: f"site/{own.path}" for key, own in grids.items() if own.path}
    figures = {
        f"{position}-{kind}": f"site/{path}"
        for position in range(len(tables))
        for kind, *_ in site.FIGURES
        if (path := f"img/{file}-{position}-{kind}-light.svg") in drawn
    }
    files[f"{file}.md"] = markdown.track_page(tables, figures, images).encode()
    files[f"{file}.csv"] = tabular.to_csv(tables)
    files[f"{file}.json"] = tabular.to_json(tables)
    files[f"{file}.tex"] = latex.to_latex(tables).encode()
    files[f"site/{file}.html"] = site.track_page(tables, set(drawn), grids, built)
    return files | {name: text.encode() for name, text in words.own_tracks(tables).items()}


def _model(places: Sequence[tuple[Table, Row]], siblings: Sequence[Row], inputs: Sequence[str]) -> dict[str, bytes]:
    """A model's rows -> its page."""
    grids: dict[str, Grid] = {}
    for _, row in places:
        grids |= {f"{run.record.spec.hash}-{run.seed}": grid(row, run) for run in row.runs}
    runs = sum(len(row.runs) for _, row in places)
    return {f"site/{model_file(places[0][1])}": site.model_page(places, grids, siblings, _stamp(runs, inputs))}


def _front(found: Results, built: str) -> dict[str, bytes]:
    """What stands above tracks and models: start page, page on the protocol, README, what tracks say together, style, script."""
    galleries = {}
    for name, tables in found.by_track.items():
        galleries[name] = [own for row in tables[0].all_rows[:8] if (own := median_grid(row, tables[0])).path]
    files = {f"site/assets/{name}": (TEMPLATES / name).read_bytes() for name in site.ASSETS}
    drawn = plots.over_tracks(found.across)
    files |= {f"site/{path}": content for path, content in drawn.items()}
    if found.across:
        files["across.json"] = tabular.across_to_json(found.across)
    files |= {f"{name}.schema.json": schemas.schema(model) for name, model in schemas.PUBLISHED.items()}
    files["README.md"] = markdown.index(found, {path: f"site/{path}" for path in drawn}).encode()
    files["site/index.html"] = site.start_page(found, galleries, site.over_tracks(found.across, drawn), built)
    files["site/protocol.html"] = site.protocol_page(found, built)
    return files


def _make(parts: Sequence[Part], out: Path, jobs: int) -> list[dict[str, str]]:
    """Make and write every part -> its files with their SHA-256, in order; in several processes where that is worth it."""
    jobs = min(jobs, len(parts) // _WORTH_FORKING + 1) if sys.platform == "linux" else 1
    if jobs == 1:
        return [_write(part, out) for part in parts]
    # children inherit the tables as they are: nothing is read twice or sent
    context = multiprocessing.get_context("fork")
    readers, processes = [], []
    for share in range(1, jobs):
        reader, writer = context.Pipe(duplex=False)
        processes.append(context.Process(target=_send, args=(parts[share::jobs], out, writer)))
        processes[-1].start()
        writer.close()
        readers.append(reader)
    made: dict[int, dict[str, str]] = {}
    try:
        made |= {at: _write(parts[at], out) for at in range(0, len(parts), jobs)}
        for share, reader in enumerate(readers, 1):
            answer = reader.recv()
            if isinstance(answer, Exception):
                raise answer
            made |= dict(zip(range(share, len(parts), jobs), answer, strict=True))
    except EOFError:
        raise GenbenchError("a process that made pages was killed, by lack of memory perhaps; build again with fewer: --jobs 1") from None
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return [made[at] for at in range(len(parts))]


def _send(parts: Sequence[Part], out: Path, writer: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the command's own way to end would print a traceback here
    try:
        writer.send([_write(part, out) for part in parts])
    except Exception as error:
        writer.send(error)
    writer.close()


def _write(part: Part, out: Path) -> dict[str, str]:
    files = part.make()
    try:
        for path, content in files.items():
            write(out / path, content)
    except OSError as error:
        raise GenbenchError(
            f"leaderboard folder {out} can't be written: {error.strerror or error}; choose another with --out DIR"
        ) from None
    return {path: digest(content) for path, content in files.items()}


def _row_digest(row: Row) -> str:
    """A digest of all that a page shows of a row: what is computed from its records, they themselves, what lies beside them."""
    computed = (row.label, row.cells, row.rank, row.rank_interval, row.group, row.tier, row.extra, row.model.trials)
    found = hashlib.sha256(repr(computed).encode())
    for run in row.runs:
        found.update(f"{run.digest} {grid_digest(run)} {run.seed}\0".encode())
    return found.hexdigest()


def _frame_digest(table: Table) -> str:
    """A digest of a table but its rows."""
    head = (table.track, table.track_hash, table.device_class, table.columns, table.floor, table.notes, table.devices, table.harness)
    return hashlib.sha256(repr((head, table.gemm, table.accuracy)).encode()).hexdigest()


def _key(inputs: Sequence[str]) -> str:
    return hashlib.sha256("\0".join([code_digest(), *inputs]).encode()).hexdigest()


def _built(tables: Sequence[Table], inputs: Sequence[str]) -> str:
    return _stamp(sum(len(row.runs) for table in tables for row in table.all_rows), inputs)


def _stamp(runs: int, inputs: Sequence[str]) -> str:
    """What a page says of its making: enough to cite it, and the same whenever and wherever it is built."""
    data = digest("\0".join(inputs).encode())[:12]
    records = f"{runs} record" + ("s" if runs != 1 else "")
    return f"Built from {records} (digest {data}) by genbench {__version__}."
