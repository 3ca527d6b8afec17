"""Verifies a run, whoever made it: recompute its scores from its samples, regenerate those from its checkpoint, train it again.

Nothing in a run's folder is executed or believed: samples are plain arrays, checkpoints are safetensors, both are read strictly and
copied aside first; the model's code is the one installed here, and only where it is the very source that the record names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from genbench import run as runs
from genbench.errors import GenbenchError
from genbench.leaderboard.consistency import record_faults
from genbench.records import RunRecord, read_record
from genbench.supervisor import Supervisor
from genbench.verification import SELF, Finding, Tier, Verification, agreed, record_digest
from genbench.verify.recompute import recompute
from genbench.verify.regenerate import declared, installed, regenerate
from genbench.verify.retrain import Watch, retrain, trainings
from genbench.verify.subject import Subject, Told, place_for


def verify(
    run: Path,
    supervisor: Supervisor,
    *,
    tier: int = 0,
    by: str = SELF,
    model: str = "",
    device: str = "",
    weights: Path | None = None,
    repeats: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    watch: Watch = lambda planned, position: nullcontext(lambda event: None),
) -> Verification:
    """A run's folder, or its ``record.json`` -> what was found; nothing is written.

    Tier 1 recomputes every score from the stored samples; 2 regenerates those from the checkpoint, with the recorded seed and with a
    fresh one; 3 trains again, `repeats` times (0: as often as the test needs), with fresh seeds. Each includes those below; 0 stands
    for 2 where there is a checkpoint, else 1. `model` is the file of a model that is not packaged. Raises GenbenchError where it
    can't be done, or not told whether the score that the track ranks by holds: what differs is a finding, not an error.
    """
    folder = run.parent if run.name == "record.json" else run
    record, digest = read_record(folder / "record.json"), record_digest(folder / "record.json")
    if record.status != "done":
        raise GenbenchError(f"{folder}: nothing to verify: the run ended as {record.status} ({record.reason})")
    wanted = tier or (2 if (folder / "checkpoint.safetensors").is_file() else 1)
    if wanted not in (1, 2, 3):
        raise GenbenchError(f"tier {wanted} is none: 1 recomputes scores, 2 regenerates samples, 3 trains again")
    faults = record_faults(record)
    told = Told([Finding(what="record", ok=not faults, detail="; ".join(faults) or "its parts fit each other")], [])
    described = installed(record, model) if wanted > 1 else None
    others, times = trainings(folder, record, repeats) if wanted == 3 else ([], 0)
    with tempfile.TemporaryDirectory(prefix="genbench-verify-") as work:
        subject = Subject(
            folder, record, digest, place_for(record, supervisor, Path(work), device, weights), supervisor, Path(work).resolve(), tell
        )  # fmt: skip
        stored = recompute(subject, told, needed=wanted == 1)
        if described is not None:
            declared(record, described, told)
            regenerate(subject, described, stored, told)
            _ranked_is_judged(record, told)
        if described is not None and wanted == 3:
            retrain(subject, described, told, others, times, watch)
        same, found_in = subject.same_machine, runs.environment(subject.place)
    reached: Tier = 1 if wanted == 1 else 2 if wanted == 2 else 3
    return Verification(
        tier=reached, ok=not told.fails, by=by, made=datetime.now(UTC).isoformat(timespec="seconds"), run=record.spec.folder.as_posix(),
        record_sha256=digest, same_machine=same, fresh_seed=told.fresh_seed, retrained_seeds=told.retrained,
        findings=tuple(told.findings), scores=tuple(told.scores), environment=found_in,
    )  # fmt: skip


def _ranked_is_judged(record: RunRecord, told: Told) -> None:
    """Raises GenbenchError where nothing differs, but nobody could tell whether the score that the track ranks by does."""
    ranked = record.spec.track.rank_by
    if not told.fails and ranked not in agreed(2, told.findings, told.scores):
        raise GenbenchError(
            f"tier 2 is out of reach: {ranked}, which the track ranks by, has no interval within the run, so that samples other than the "
            f"stored ones can't be judged by it; verify on a machine like the record's, with samples.npz beside it, or use --tier 1"
        )


def summary(verification: Verification) -> str:
    """One line: what was verified, by whom, with what outcome."""
    what = {1: "scores recomputed from the samples", 2: "samples regenerated from the checkpoint", 3: "trained again"}[verification.tier]
    differs = verification.differs
    outcome = "all as recorded" if verification.ok else f"{len(differs)} thing{'s' * (len(differs) != 1)} not as recorded"
    return f"T{verification.tier} ({verification.by}): {what}: {outcome}"
