"""Makes a submission: the records of runs, and what is small enough to lie beside them, as new files for others to check."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from genbench.arrays import read_drawn
from genbench.bundle import CHECKPOINT_LIMIT, EXCERPT, EXCERPT_IMAGES, LIMITS, NOTE, SOURCE, File, Submission, file_of, place_of, plugin_of
from genbench.errors import GenbenchError
from genbench.grid import check_png
from genbench.leaderboard.consistency import is_consistent
from genbench.leaderboard.neighbours import row_faults
from genbench.leaderboard.table import Run, device_class, full_seeds, identity
from genbench.records import RunRecord, Store, curve_csv, read_record, write_atomic
from genbench.verification import SELF, read_verification, record_digest, standing, verification_paths

RECORDS = "records"


class Made(NamedTuple):
    """A submission."""

    written: list[Path]
    warnings: list[str]
    checklist: list[tuple[bool, str]]
    """What holds, or is still to be seen to by its author."""


class _Options(NamedTuple):
    by: str
    plugin_url: str
    files_url: str
    source: bytes | None


Row = tuple[str, str, str, str]


def submit(
    runs: Sequence[Path], out: Path, *, by: str = "", plugin_url: str = "", files_url: str = "", model: Path | None = None
) -> Made:  # fmt: skip
    """Folders of runs, or results folders -> new files under ``out/records``; no file that is there is ever changed.

    Failed runs are records too. The lowest finished seed of a row brings its checkpoint, up to 1 MiB, and 1 000 of its samples; of what
    is larger the digests, and `files_url` where to fetch it. Raises GenbenchError, before anything is written, for a record that
    contradicts itself or its files, a row that leaves seeds out, or one that is published with another outcome.
    """
    found = [Run(read_record(path), path) for path in _record_paths(runs)]
    for run in found:
        is_consistent(run.record)
    published = [Run(read_record(path), path) for path in Store(out / RECORDS).paths()]
    new = [run for run in found if not _published(run, out)]
    others = [run for run in published if _row(run) in {_row(one) for one in found}]
    for run, fault in row_faults(new + others):
        if any(run is one for one in new):
            raise GenbenchError(f"{run.path.parent}: {fault}")
    options = _Options(by, plugin_url, files_url, None if model is None else _read_plain(model, LIMITS[SOURCE]))
    seeds = Counter(_row(run) for run in new + others)
    bring = _bringers(new, others)
    warnings = [f"{run.path.parent}: published already, left as it is" for run in found if _published(run, out)]
    planned: dict[Path, bytes] = {}
    for run in new:
        target = out / RECORDS / place_of(run.record)
        files, told = _bundle(run, options, seeds[_row(run)], with_samples=any(run is one for one in bring))
        warnings += [f"{run.path.parent}: {line}" for line in told]
        planned |= {target / name: content for name, content in files.items()}
    taken = [path for path in planned if path.exists() or path.is_symlink()]
    if taken:
        raise GenbenchError(f"{taken[0]} is there already: a submission adds new files only; choose another --out, or remove it")
    try:
        for path in sorted(planned, key=lambda path: (path.name == "record.json", path)):  # a record last: with it the run is there
            write_atomic(path, planned[path])
    except OSError as error:
        raise GenbenchError(f"{out} can't be written: {error.strerror or error}; choose another with --out DIR") from None
    return Made(sorted(planned), warnings, _checklist(new, options, seeds))


def _record_paths(runs: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for run in runs:
        path = run if run.name == "record.json" else run / "record.json"
        there = [path] if path.is_file() else Store(run).paths()
        if not there:
            raise GenbenchError(f"no record.json in {run}; name the folder of a run, or a results folder")
        found += there
    return list(dict.fromkeys(path.resolve() for path in found))


def _row(run: Run) -> Row:
    spec = run.record.spec
    return spec.track.name, spec.track_hash, device_class(run.record), identity(spec.model)


def _published(run: Run, out: Path) -> bool:
    """Whether this very record is published. Raises GenbenchError where another record of the same run is."""
    there = out / RECORDS / place_of(run.record) / "record.json"
    if not there.exists():
        return False
    if record_digest(there) != record_digest(run.path):
        raise GenbenchError(f"{there.parent} is published already, with another outcome than {run.path}: a record is never changed")
    return True


def _bringers(new: Sequence[Run], published: Sequence[Run]) -> list[Run]:
    """Of each row the run that brings samples and checkpoint: its lowest finished seed, unless a published one has them."""
    first: dict[Row, Run] = {}
    for run in sorted(new, key=lambda run: run.seed):
        if run.done:
            first.setdefault(_row(run), run)
    have = {_row(run) for run in published if any((run.path.parent / name).exists() for name in (EXCERPT, "samples.npz"))}
    return [run for row, run in first.items() if row not in have]


def _bundle(run: Run, options: _Options, seeds: int, *, with_samples: bool) -> tuple[dict[str, bytes], list[str]]:
    """One run -> its files by name, and what its submitter should know."""
    folder, record = run.path.parent, run.record
    files = {"record.json": _read_plain(run.path, LIMITS["record.json"])}
    elsewhere: dict[str, File] = {}
    if record.curve:
        files["curve.csv"] = curve_csv(record.curve)
    if (folder / "grid.png").exists():
        check_png(folder / "grid.png")
        files["grid.png"] = _read_plain(folder / "grid.png", LIMITS["grid.png"])
    verified, told = _verifications(folder)
    files |= verified
    for name, content in _arrays(run):
        if with_samples and len(content) <= min(CHECKPOINT_LIMIT, LIMITS[name]):
            files[name] = content
        else:
            where = f"{options.files_url.rstrip('/')}/{place_of(record).as_posix()}/{name}" if options.files_url else ""
            elsewhere[name] = file_of(content, where)
    if with_samples and "samples.npz" in elsewhere:
        files[EXCERPT] = _excerpt(run)
    if options.source is not None and record.spec.model.distribution == "unpackaged":
        if hashlib.sha256(options.source).hexdigest() != record.spec.model.digest:
            raise GenbenchError(
                f"{folder}: --model is not the one file that {record.spec.model.name} was trained from: other digests;"
                f" a model of several files has to be packaged (genbench new)"
            )
        files[SOURCE] = options.source
    reached = standing(folder)
    if run.done and not reached.tier:
        told.append("not verified; genbench verify recomputes it")
    note = Submission(
        submitted=datetime.now(UTC).isoformat(timespec="seconds"), by=options.by, plugin=plugin_of(record.spec.model, options.plugin_url),
        verified=f"T{reached.tier} ({SELF})" if reached.tier else "T0", labels=tuple(_labels(record, seeds)),
        files={name: file_of(content) for name, content in files.items()}, elsewhere=elsewhere,
    )  # fmt: skip
    files[NOTE] = note.model_dump_json(indent=1).encode() + b"\n"
    return files, told + [f"labelled {label}" for label in note.labels]


def _verifications(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """The submitter's own verifications of the record as it stands; others' are theirs to add."""
    files, told = {}, []
    digest = record_digest(folder / "record.json")
    for path in verification_paths(folder):
        try:
            found = read_verification(path)
        except GenbenchError as error:
            told.append(f"left out: {error}")
            continue
        if found.record_sha256 != digest:
            told.append(f"left out: {path.name} is of another record than the one beside it")
        elif not found.ok:
            raise GenbenchError(f"{folder}: {path.name} found what is not as recorded: {'; '.join(found.differs)}")
        elif found.by != SELF:
            told.append(f"left out: {path.name} is by {found.by}, who may add it in a change of their own")
        else:
            files[path.name] = path.read_bytes()
    return files, told


def _arrays(run: Run) -> Iterator[tuple[str, bytes]]:
    """Samples and checkpoint of a finished run, each what its record says. Raises GenbenchError."""
    folder, record, track = run.path.parent, run.record, run.record.spec.track
    if not run.done:
        return
    samples, checkpoint = folder / "samples.npz", folder / "checkpoint.safetensors"
    if samples.exists():
        _, digest = read_drawn(samples, track.num_samples, track.size)
        if digest != record.digests.get("samples"):
            raise GenbenchError(f"{samples} is not what was drawn: its pixels have another digest than the record says")
        yield samples.name, samples.read_bytes()
    if checkpoint.exists():
        content = _read_plain(checkpoint, 16 << 30)
        if hashlib.sha256(content).hexdigest() != record.digests.get("checkpoint"):
            raise GenbenchError(f"{checkpoint} is not the one that was sealed: it has another digest than the record says")
        beside = checkpoint.with_suffix(".json")
        yield checkpoint.name, content
        yield beside.name, _read_plain(beside, 64 << 20)


def _excerpt(run: Run) -> bytes:
    """The first 1 000 samples, in the order drawn, so that those drawn again can be held against them."""
    import numpy as np

    track = run.record.spec.track
    arrays, _ = read_drawn(run.path.parent / "samples.npz", track.num_samples, track.size)
    buffer = io.BytesIO()
    kept: dict[str, Any] = {name: arrays[name][:EXCERPT_IMAGES] for name in ("images", "labels") if name in arrays}
    np.savez_compressed(buffer, **kept)
    content = buffer.getvalue()
    if len(content) > LIMITS[EXCERPT]:  # large images: as many as fit
        buffer = io.BytesIO()
        share = LIMITS[EXCERPT] / len(content)
        np.savez_compressed(buffer, **{name: array[: max(1, int(0.9 * share * len(array)))] for name, array in kept.items()})
        content = buffer.getvalue()
    return content


def _labels(record: RunRecord, seeds: int) -> Iterator[str]:
    """What a reader of the row should know."""
    if record.status != "done":
        yield f"failed: {record.status}"
    if seeds < full_seeds(record.spec.track.seeds):
        yield f"preliminary: {seeds} of {record.spec.track.seeds} seeds"
    if record.spent and record.spent.contended:
        yield "contended: others used the machine while it trained"
    if record.environment and (record.environment.git or "").endswith("+"):
        yield "made from a working copy with changes"
    if record.spec.model.pretrained:
        yield f"pretrained: {record.spec.model.pretrained}"
    if record.spec.model.distribution == "unpackaged":
        yield "not packaged: its source is a file"


def _checklist(runs: Sequence[Run], options: _Options, seeds: Counter[Row]) -> list[tuple[bool, str]]:
    """What a submission needs: what has been seen to, and what only its author can say."""
    done = [run for run in runs if run.done]
    spent = [run.record.spent for run in runs if run.record.spent]
    models = sorted({f"{run.record.spec.model.distribution} {run.record.spec.model.version}".strip() for run in runs})
    whole = all(seeds[_row(run)] >= run.record.spec.track.seeds for run in runs)
    unpackaged = all(run.record.spec.model.distribution == "unpackaged" for run in runs)
    return [
        (True, "records are whole, fit their files and each other, and no published one is touched"),
        (bool(done) and all(standing(run.path.parent).tier for run in done), "every finished run is verified: genbench verify RUN"),
        (whole, "all planned seeds, failed ones among them; fewer are preliminary until they are five"),
        (not any(one.contended for one in spent), "nothing else used the machine while it trained"),
        (bool(options.plugin_url) or (unpackaged and options.source is not None), f"others can get the source: {', '.join(models)}"),
        (bool(options.files_url), "others can fetch what is too large to be here: --files-url"),
        (False, "settings were tuned on the holdout split alone, and the plugin declares how many were tried"),
        (False, "outside weights and data are declared by the plugin (pretrained=...)"),
        (False, "the change adds these files and nothing else; genbench leaderboard check --records-only finds no fault"),
    ]  # fmt: skip


def _read_plain(path: Path, most: int) -> bytes:
    """A plain file's bytes. Raises GenbenchError for a link, or what is too large or not there."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > most:
            raise GenbenchError(f"{path} is not there, a link, or larger than {most} bytes")
        return path.read_bytes()
    except OSError as error:
        raise GenbenchError(f"{path}: {error.strerror or error}") from None
