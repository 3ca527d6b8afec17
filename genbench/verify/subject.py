"""The run that is verified, what is found about it, and how its scores are computed anew and compared."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genbench
from genbench import agreement, machine
from genbench import run as runs
from genbench.devices import apart
from genbench.errors import GenbenchError
from genbench.jobs import Job, Scored, Stage
from genbench.places import cache_folder, data_root
from genbench.records import RunRecord, RunSpec, Score, column_key, write_atomic
from genbench.supervisor import Supervisor
from genbench.verification import Compared, Finding, Origin

if TYPE_CHECKING:
    from numpy.typing import NDArray

Judge = Callable[[Score, Score], agreement.Verdict]


@dataclass(frozen=True)
class Subject:
    """The run to verify, and what it is verified with."""

    folder: Path
    record: RunRecord
    digest: str
    place: runs.Place
    supervisor: Supervisor
    work: Path
    tell: Callable[[str], None]

    @property
    def same_machine(self) -> bool:
        """Whether processor, threads and versions are those of the record."""
        theirs, ours = self.record.environment, runs.environment(self.place)
        keys = ("genbench", "torch", "device", "threads", "platform", "packages")
        return theirs is not None and all(getattr(theirs, key) == getattr(ours, key) for key in keys)

    def stage(self, name: Stage, folder: Path, spec: RunSpec, source: str = "") -> dict[str, Any]:
        """Run one stage of a run in a child, on files in `folder`. Raises GenbenchError where it fails."""
        job = Job(
            spec=spec, source=source, folder=folder, attempt=folder / "attempts" / "1", data_root=data_root(), cache=cache_folder(),
            device=self.place.checked.device, threads=self.place.threads, weights=self.place.weights, memory=self.place.memory,
        )  # fmt: skip
        outcome = self.supervisor.run(name, job, limit=None)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt
        if outcome.result is None:
            raise GenbenchError(outcome.reason)
        runs.keep_made(job)
        return outcome.result


@dataclass
class Told:
    """What has been found so far."""

    findings: list[Finding]
    scores: list[Compared]
    fresh_seed: int | None = None
    retrained: tuple[int, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether something is not as recorded."""
        return any(finding.ok is False for finding in self.findings) or any(score.ok is False for score in self.scores)


def place_for(record: RunRecord, supervisor: Supervisor, work: Path, device: str, weights: Path | None) -> runs.Place:
    """Where to verify: as the run was made, as far as this machine is like that one."""
    on_cpu = apart(record.spec.device)[1].startswith("cpu")
    asked = device or ("cpu" if on_cpu else "auto")
    theirs = record.environment.threads if record.environment else 0
    threads = theirs if 0 < theirs <= machine.cores() else machine.cores()
    return runs.check(record.spec.track, supervisor, results=work / "results", device=asked, threads=threads, weights=weights)


def score(subject: Subject, folder: Path, arrays: dict[str, NDArray[Any]], spec: RunSpec) -> Scored:
    """Score arrays by the track's metrics in a child, from a file written here."""
    import numpy as np

    buffer = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez(buffer, **named)
    write_atomic(folder / "samples.npz", buffer.getvalue())
    return Scored.model_validate(subject.stage("score", folder, spec))


def compare(record: RunRecord, found: Sequence[Score], of: Origin, judge: Judge = agreement.of_same_pixels) -> Iterator[Compared]:
    """Recorded scores against those found, in the record's order; then what was found and is not in the record."""
    track = record.spec.track
    theirs = {column_key(score, track): score for score in record.scores}
    ours = {column_key(score, track): score for score in found}
    for key, score in theirs.items():
        other = ours.get(key)
        if other is not None:
            verdict = judge(score, other)
            yield Compared(
                score=key, of=of, recorded=score.value, found=other.value, tolerance=verdict.tolerance, ok=verdict.ok, note=verdict.note
            )  # fmt: skip
        elif of == "stored samples" and score.n_fake == 0:
            note = "asked of the model: tier 2"
            yield Compared(score=key, of=of, recorded=score.value, found=None, ok=None, note=note)
        else:
            yield Compared(score=key, of=of, recorded=score.value, found=None, ok=False, note="no metric of the track gives it")
    current = record.environment is not None and record.environment.genbench == genbench.__version__
    for key, score in ours.items():
        if key not in theirs:
            note = "the record leaves it out"
            yield Compared(score=key, of=of, recorded=None, found=score.value, ok=False if current else None, note=note)
