"""Is what is published exactly what its records give, and are the records whole? For CI: everything that is read is data."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from genbench.arrays import read_drawn
from genbench.bundle import EXCERPT, EXCERPT_IMAGES, NOTE, SOURCE, limit_of, place_of, read_note
from genbench.errors import GenbenchError
from genbench.grid import check_png
from genbench.harmless import clean
from genbench.judgements import judgement_paths, read_judgement
from genbench.leaderboard.consistency import record_faults
from genbench.leaderboard.neighbours import row_faults
from genbench.leaderboard.render import build
from genbench.leaderboard.table import Run
from genbench.records import RunRecord, Store, curve_csv, read_record, strict_json
from genbench.verification import is_verification, read_verification, record_digest, unranked

RECORDS = "records"
_TABLES = frozenset({".md", ".csv", ".json", ".tex", ".toml", ".html", ".svg", ".png"})
"""Suffixes of what `build` writes beside the site; another file there is somebody's own."""


class Report(NamedTuple):
    """What was found, a line each; `unchecked` says what could not be looked at, with counts."""

    faults: list[str]
    unchecked: list[str]
    records: int
    files: int
    """Tables and pages compared with what the records give."""


def check(folder: Path, *, against: Path | None = None, tables: bool = True) -> Report:
    """A folder of published tables, with their records under ``records/`` -> Report.

    `against` is the same folder before a change: no record of it may be gone or altered. `tables` says whether tables and pages are
    built anew and compared byte for byte. Raises GenbenchError where there is no record at all.
    """
    root = folder / RECORDS
    paths = Store(root).paths()
    if not paths:
        raise GenbenchError(f"no record.json under {root}; {folder} is no folder of published tables")
    faults: list[str] = list(_strays(root))
    unchecked: Counter[str] = Counter()
    runs = []
    for path in paths:
        name = path.parent.relative_to(root).as_posix()
        try:
            record = read_record(path)
        except GenbenchError as error:
            faults.append(f"{name}: {str(error).replace(str(path), path.name)}")
            continue
        runs.append(Run(record, path))
        faults += [f"{name}: {fault}" for fault in _run_faults(path.parent, record, root, unchecked)]
    faults += [f"{run.path.parent.relative_to(root).as_posix()}: {fault}" for run, fault in row_faults(runs)]
    if against is not None:
        faults += _altered(against / RECORDS, root)
    files = 0
    if tables:
        different, files = _tables(folder, root)
        faults += different
    told = [f"{what} of {count} record{'s' * (count != 1)}" for what, count in sorted(unchecked.items())]
    return Report([clean(fault, 400) for fault in faults], told, len(paths), files)


def _strays(root: Path) -> Iterator[str]:
    """Files that no published run has: links, unknown names, too large ones."""
    judged = set(judgement_paths(root))
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            yield f"{name}: a link; records are plain files"
        elif path in judged:
            try:
                read_judgement(path)
            except GenbenchError as error:
                yield f"{name}: {str(error).removeprefix('judgement ')}"
        elif path.is_file():
            limit = limit_of(path.name)
            if limit is None:
                yield f"{name}: no published run has a file of this name"
            elif path.stat().st_size > limit:
                yield f"{name}: {path.stat().st_size} bytes; {limit} at most"
            elif path.name != "record.json" and not (path.parent / "record.json").exists():
                yield f"{name}: no record.json beside it"


def _run_faults(folder: Path, record: RunRecord, root: Path, unchecked: Counter[str]) -> Iterator[str]:
    """What is wrong with one record and the files beside it."""
    if folder.relative_to(root) != place_of(record):
        yield f"belongs into {place_of(record).as_posix()}: its place is made of what was run, which was edited or moved"
    yield from record_faults(record)
    yield from _curve(folder / "curve.csv", record)
    yield from _grid(folder / "grid.png", unchecked)
    yield from _samples(folder, record, unchecked)
    yield from _checkpoint(folder, record, unchecked)
    yield from _note(folder, record)
    for path in sorted(folder.glob("verification*")):
        if not is_verification(path.name):
            continue  # a stray, told elsewhere
        try:
            found = read_verification(path)
        except GenbenchError as error:
            yield str(error)
            continue
        if found.record_sha256 != record_digest(folder / "record.json"):
            yield f"{path.name} is of another record than the one beside it"
        elif not found.ok:
            yield f"{path.name}, by {found.by}, found what is not as recorded: {'; '.join(found.differs)}"
        elif unranked(found, record.spec.track.rank_by):
            yield f"{path.name} says T{found.tier} and did not see the record's {record.spec.track.rank_by}, which the track ranks by"


def _curve(path: Path, record: RunRecord) -> Iterator[str]:
    if path.is_file() and not path.is_symlink() and path.read_bytes() != curve_csv(record.curve):
        yield "curve.csv is not the curve of its record"


def _grid(path: Path, unchecked: Counter[str]) -> Iterator[str]:
    """That it is a picture; which one, the note of a submission says (`_note`)."""
    if path.exists():
        try:
            check_png(path)
        except GenbenchError as error:
            yield str(error)
        if not path.with_name(NOTE).exists():
            unchecked["grids, which no note names,"] += 1


def _samples(folder: Path, record: RunRecord, unchecked: Counter[str]) -> Iterator[str]:
    track, path = record.spec.track, folder / "samples.npz"
    if path.exists():
        try:
            _, digest = read_drawn(path, track.num_samples, track.size)
            if digest != record.digests.get("samples"):
                yield "samples.npz has another digest than the record says"
        except GenbenchError as error:
            yield str(error).replace(str(path), path.name)
    elif record.status == "done":
        unchecked["digests of samples, which are not beside them,"] += 1
    excerpt = folder / EXCERPT
    if excerpt.exists():
        try:
            read_drawn(excerpt, min(EXCERPT_IMAGES, track.num_samples), track.size)
            unchecked[f"images of {EXCERPT}, which only a run of genbench verify can tell from others,"] += 1
        except GenbenchError as error:
            yield str(error).replace(str(excerpt), excerpt.name)


def _checkpoint(folder: Path, record: RunRecord, unchecked: Counter[str]) -> Iterator[str]:
    path = folder / "checkpoint.safetensors"
    if path.is_file() and not path.is_symlink():
        if hashlib.sha256(path.read_bytes()).hexdigest() != record.digests.get("checkpoint"):
            yield "checkpoint.safetensors has another digest than the record says"
        try:
            about = strict_json(path.with_suffix(".json").read_text(encoding="utf-8"))
            if not isinstance(about, dict) or about.get("sha256") != record.digests.get("checkpoint"):
                yield "checkpoint.json is of another checkpoint"
        except (OSError, ValueError, RecursionError) as error:
            yield f"checkpoint.json can't be read: {str(error)[:120] or type(error).__name__}"
    elif record.status == "done":
        unchecked["digests of checkpoints, which are not beside them,"] += 1


def _note(folder: Path, record: RunRecord) -> Iterator[str]:
    """The note of a submission against the files that it came with."""
    path, model = folder / NOTE, record.spec.model
    source = folder / SOURCE
    if source.is_file() and not source.is_symlink() and hashlib.sha256(source.read_bytes()).hexdigest() != model.digest:
        yield f"{SOURCE} is not the source that the record names"
    if not path.is_file() or path.is_symlink():
        return
    try:
        note = read_note(path)
    except GenbenchError as error:
        yield str(error)
        return
    theirs, ours = ((one.distribution, one.version, one.digest) for one in (note.plugin, model))
    if theirs != ours:
        yield f"{NOTE} names another plugin than the record"
    for name, file in note.files.items():
        there = folder / name
        if limit_of(name) is None or not there.is_file() or there.is_symlink():
            yield f"{NOTE} lists {name}, which is not here"
        elif hashlib.sha256(there.read_bytes()).hexdigest() != file.sha256:
            yield f"{name} is not the file that {NOTE} lists"
    for there in sorted(folder.iterdir()):
        if there.is_file() and there.name != NOTE and there.name not in note.files and not is_verification(there.name):
            yield f"{there.name} is not listed in {NOTE}"


def _altered(before: Path, after: Path) -> Iterator[str]:
    """Published files that a change edits or removes: records are never changed."""
    if not Store(before).paths():
        raise GenbenchError(f"no record.json under {before} to compare with")
    for path in sorted(before.rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(before)
        if not (after / name).is_file():
            yield f"{name.as_posix()}: published, and gone"
        elif (after / name).read_bytes() != path.read_bytes():
            yield f"{name.as_posix()}: published, and altered: a record is never changed"


def _tables(folder: Path, root: Path) -> tuple[list[str], int]:
    """Tables and pages against those that the records give now; the lines and how many files were compared."""
    with tempfile.TemporaryDirectory(prefix="genbench-check-") as fresh:
        try:
            expected = {path.relative_to(fresh) for path in build(root, Path(fresh))}
        except GenbenchError as error:
            return [f"the tables can't be built: {error}"], 0
        faults = []
        for name in sorted(expected):
            published = folder / name
            if not published.is_file() or published.is_symlink():
                faults.append(f"{name.as_posix()}: not there; genbench leaderboard build writes it")
            elif published.read_bytes() != (Path(fresh) / name).read_bytes():
                faults.append(f"{name.as_posix()}: not what the records give{_first_difference(published, Path(fresh) / name)}")
    site = folder / "site"
    strays = [path for path in folder.glob("*") if path.is_file() and path.suffix in _TABLES and not path.name.startswith(".")]
    strays += [path for path in (site, *site.rglob("*")) if path.is_symlink() or path.is_file()]  # of any kind: all of it is published
    names = sorted({path.relative_to(folder) for path in strays} - expected)
    return faults + [f"{name.as_posix()}: no record gives it" for name in names], len(expected)


def _first_difference(published: Path, built: Path) -> str:
    """Where two text files part, for the reader of a log."""
    if published.suffix in (".svg", ".png"):
        return ": changed, or drawn by another version of matplotlib than here"
    try:
        theirs, ours = (path.read_text(encoding="utf-8").splitlines() for path in (published, built))
    except UnicodeDecodeError:
        return ""
    for number, (one, other) in enumerate(zip(theirs, ours, strict=False), 1):
        if one != other:
            at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
            cut = slice(max(0, at - 20), at + 40)
            return f": line {number} has {clean(one[cut], 60)!r}, the records give {clean(other[cut], 60)!r}"
    return f": {len(theirs)} lines, the records give {len(ours)}"
