"""Records of verification: how far somebody has recomputed a run, and the tier that this gives it. Imports no torch.

Beside ``record.json``, as ``verification-<tier>-<UTC>-<hash8>.json``. It holds the digest of the record's bytes: a record that was
changed afterwards has no verification any more. It is a claim of whom it names, and worth as much as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from genbench.errors import GenbenchError
from genbench.records import Environment, Finite, Part, read_record, strict_json, write_atomic

SCHEMA = 1
SELF = "self"
"""Who verified, where it is whoever made the run."""
Tier = Literal[1, 2, 3]
Origin = Literal["stored samples", "recorded seed", "fresh seed", "retrained"]
"""What a score was computed anew from."""
_NAME = re.compile(r"verification-([123])-\d{8}T\d{6}Z-([0-9a-f]{8})\.json")
_NEEDED: dict[int, set[str]] = {
    1: {"record", "samples"}, 2: {"record", "model", "checkpoint"}, 3: {"record", "model", "checkpoint", "retrained"},
}  # fmt: skip
"""Findings that a verification of a tier has, and well."""
_MOST_BYTES = 1 << 20
_MOST_FILES = 100


class Finding(Part):
    """One thing that was looked at."""

    what: str
    ok: bool | None
    """None: it could not be checked, or is told without judging."""
    detail: str = ""


class Compared(Part):
    """One score, recorded and computed anew."""

    score: str
    """Its name, with ``@extractor`` where that is not the track's."""
    of: Origin
    recorded: Finite | None
    found: Finite | None
    tolerance: Finite | None = None
    """Largest difference that counts as none; None where nothing is judged."""
    ok: bool | None
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Found less recorded."""
        return None if self.recorded is None or self.found is None else self.found - self.recorded


class Verification(Part):
    """The record of one verification."""

    schema_version: int = SCHEMA
    tier: Tier
    """What was asked for, and reached where `ok`."""
    ok: bool
    by: str = Field(min_length=1, max_length=80)
    made: str
    """UTC, ISO 8601."""
    run: str
    """Place of the run inside a results folder."""
    record_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the bytes of ``record.json``."""
    same_machine: bool
    """Whether processor, threads and versions are those of the record: samples must then come out equal bit for bit."""
    fresh_seed: int | None = None
    retrained_seeds: tuple[int, ...] = ()
    findings: tuple[Finding, ...]
    scores: tuple[Compared, ...] = ()
    environment: Environment

    @property
    def differs(self) -> list[str]:
        """What is not as recorded, a line each."""
        told = [f"{finding.what}: {finding.detail}" for finding in self.findings if finding.ok is False]
        for one in self.scores:
            if one.ok is False:
                told.append(f"{one.score} of {one.of}: recorded {_shown(one.recorded)}, found {_shown(one.found)}{_beyond(one)}")
        return told

    @property
    def agreed(self) -> frozenset[str]:
        """Scores that what this tier asks for gave as recorded."""
        return agreed(self.tier, self.findings, self.scores)

    @property
    def lacks(self) -> str:
        """What every verification of this tier that found all as recorded holds, and this one does not; empty where it holds all."""
        missing = sorted(_NEEDED[self.tier] - {finding.what for finding in self.findings if finding.ok})
        again = sum(one.of == "retrained" for one in self.scores)
        if missing:
            return f"nothing found of {', '.join(missing)}"
        if not self.agreed:
            return "no score found as recorded"
        if self.tier > 1 and self.fresh_seed is None:
            return "no fresh seed"
        return "no value for each retrained seed" if self.tier == 3 and not 0 < len(self.retrained_seeds) == again else ""

    @property
    def unchecked(self) -> list[str]:
        """What could not be checked, a line each."""
        return [f"{finding.what}: {finding.detail}" for finding in self.findings if finding.ok is None]


def agreed(tier: Tier, findings: Sequence[Finding], scores: Sequence[Compared]) -> frozenset[str]:
    """Findings and comparisons -> scores found as recorded by what a tier asks for: of the stored samples at 1; at 2 and 3 of what the
    checkpoint gives, which are the stored samples where it gives these, pixel for pixel."""
    of: set[Origin] = {"stored samples"} if tier == 1 else {"recorded seed", "fresh seed"}
    if any(finding.what == "recorded seed" and finding.ok for finding in findings):
        of.add("stored samples")
    return frozenset(one.score for one in scores if one.ok and one.of in of)


@dataclass(frozen=True)
class Standing:
    """How far a run has been verified."""

    tier: int = 0
    """0 reported, 1 recomputed from its samples, 2 regenerated from its checkpoint, 3 retrained."""
    by: tuple[str, ...] = ()
    """Who reached that tier."""
    differs: tuple[str, ...] = ()
    """Verifications of this very record that found differences, by file name."""

    @property
    def own(self) -> bool:
        """Whether nobody but whoever made the run says so."""
        return self.tier > 0 and set(self.by) == {SELF}

    @property
    def label(self) -> str:
        """``T0``, ``T2``, ``T1 (self)``."""
        return f"T{self.tier} (self)" if self.own else f"T{self.tier}"


def tier_of(folder: Path) -> int:
    """A run's folder -> the tier it has reached: 0 reported, 1 recomputed, 2 regenerated, 3 retrained."""
    return standing(folder).tier


def standing(folder: Path) -> Standing:
    """A run's folder -> how far it has been verified; what is no verification of the record as it stands counts for nothing."""
    found = []
    paths = verification_paths(folder)[:_MOST_FILES]
    try:
        ranked = read_record(folder / "record.json").spec.track.rank_by if paths else ""
    except GenbenchError:
        return Standing()
    digest = record_digest(folder / "record.json") if paths else ""
    for path in paths:
        try:
            verification = read_verification(path)
        except GenbenchError:
            continue
        if verification.record_sha256 == digest and not unranked(verification, ranked):
            found.append((path, verification))
    tier = max((one.tier for _, one in found if one.ok), default=0)
    by = tuple(sorted({one.by for _, one in found if one.ok and one.tier == tier}))
    return Standing(tier, by, tuple(path.name for path, one in found if not one.ok))


def unranked(verification: Verification, ranked: str) -> bool:
    """Whether it claims to be of tier 2 or 3 and did not see the score that the track ranks by come out as recorded."""
    return verification.ok and verification.tier > 1 and ranked not in verification.agreed


def verification_paths(folder: Path) -> list[Path]:
    """Files in a run's folder that are called like verifications, in a stable order."""
    return sorted(path for path in folder.glob("verification-*.json") if _NAME.fullmatch(path.name))


def is_verification(name: str) -> bool:
    """Whether a file of this name is taken for a record of verification."""
    return _NAME.fullmatch(name) is not None


def record_digest(path: Path) -> str:
    """SHA-256 of a record's bytes; empty where it can't be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def write_verification(folder: Path, verification: Verification) -> Path:
    """Write it beside its record, under a name of its own. Returns the path. Raises GenbenchError where it can't be written."""
    content = verification.model_dump_json(indent=1).encode() + b"\n"
    moment = datetime.fromisoformat(verification.made).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"verification-{verification.tier}-{moment}-{hashlib.sha256(content).hexdigest()[:8]}.json"
    try:
        write_atomic(path, content)
    except OSError as error:
        raise GenbenchError(f"verification {path} can't be written: {error.strerror or error}") from None
    return path


def read_verification(path: Path) -> Verification:
    """A file -> Verification, validated strictly. Raises GenbenchError naming the file and what is wrong."""
    named = _NAME.fullmatch(path.name)
    try:
        if path.is_symlink() or path.stat().st_size > _MOST_BYTES:
            raise GenbenchError(f"verification {path.name} is a link or larger than a verification is")
        content = path.read_bytes()
        if named is None or hashlib.sha256(content).hexdigest()[:8] != named[2]:
            raise GenbenchError(f"verification {path.name} was changed: its name holds another digest")
        text = content.decode("utf-8")
        strict_json(text)
        found = Verification.model_validate_json(text)
    except OSError as error:
        raise GenbenchError(f"verification {path.name}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise GenbenchError(f"verification {path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise GenbenchError(f"verification {path.name}: {str(error) or type(error).__name__}") from None
    if str(found.tier) != named[1]:
        raise GenbenchError(f"verification {path.name} holds tier {found.tier}")
    if found.ok and found.differs:
        raise GenbenchError(f"verification {path.name} says that all is as recorded and lists what is not: {found.differs[0]}")
    if found.ok and found.lacks:
        raise GenbenchError(f"verification {path.name} says that it reached tier {found.tier}: {found.lacks}")
    return found


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"


def _beyond(one: Compared) -> str:
    if one.difference is None or one.tolerance is None:
        return f" ({one.note})" if one.note else ""
    return f", {one.difference:+.3g} where {one.tolerance:.2g} is allowed"
