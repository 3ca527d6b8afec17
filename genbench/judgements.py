"""Records of judgement: what people said of the samples of recorded runs. Imports no torch.

``judge/<track>/judgement-<UTC>-<hash8>.json`` in a results folder or under published records. Written once, never changed: more votes
make another record. Of one study the latest counts, of several studies of one kind the one with the most people.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from genbench.errors import GenbenchError
from genbench.records import Part, Score, safe_name, strict_json, write_once

SCHEMA = 1
FOLDER = "judge"
FULL_PEOPLE = 10
"""People below whom a judgement is preliminary."""
MOST_BYTES = 1 << 20
Mode = Literal["real-or-fake", "which-is-better"]
_NAME = re.compile(r"judgement-\d{8}T\d{6}Z-([0-9a-f]{8})\.json")
_ROW = r"^[0-9a-f]{8}$"


class Excluded(Part):
    """A rule that was fixed before the data, and how many people it left out."""

    rule: str
    people: int = Field(ge=0)


class JudgedModel(Part):
    """What was said of one row of a table."""

    row: str = Field(pattern=_ROW)
    """Eight hex digits of the row's identity."""
    label: str
    seeds: tuple[int, ...]
    """Training seeds whose samples were shown, in equal shares."""
    votes: int = Field(ge=0)
    """Counted votes on its images; of pairs, those it took part in."""
    scores: tuple[Score, ...] = ()


class Meeting(Part):
    """Two rows that were shown beside each other: counted votes."""

    a: str = Field(pattern=_ROW)
    b: str = Field(pattern=_ROW)
    a_won: int = Field(ge=0)
    b_won: int = Field(ge=0)
    ties: int = Field(ge=0)


class Judgement(Part):
    """The record of one study as its votes were when it was made."""

    schema_version: int = SCHEMA
    made: str
    """UTC, ISO 8601."""
    genbench: str
    study: str = Field(pattern=_ROW)
    """Eight hex digits over all that people were shown: studies of equal ones may be merged."""
    mode: Mode
    exposure_ms: int | None = Field(None, ge=100, le=1000)
    """How long an image could be seen; None: as long as the person liked."""
    track: str
    track_hash: str
    device_class: str
    dataset_digest: str
    trials: int
    """First showings planned for a person; a tenth as many are shown again."""
    people: int = Field(ge=0)
    """Those that count: who voted, less those excluded."""
    votes: int = Field(ge=0)
    """Their votes on first showings."""
    excluded: tuple[Excluded, ...] = ()
    """Every rule, with how many people it left out."""
    repeats: int = Field(0, ge=0)
    """Images or pairs that they judged a second time …"""
    repeats_alike: int = Field(0, ge=0)
    """… and how often with the same answer."""
    models: tuple[JudgedModel, ...] = Field(min_length=1)
    overall: tuple[Score, ...] = ()
    """Scores of no single model: the error on real images."""
    meetings: tuple[Meeting, ...] = ()
    votes_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of this study's votes, of all people who gave any, in the form of ``genbench judge export``."""

    @model_validator(mode="after")
    def _fits(self) -> Judgement:
        datetime.fromisoformat(self.made)
        rows = [model.row for model in self.models]
        if len(set(rows)) < len(rows):
            raise ValueError("names a row twice")
        if self.repeats_alike > self.repeats:
            raise ValueError("more repeats alike than there are")
        if any(meeting.a not in rows or meeting.b not in rows or meeting.a == meeting.b for meeting in self.meetings):
            raise ValueError("a meeting of rows that are not judged")
        return self

    @property
    def preliminary(self) -> bool:
        """Whether too few people judged for the numbers to be more than a hint."""
        return self.people < FULL_PEOPLE

    @property
    def kind(self) -> tuple[str, str, str, str, int]:
        """What two judgements must share to stand in one column."""
        return (self.track, self.track_hash, self.device_class, self.mode, self.exposure_ms or 0)


def is_judgement(name: str) -> bool:
    """Whether a file of this name is taken for a record of judgement."""
    return _NAME.fullmatch(name) is not None


def judgement_folder(root: Path, track: str) -> Path:
    """Where a results folder holds the judgements of a track."""
    return root / FOLDER / safe_name(track)


def judgement_paths(root: Path) -> list[Path]:
    """Judgements below a results folder or below published records, in a stable order."""
    return sorted(path for path in root.glob(f"{FOLDER}/*/judgement-*.json") if is_judgement(path.name))


def write_judgement(root: Path, judgement: Judgement) -> Path:
    """Write it into a results folder under a name of its own. Returns the path. Raises GenbenchError where it can't be written."""
    content = judgement.model_dump_json(indent=1).encode() + b"\n"
    moment = datetime.fromisoformat(judgement.made).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"judgement-{moment}-{hashlib.sha256(content).hexdigest()[:8]}.json"
    path = judgement_folder(root, judgement.track) / name
    try:
        write_once(path, content)
    except OSError as error:
        raise GenbenchError(f"judgement {path} can't be written: {error.strerror or error}") from None
    return path


def read_judgement(path: Path) -> Judgement:
    """A file -> Judgement, validated strictly. Raises GenbenchError naming the file and what is wrong."""
    named = _NAME.fullmatch(path.name)
    try:
        if path.is_symlink() or path.stat().st_size > MOST_BYTES:
            raise GenbenchError(f"judgement {path.name} is a link or larger than a judgement is")
        content = path.read_bytes()
        if named is None or hashlib.sha256(content).hexdigest()[:8] != named[1]:
            raise GenbenchError(f"judgement {path.name} was changed: its name holds another digest")
        text = content.decode("utf-8")
        strict_json(text)
        found = Judgement.model_validate_json(text)
    except OSError as error:
        raise GenbenchError(f"judgement {path.name}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise GenbenchError(f"judgement {path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise GenbenchError(f"judgement {path.name}: {str(error) or type(error).__name__}") from None
    return found


def counting(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Judgements -> those that count: of one study the latest, of several studies of one kind the one with the most people."""
    latest: dict[str, Judgement] = {}
    for one in sorted(judgements, key=_age):
        latest[one.study] = one
    best: dict[tuple[str, str, str, str, int], Judgement] = {}
    for one in latest.values():
        other = best.get(one.kind)
        if other is None or (one.people, one.votes, one.study) > (other.people, other.votes, other.study):
            best[one.kind] = one
    return [best[kind] for kind in sorted(best)]


def _age(judgement: Judgement) -> tuple[datetime, int, str]:
    made = datetime.fromisoformat(judgement.made)
    return (made if made.tzinfo else made.replace(tzinfo=UTC), judgement.votes, judgement.votes_sha256)
