"""The benchmark, read aloud: check, train, seal, sample in a fresh process, score, write one record."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import genbench
from genbench import lease, machine, witness
from genbench.budget import Budget
from genbench.devices import part_of
from genbench.errors import GenbenchError
from genbench.harmless import clean
from genbench.inventory import ModelDescription, check_hparams
from genbench.jobs import Check, Checked, Job, Sampled, Scored, Stage, Trained
from genbench.places import cache_folder, data_root
from genbench.records import (
    CurvePoint,
    Environment,
    ModelRef,
    RunRecord,
    RunSpec,
    Spent,
    Status,
    Store,
    curve_csv,
    sync_folder,
    write_atomic,
)
from genbench.states import FOLDER, begun_with, saved_points, saved_steps
from genbench.supervisor import Outcome, Supervisor
from genbench.track import Track

Event = Mapping[str, Any]
KEEP: Event = {"kind": "keep"}
"""Told before something of a run is kept that counts: how its training ended, its samples, its record."""


class ElsewhereError(GenbenchError):
    """A run that can't go on here: half-done under another torch, or planned with a source that has changed. It is left as it is."""


@dataclass(frozen=True)
class Place:
    """Where runs happen: results folder, device, threads, and where data and weights are."""

    store: Store
    checked: Checked
    threads: int
    weights: Path | None = None
    memory: int | None = None
    """Bytes that a run on a CPU may take."""
    devices: int = 1
    """That train one run together."""


@dataclass(frozen=True)
class Planned:
    """One run to come."""

    spec: RunSpec
    source: str
    """Entry point or file the child loads the model from."""


def check(
    track: Track, supervisor: Supervisor, *, results: Path, device: str = "auto", threads: int | None = None, weights: Path | None = None,
    devices: int = 1,
) -> Place:  # fmt: skip
    """Everything that can be wrong before a model trains: results folder, device, dataset, weights. Raises GenbenchError."""
    store = Store(results)
    store.prepare()
    cores = machine.cores()
    threads = threads or cores - cores % devices or cores
    with tempfile.TemporaryDirectory(prefix="genbench-") as folder:
        asked = Check(
            track=track, attempt=Path(folder), data_root=data_root(), device=device, devices=devices, threads=threads, weights=weights
        )  # fmt: skip
        outcome = supervisor.run("check", asked, limit=None)
    if outcome.status == "interrupted":
        raise KeyboardInterrupt
    if outcome.result is None:
        raise GenbenchError(outcome.reason)
    return Place(store, Checked.model_validate(outcome.result), threads, weights, int(MEMORY * machine.free_bytes()), devices)


def plan(
    models: Sequence[ModelDescription], track: Track, seeds: Iterable[int], place: Place, changed: Mapping[str, Mapping[str, Any]]
) -> list[Planned]:
    """Models x seeds -> runs, seeds outermost, so that an interrupted evening has every model once. Raises GenbenchError."""
    planned = []
    for seed in seeds:
        for model in models:
            if model.sizes and track.size not in model.sizes:
                raise GenbenchError(
                    f"model {model.name!r} supports sizes {', '.join(map(str, model.sizes))}; track {track.name} has {track.size}"
                )
            if model.conditional and not place.checked.num_classes:
                raise GenbenchError(f"model {model.name!r} is told which classes to make; {track.dataset} has no labels")
            reference = _reference(model, track, changed.get(model.name, {}))
            if place.devices > 1:
                _see_that_it_splits(model, reference, place)
            spec = RunSpec(model=reference, track=track, track_hash=track.hash, seed=seed, device=place.checked.device_class)
            planned.append(Planned(spec, model.source))
    return planned


def run(planned: Planned, place: Place, supervisor: Supervisor, on_event: Callable[[Event], None] = lambda event: None) -> RunRecord | None:
    """Run one planned run to its record; None where it was interrupted. A failure of the plugin is a record, not an exception.

    What `on_event` raises ends the run at once, without a record. Raises ElsewhereError where the run was begun under another torch, or
    its plugin's source is not the one it was planned with.
    """
    spec = planned.spec
    folder = place.store.folder(spec)
    trained = _ended_before(folder)
    if trained is None:
        _see_that_it_goes_on(spec, place, folder)
    job = _job(planned, place, folder)
    draft: dict[str, Any] = {"spec": spec, "started": datetime.now(UTC).isoformat(timespec="seconds"), "environment": environment(place)}

    heard = _Heard(folder)

    def listen(event: Event) -> None:
        heard.take(event)
        on_event(event)

    def stage(name: Stage, limit: float | None = None) -> Outcome:
        """Run a stage; where its process is killed, again, from the last saved state, until that has happened without progress."""
        nonlocal job
        crashes = 0
        while True:
            on_event({"kind": "stage", "stage": name})
            before = saved_steps(folder)
            outcome = _ended(supervisor.run(name, job, limit=limit, on_message=listen))
            if not outcome.crashed:
                return outcome
            crashes = 1 if saved_steps(folder) > before else crashes + 1
            if crashes >= CRASHES:
                return replace(outcome, reason=f"{outcome.reason}, {crashes} times in a row without getting on")
            on_event({"kind": "crash", "stage": name, "reason": outcome.reason})
            job = _job(planned, place, folder)

    def finish(status: Status, reason: str = "", log_tail: tuple[str, ...] = ()) -> RunRecord:
        on_event(KEEP)
        record = _committed(RunRecord(status=status, reason=reason, log_tail=log_tail, **draft), place.store)
        for stray in filter(Path.is_file, folder.glob(".*.tmp")):  # what a killed process was writing
            stray.unlink(missing_ok=True)
        return record

    def failed(outcome: Outcome) -> RunRecord | None:
        if outcome.status == "interrupted":
            return None
        if outcome.status == "changed":
            raise ElsewhereError(outcome.reason)
        if "spent" not in draft:
            draft.update(heard.account(spec.track.budget, job.attempt))
        return finish(outcome.status, outcome.reason, outcome.log_tail)  # type: ignore[arg-type]

    budget = Budget.parse(spec.track.budget)
    if trained is None:
        outcome = stage("train", (budget.amount + spec.track.grace) / place.devices if budget.kind == "seconds" else None)
        if outcome.result is None:
            return failed(outcome)
        trained = Trained.model_validate(outcome.result)
        trained = trained.model_copy(update={"spent": trained.spent.model_copy(update={"attempts": int(job.attempt.name)})})
        trained = _by_our_clock(trained, place.devices * outcome.trained, budget)
        on_event(KEEP)
        keep_made(job)
        write_atomic(folder / FOLDER / TRAINED, trained.model_dump_json().encode())
    draft |= {"spent": trained.spent, "throughput": trained.throughput, "curve": trained.curve, "flags": trained.flags}
    draft |= {"digests": {"checkpoint": trained.checkpoint}}
    if trained.diverged:
        draft["digests"] = {}
        return finish("diverged", trained.diverged)
    if budget.kind == "seconds" and trained.spent.overshoot > spec.track.grace:
        return finish("timeout", f"trained {trained.spent.overshoot:.1f} s beyond its budget; the grace is {spec.track.grace:.0f} s")

    outcome = stage("sample")
    if outcome.result is None:
        return failed(outcome)
    on_event(KEEP)
    keep_made(job)
    sampled = Sampled.model_validate(outcome.result)
    draft["digests"] |= {"samples": sampled.samples}
    draft["prior"] = sampled.prior
    measured = {"sample": sampled.sample_rates, "sample_waited": sampled.sample_waited, "sample_peak_bytes": sampled.peak_bytes}
    draft["throughput"] = trained.throughput.model_copy(update=measured)

    outcome = stage("score")
    if outcome.result is None:
        return failed(outcome)
    scored = Scored.model_validate(outcome.result)
    flags = tuple(dict.fromkeys((*trained.flags, *sampled.flags, *scored.flags)))
    fids = (*scored.curve, *[None] * (len(trained.curve) - len(scored.curve)))  # not all where the time for them was over
    curve = tuple(point.model_copy(update={"fid": fid}) for point, fid in zip(trained.curve, fids, strict=False))
    draft |= {"scores": scored.scores, "curve": curve, "flags": flags, "extractor_accuracy": scored.extractor_accuracy}
    on_event(KEEP)
    write_atomic(folder / "curve.csv", curve_csv(curve))
    return finish("done")


MEMORY = 0.9
"""Share of the free memory that a run on a CPU may take."""
CRASHES = 3
"""Crashes in a row, without a new state saved between them, after which a run is given up."""
MADE = ("checkpoint.safetensors", "checkpoint.json", "samples.npz", "grid.png")
"""What stages make that stays in a run's folder."""
MADE_FOR_SCORING = ("curve.npz", "held_out.npz")
"""What they make that lies beside the state until the run is scored."""
TRAINED = "trained.json"
"""In the folder of the state: how the training ended, from its end to that of the run."""
SLOW = 2.0, 0.05
"""Seconds, and share of the time, by which the clock of a model's process may fall behind ours: messages take their time."""


def _job(planned: Planned, place: Place, folder: Path) -> Job:
    """What a child is told, with a new folder for this attempt."""
    attempts = [int(path.name) for path in (folder / "attempts").glob("*") if path.name.isdecimal()]
    attempt = folder / "attempts" / str(1 + max(attempts, default=0))
    attempt.mkdir(parents=True)
    return Job(
        spec=planned.spec, source=planned.source, folder=folder.resolve(), attempt=attempt.resolve(), data_root=data_root(),
        cache=cache_folder(), device=place.checked.device, devices=place.devices, threads=place.threads, weights=place.weights,
        memory=place.memory,
    )  # fmt: skip


def keep_made(job: Job) -> None:
    """Move what a stage has made from its attempt's folder to its place in the run's.

    The stage itself does not: its process may go on after having been stopped for so long that another has taken the run over.
    """
    for names, place in ((MADE, job.folder), (MADE_FOR_SCORING, job.folder / FOLDER)):
        for made in filter(Path.is_file, (job.attempt / name for name in names)):
            place.mkdir(parents=True, exist_ok=True)
            made.replace(place / made.name)
        if place.is_dir():
            sync_folder(place)


def _ended_before(folder: Path) -> Trained | None:
    """How a training ended that was interrupted after its end: its budget is spent, its checkpoint sealed.

    None where there was none, or where its checkpoint is not as it was sealed: then training goes on from what it saved last.
    """
    try:
        trained = Trained.model_validate_json((folder / FOLDER / TRAINED).read_bytes())
        if trained.diverged:
            return trained
        with open(folder / "checkpoint.safetensors", "rb") as file:
            return trained if hashlib.file_digest(file, "sha256").hexdigest() == trained.checkpoint else None
    except (OSError, ValueError):
        return None


def _see_that_it_goes_on(spec: RunSpec, place: Place, folder: Path) -> None:
    """Raise ElsewhereError where a half-done training could not go on here bit for bit, before `resume.restore` finds it out."""
    begun = begun_with(folder)
    here = {"threads": max(1, place.threads // place.devices), "torch": place.checked.torch, "devices": place.devices}
    other = [name for name, value in begun.items() if here.get(name) != value]
    if other:
        was, now = (clean(", ".join(f"{name} {told.get(name, 'unknown')}" for name in other)) for told in (begun, here))
        raise ElsewhereError(
            f"{spec.model.name} seed {spec.seed} was begun with {was}; here it is {now}: go on there, or delete {folder} to begin anew"
        )


def _ended(outcome: Outcome) -> Outcome:
    """A training that saved itself and stopped, though nobody here asked it to, was sent SIGTERM by somebody else: a crash like another."""
    if outcome.result is None or not outcome.result.get("stopped"):
        return outcome
    return replace(outcome, status="error", result=None, reason="its process was sent SIGTERM, and not by its supervisor", crashed=True)


def _by_our_clock(trained: Trained, seen: float, budget: Budget) -> Trained:
    """Charge the device-seconds that we have `seen` pass, where the clock of the model's process tells of fewer, and flag that."""
    spent, (seconds, share) = trained.spent, SLOW
    if seen <= spent.seconds + max(seconds, share * seen):
        return trained
    over = max(spent.overshoot, seen - budget.amount) if budget.kind == "seconds" else spent.overshoot
    flag = f"its clock fell behind: {spent.seconds:.1f} s of {seen:.1f} s counted"
    return trained.model_copy(
        update={"spent": spent.model_copy(update={"seconds": seen, "overshoot": over}), "flags": (*trained.flags, flag)}
    )


class _Heard:
    """What a training said before it failed, and what was saved of earlier attempts: the curve so far."""

    def __init__(self, folder: Path) -> None:
        self._curve: list[CurvePoint] = []
        with suppress(ValueError, TypeError, KeyError):  # a plugin may write there, too
            self._curve = [_point(said) for said in saved_points(folder)]

    def take(self, event: Event) -> None:
        """Note a point of the curve; other events are ignored."""
        if event["kind"] == "tick" and event["phase"] == "curve":
            # after a crash a point may come a second time
            self._curve = [point for point in self._curve if point.progress < event["progress"]] + [_point(event)]

    def account(self, budget: str, attempt: Path) -> dict[str, Any]:
        """The record's fields for a run that did not come to its end in this attempt; empty where its training never began."""
        spent = witness.last_noted(attempt)
        if spent is None:
            return {}
        return {"curve": tuple(self._curve), "spent": Spent(budget=budget, attempts=int(attempt.name), **spent._asdict())}


def _point(event: Event) -> CurvePoint:
    losses = {name: value if value is not None and math.isfinite(value) else None for name, value in event["losses"].items()}
    return CurvePoint(losses=losses, **{key: event[key] for key in ("progress", "seconds", "steps", "images")})


def check_changes(models: Sequence[ModelDescription], changed: Mapping[str, Mapping[str, str]]) -> None:
    """Hparams as written on the command line against what the models have, before anything is started. Raises GenbenchError."""
    for model in models:
        check_hparams(model, changed.get(model.name, {}))


def give_up(planned: Planned, place: Place, status: Status, reason: str) -> RunRecord:
    """Commit the record of a run that takes its machine or its supervisor down, with what its last training spent, and return it."""
    folder = place.store.folder(planned.spec)
    attempts = sorted((path for path in (folder / "attempts").glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))
    spent = _Heard(folder).account(planned.spec.track.budget, attempts[-1]) if attempts else {}
    record = RunRecord(spec=planned.spec, status=status, reason=reason, started=datetime.now(UTC).isoformat(timespec="seconds"), **spent)
    return _committed(record, place.store)


def _committed(record: RunRecord, store: Store) -> RunRecord:
    """Commit a record and remove what only an unfinished run needs -> the record that counts: another's where that came first."""
    folder = store.folder(record.spec)
    store.commit(record)
    _tidy(folder)
    return store.get(record.spec) or record


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished run needs: what it had saved, and what it had spent, which no retry is charged for."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    for name in (*MADE, *MADE_FOR_SCORING):  # of an attempt that ended before they were kept
        for stray in (folder / "attempts").glob(f"*/{name}"):
            stray.unlink(missing_ok=True)
    witness.forget(folder / "attempts")


def retry(planned: Planned, store: Store) -> None:
    """Set a failed record aside, into its last attempt's folder and under another name, so that the run happens again.

    Nothing happens where the run is open or done by now: another process may have retried it. Raises BusyError where one works on it.
    """
    folder = store.folder(planned.spec)
    with lease.held(folder):
        record = store.get(planned.spec)
        if record is None or record.status == "done":
            return
        attempts = folder / "attempts"
        last = attempts / str(max(1, sum(1 for _ in attempts.glob("*"))))
        _tidy(folder)  # who wrote the record may have been killed before
        last.mkdir(parents=True, exist_ok=True)  # a record that came from elsewhere came without them
        (folder / "record.json").replace(last / "failed.json")


def _reference(model: ModelDescription, track: Track, asked: Mapping[str, Any]) -> ModelRef:
    """The model as records name it: hparams asked for, over the preset for the track, over the defaults."""
    preset = model.presets.get(track.base, {})
    hparams = {**model.defaults, **preset, **check_hparams(model, asked)}
    return ModelRef(
        name=model.name, family=model.family, paper=model.paper, source=model.label, distribution=model.distribution,
        version=model.version, digest=model.digest, hparams=hparams,
        changed={name: value for name, value in hparams.items() if value != model.defaults[name]},
        preset=track.base if preset else "", trials=model.trials if preset and not track.reproduces else 0,
        pretrained=model.pretrained, holdout=model.holdout,
    )  # fmt: skip


def _see_that_it_splits(model: ModelDescription, reference: ModelRef, place: Place) -> None:
    """Raise GenbenchError where the model, with these hparams, can't train on as many devices."""
    why = model.alone(reference.hparams)
    if why:
        raise GenbenchError(f"model {model.name!r} trains on one device, not {place.devices}: {why}")
    size = reference.hparams.get("batch_size")
    if isinstance(size, int) and size > 0:
        part_of(min(size, place.checked.num_train), place.devices, f"model {model.name!r}")


@contextmanager
def supervised() -> Iterator[Supervisor]:
    """A supervisor whose fork server is already starting."""
    supervisor = Supervisor()
    supervisor.warm_up()
    yield supervisor


def environment(place: Place) -> Environment:
    """What a place is, as records hold it."""
    checked = place.checked
    return Environment(
        genbench=genbench.__version__, python=platform.python_version(), torch=checked.torch, device=checked.device_name,
        cores=os.cpu_count() or 1, threads=place.threads, platform=f"{platform.system()} {platform.machine()}",
        packages=checked.packages, git=_git(),
    )  # fmt: skip


def _git() -> str | None:
    """The working directory's commit, with ``+`` where it has changes; None outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5)
        dirty = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else None
