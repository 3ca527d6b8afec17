"""One run, one JSON file: the record's schema and the results folder that holds records. Imports no torch."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import math
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from genbench.errors import GenbenchError
from genbench.harmless import csv_cell
from genbench.states import FOLDER
from genbench.track import Track, short_hash

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
SCHEMA = 1
SplitName = Literal["test", "train", "holdout", "all"]
"""Which real images a score compares with; ``all``: a set without splits."""
Status = Literal["done", "diverged", "timeout", "oom", "error"]
"""Terminal outcomes. Unfinished work has no record: it lives in ``attempts/``."""


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite: a record holds strict JSON")
    return value


Finite = Annotated[float, AfterValidator(_finite)]


class Part(BaseModel):
    """What records are made of: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(Part):
    """One measured value with all that it takes to compare it with another."""

    name: str
    value: Finite | None
    """None where it could not be computed; `note` says why."""
    better: Literal["lower", "higher", "neither"]
    unit: str = ""
    interval: tuple[Finite, Finite] | None = None
    """95 % interval within this run (not over seeds)."""
    floor: Finite | None = None
    """The same measure of real images (train, equal N) against the reference."""
    extractor: str | None = None
    split: SplitName | None = None
    n_real: int | None = None
    n_fake: int | None = None
    protocol: str = ""
    """Hash over dataset digest, split, numbers of images, resize, quantisation, extractor and weights, dtype, estimator version."""
    note: str = ""


class ModelRef(Part):
    """Which model, exactly: a row's identity is (name, non-default hparams, plugin version and digest)."""

    name: str
    family: str
    paper: str = ""
    source: str
    """Entry point (``genbench_gans:plugin``) or file (``mygan.py:MyGAN``)."""
    distribution: str
    version: str
    digest: str
    """SHA-256 over the source files the model is made of: its own and those of its package that it imports."""
    hparams: dict[str, bool | int | float | str | None] = {}
    """Every hparam in force."""
    changed: dict[str, bool | int | float | str | None] = {}
    """Those that differ from the defaults, presets included."""
    preset: str = ""
    trials: int = 0
    pretrained: str = ""
    holdout: bool = False


class RunSpec(Part):
    """What to run: with equal specs two runs are the same run."""

    model: ModelRef
    track: Track
    track_hash: str
    seed: int = Field(ge=0)
    device: str
    """Device class: ``cpu-2`` (threads) or the GPU's name. Time budgets compare inside one class only."""

    @property
    def hash(self) -> str:
        """Eight hex digits that tell this run from every other of the same track and seed."""
        model = self.model
        return short_hash([model.name, model.source, model.changed, model.version, model.digest, self.track_hash, self.device])

    @property
    def folder(self) -> Path:
        """Place inside a results folder: ``runs/<track>/<model>/<seed>-<hash8>``."""
        return Path("runs") / safe_name(self.track.name) / safe_name(self.model.name) / f"{self.seed}-{self.hash}"


class Spent(Part):
    """The budget ledger."""

    budget: str
    seconds: Finite
    steps: int
    images: int
    flops: Finite | None = None
    overshoot: Finite = 0.0
    """In the budget's own kind."""
    lost: Finite = 0.0
    """Seconds charged for work lost to crashes."""
    attempts: int = 1
    cpu_seconds: Finite | None = None
    waited: Finite | None = None
    """Share of the clock spent waiting for a core."""
    contended: bool = False
    finished_early: bool = False
    """The model said it needed no more budget."""
    gemm_gflops: tuple[Finite, Finite] | None = None
    """Calibration: float32 matrix product rate before and after, GFLOP/s."""


class Throughput(Part):
    """Images per second; sampling by batch size as median with 5th and 95th percentile."""

    train: Finite | None = None
    sample: dict[str, tuple[Finite, Finite, Finite]] = {}
    sample_waited: Finite | None = None
    """Share of the time that sampling waited for a core while it was measured."""
    parameters: int | None = None
    flops_per_image: Finite | None = None
    train_peak_bytes: int | None = None
    sample_peak_bytes: int | None = None
    energy_joules: Finite | None = None


HOLDOUT_NLL = "holdout_nll"
"""Among the losses of a curve, where the track ranks by likelihood: minus the importance-weighted bound on 500 holdout images, k = 50."""


class CurvePoint(Part):
    """The state of a run at one share of its budget."""

    progress: Finite
    seconds: Finite
    steps: int
    images: int
    fid: Finite | None = None
    losses: dict[str, Finite | None] = {}


class Environment(Part):
    """Where it ran."""

    genbench: str
    python: str
    torch: str
    device: str
    """Name of the device as its maker calls it."""
    cores: int
    threads: int
    platform: str
    packages: dict[str, str] = {}
    git: str | None = None
    """Commit of the working directory, with ``+`` where it had changes."""


class RunRecord(Part):
    """The result of one run. Written once, never changed."""

    schema_version: int = SCHEMA
    spec: RunSpec
    status: Status
    reason: str = ""
    log_tail: tuple[str, ...] = ()
    started: str
    """UTC, ISO 8601."""
    scores: tuple[Score, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    spent: Spent | None = None
    throughput: Throughput | None = None
    flags: tuple[str, ...] = ()
    """Words such as ``collapsed`` or ``clipped 3 %``."""
    prior: str = ""
    """Where the latents of the samples came from, in the model's own words: ``N(0, I)``, ``GMM(20)``, ``autoregressive``; it decides
    a VAE's FID. Empty where the model does not say."""
    extractor_accuracy: Finite | None = None
    environment: Environment | None = None
    digests: dict[str, str] = {}
    """SHA-256 of ``samples.npz``'s pixels and of ``checkpoint.safetensors``."""

    def score(self, name: str) -> float | None:
        """The value of the score called `name` against the track's reference, or None."""
        return next((score.value for score in self.scores if score.name == name), None)


def safe_name(name: str) -> str:
    """Any text -> a file name that stays inside its folder."""
    cleaned = re.sub(r"[^A-Za-z0-9._=-]+", "_", name).lstrip(".")[:80]
    return cleaned or "_"


class Store:
    """A results folder: ``runs/<track>/<model>/<seed>-<hash8>/record.json`` and its neighbours."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def prepare(self) -> None:
        """Create the folder and try to write in it. Raises GenbenchError."""
        try:
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            probe = self.root / "runs" / f".probe-{uuid.uuid4().hex}"  # containers on several machines have the same process ids
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise GenbenchError(
                f"results folder {self.root} can't be written: {error.strerror or error}; choose another with --results DIR"
            ) from None

    def folder(self, spec: RunSpec) -> Path:
        """Where this run's files live."""
        return self.root / spec.folder

    def get(self, spec: RunSpec) -> RunRecord | None:
        """The record of this run, or None where it is not finished. A damaged one, or another run's, is set aside and None returned.

        Raises GenbenchError where it is there and can't be read at the moment: that says nothing against what is in it.
        """
        path = self.folder(spec) / "record.json"
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise GenbenchError(f"record {path} can't be read: {error.strerror or error}; the same command goes on once it can") from None
        try:
            record = parse_record(content, path)
            if record.spec.folder != spec.folder:
                raise GenbenchError(f"record {path} is that of {record.spec.folder}")
            return record
        except GenbenchError as error:
            _log.warning("%s; set aside as record.damaged.json, and the run is open again", error)
            with contextlib.suppress(FileNotFoundError):  # another process has set it aside meanwhile
                path.replace(path.with_name("record.damaged.json"))
            return None

    def status(self, spec: RunSpec) -> Status | None:
        """How this run ended, read in a fraction of the time of `get`; None where it has no record that `get` might read."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            said = json.loads((self.folder(spec) / "record.json").read_bytes())["status"]
            return said if said in get_args(Status) else None
        return None

    def commit(self, record: RunRecord) -> Path:
        """Write the record atomically; the first commit wins. Returns its path."""
        path = self.folder(record.spec) / "record.json"
        write_once(path, record.model_dump_json(indent=1).encode() + b"\n")
        return path

    def paths(self) -> list[Path]:
        """Every record file, in a stable order."""
        return [Path(path) for path in _records_below(str(self.root))]

    def __iter__(self) -> Iterator[RunRecord]:
        for path in self.paths():
            yield read_record(path)


def read_record(path: Path) -> RunRecord:
    """A file -> RunRecord, validated strictly. Raises GenbenchError naming the file and what is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GenbenchError(f"record {path}: {error.strerror or error}") from None
    return parse_record(content, path)


def parse_record(content: bytes, path: Path) -> RunRecord:
    """What a file holds -> RunRecord, as `read_record`; `path` is its name in errors."""
    try:
        text = content.decode("utf-8")
        strict_json(text)
        return RunRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise GenbenchError(f"record {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise GenbenchError(f"record {path}: {error}") from None


def strict_json(text: str) -> Any:
    """Text -> its JSON value. Raises ValueError for duplicate keys, NaN and infinities, which JSON does not have."""
    return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)


def curve_csv(curve: Sequence[CurvePoint]) -> bytes:
    """The points of a curve -> ``curve.csv``: a line a point, its FID and losses."""
    losses = sorted({name for point in curve for name in point.losses})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["progress", "seconds", "steps", "images", "fid", *map(csv_cell, losses)])
    for point in curve:
        table.writerow([point.progress, point.seconds, point.steps, point.images, point.fid, *[point.losses.get(name) for name in losses]])
    return text.getvalue().encode()


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside `path`, flush to disk, rename: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_once(path: Path, content: bytes) -> bool:
    """Write as `write_atomic` does, but never over a file that is there, whoever may be writing it now -> whether it was written."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if path.exists():
                return False
            temporary.replace(path)
        sync_folder(path.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it lasts; where the file system cannot, nothing."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def column_key(score: Score, track: Track) -> str:
    """A score's column: its name, with the extractor's where that is not the track's own."""
    return score.name if score.extractor in (None, track.extractor) else f"{score.name}@{score.extractor}"


def load(results: str | Path) -> pd.DataFrame:
    """Results folder -> one row per run: model, track, seed, status, hparams, every score as a column, ledger and throughput.

    A score's column is its name, ``fid``, or ``fid@pixels-pca`` where the extractor is not the track's own. Raises GenbenchError where
    there is no such folder, and for a record that can't be read.
    """
    import pandas as pd

    root = Path(results)
    if not root.is_dir():
        what = "is a file; name the folder that has runs/ in it" if root.exists() else "does not exist"
        raise GenbenchError(f"results folder {root} {what}")
    rows = []
    for path in Store(root).paths():
        record = read_record(path)
        spec = record.spec
        row: dict[str, Any] = {
            "track": spec.track.name, "model": spec.model.name, "family": spec.model.family, "seed": spec.seed,
            "status": record.status, "reason": record.reason,
        }  # fmt: skip
        for score in record.scores:
            row.setdefault(column_key(score, spec.track), score.value)
        if record.spent:
            row |= {f"spent_{key}": getattr(record.spent, key) for key in ("seconds", "steps", "images", "flops")}
        if record.throughput:
            row |= {"train_throughput": record.throughput.train, "parameters": record.throughput.parameters}
        row |= {f"hp_{key}": value for key, value in spec.model.hparams.items()}
        row |= {"device": record.environment.device if record.environment else None, "folder": str(path.parent)}
        rows.append(row)
    return pd.DataFrame(rows)


def _records_below(folder: str) -> Iterator[str]:
    """Paths of the record files below a folder, in the order of their parts. What a finished run did is not walked through."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    finished = any(entry.name == "record.json" for entry in entries)
    for entry in entries:
        if entry.name == "record.json":
            yield entry.path
        elif entry.is_dir(follow_symlinks=False) and not (finished and entry.name in ("attempts", FOLDER)):
            yield from _records_below(entry.path)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {key!r}")
        found[key] = value
    return found


def _no_constants(literal: str) -> None:
    raise ValueError(f"{literal} is not strict JSON")
