"""What a published run's folder may hold, and the note that a submission brings with it. Imports no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import Field, ValidationError

from genbench.errors import GenbenchError
from genbench.records import ModelRef, Part, RunRecord, strict_json
from genbench.verification import is_verification

SCHEMA = 1
NOTE = "submission.json"
EXCERPT = "samples-1000.npz"
EXCERPT_IMAGES = 1000
SOURCE = "model.py.txt"
"""The file of a model that is not packaged, under a name that nothing imports."""
CHECKPOINT_LIMIT = 1 << 20
LIMITS = {
    "record.json": 4 << 20, NOTE: 1 << 20, "curve.csv": 4 << 20, "grid.png": 8_000_000, "samples.npz": 8 << 20, EXCERPT: 8 << 20,
    "checkpoint.safetensors": CHECKPOINT_LIMIT, "checkpoint.json": CHECKPOINT_LIMIT, SOURCE: 1 << 20,
}  # fmt: skip
"""The files of a published run and how many bytes each may have; verifications besides."""


class File(Part):
    """A file of a submission."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    url: str = ""
    """Where to fetch it, of a file that is not here; empty where nobody offers it."""


class Plugin(Part):
    """Whose code the model is."""

    distribution: str
    version: str
    digest: str
    """SHA-256 over the source files the model is made of."""
    source: str
    url: str = ""
    """Where others get it; empty where the package index has it under its name and version."""


class Submission(Part):
    """The note beside a submitted record."""

    schema_version: int = SCHEMA
    submitted: str
    """UTC, ISO 8601."""
    by: str = ""
    plugin: Plugin
    verified: str
    """``T0``, ``T2 (self)``: how far its submitter has verified it."""
    labels: tuple[str, ...] = ()
    """What a reader should know: ``preliminary``, ``contended``, ``failed: diverged``, …"""
    files: dict[str, File]
    """Beside this note."""
    elsewhere: dict[str, File] = Field(default={})
    """Files of the run that are too large to be here."""


def plugin_of(model: ModelRef, url: str = "") -> Plugin:
    """A record's model -> the plugin it came from."""
    return Plugin(distribution=model.distribution, version=model.version, digest=model.digest, source=model.source, url=url)


def place_of(record: RunRecord) -> Path:
    """Where a published record lies under ``records/``: ``<track>/<model>/<seed>-<hash8>``."""
    return Path(*record.spec.folder.parts[1:])


def file_of(content: bytes, url: str = "") -> File:
    """Bytes -> how a note names them."""
    return File(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), url=url)


def limit_of(name: str) -> int | None:
    """Bytes that a published run's file of this name may have; None where a run has no such file."""
    return 1 << 20 if is_verification(name) else LIMITS.get(name)


def read_note(path: Path) -> Submission:
    """A file -> Submission, validated strictly. Raises GenbenchError."""
    try:
        text = path.read_text(encoding="utf-8")
        strict_json(text)
        return Submission.model_validate_json(text)
    except OSError as error:
        raise GenbenchError(f"{path.name}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise GenbenchError(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise GenbenchError(f"{path.name}: {str(error) or type(error).__name__}") from None
