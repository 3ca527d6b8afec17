"""The benchmark, read aloud: check, train, seal, sample in a fresh process, score, write one record."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import genbench
from genbench import machine, witness
from genbench.budget import Budget
from genbench.errors import GenbenchError
from genbench.inventory import ModelDescription, check_hparams
from genbench.jobs import Check, Checked, Job, Sampled, Scored, Stage, Trained
from genbench.places import cache_folder, data_root
from genbench.records import CurvePoint, Environment, ModelRef, RunRecord, RunSpec, Spent, Status, Store, write_atomic
from genbench.supervisor import Outcome, Supervisor
from genbench.track import Track

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where runs happen: results folder, device, threads, and where data and weights are."""

    store: Store
    checked: Checked
    threads: int
    weights: Path | None = None
    memory: int | None = None
    """Bytes that a run on a CPU may take."""


@dataclass(frozen=True)
class Planned:
    """One run to come."""

    spec: RunSpec
    source: str
    """Entry point or file the child loads the model from."""


def check(
    track: Track, supervisor: Supervisor, *, results: Path, device: str = "auto", threads: int | None = None, weights: Path | None = None
) -> Place:
    """Everything that can be wrong before a model trains: results folder, device, dataset, weights. Raises GenbenchError."""
    store = Store(results)
    store.prepare()
    threads = threads or machine.cores()
    with tempfile.TemporaryDirectory(prefix="genbench-") as folder:
        asked = Check(track=track, attempt=Path(folder), data_root=data_root(), device=device, threads=threads, weights=weights)
        outcome = supervisor.run("check", asked, limit=None)
    if outcome.status == "interrupted":
        raise KeyboardInterrupt
    if outcome.result is None:
        raise GenbenchError(outcome.reason)
    return Place(store, Checked.model_validate(outcome.result), threads, weights, int(MEMORY * machine.free_bytes()))


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
            spec = RunSpec(model=reference, track=track, track_hash=track.hash, seed=seed, device=place.checked.device_class)
            planned.append(Planned(spec, model.source))
    return planned


def run(planned: Planned, place: Place, supervisor: Supervisor, on_event: Callable[[Event], None] = lambda event: None) -> RunRecord | None:
    """Run one planned run to its record; None where it was interrupted. A failure of the plugin is a record, not an exception."""
    spec, store = planned.spec, place.store
    folder = store.folder(spec)
    job = _job(planned, place, folder)
    draft: dict[str, Any] = {"spec": spec, "started": datetime.now(UTC).isoformat(timespec="seconds"), "environment": _environment(place)}

    heard = _Heard()

    def listen(event: Event) -> None:
        heard.take(event)
        on_event(event)

    def stage(name: Stage, limit: float | None = None) -> Outcome:
        """Run a stage; where its process is killed, again, from the last saved state, until that has happened without progress."""
        nonlocal job
        crashes = 0
        while True:
            on_event({"kind": "stage", "stage": name})
            before = _saved_steps(folder)
            outcome = supervisor.run(name, job, limit=limit, on_message=listen)
            if not outcome.crashed:
                return outcome
            crashes = 1 if _saved_steps(folder) > before else crashes + 1
            if crashes >= CRASHES:
                return replace(outcome, reason=f"{outcome.reason}, {crashes} times in a row without getting on")
            on_event({"kind": "crash", "stage": name, "reason": outcome.reason})
            job = _job(planned, place, folder)

    def finish(status: Status, reason: str = "", log_tail: tuple[str, ...] = ()) -> RunRecord:
        record = RunRecord(status=status, reason=reason, log_tail=log_tail, **draft)
        store.commit(record)
        shutil.rmtree(folder / "state", ignore_errors=True)
        witness.forget(folder / "attempts")
        return record

    def failed(outcome: Outcome) -> RunRecord | None:
        if outcome.status == "interrupted":
            return None
        if "spent" not in draft:
            draft.update(heard.account(spec.track.budget, job.attempt))
        return finish(outcome.status, outcome.reason, outcome.log_tail)  # type: ignore[arg-type]

    budget = Budget.parse(spec.track.budget)
    kept = folder / "state" / "trained.json"
    if kept.exists():
        # Interrupted after training: its checkpoint is sealed, its budget spent.
        trained = Trained.model_validate_json(kept.read_bytes())
    else:
        outcome = stage("train", budget.amount + spec.track.grace if budget.kind == "seconds" else None)
        if outcome.result is None:
            return failed(outcome)
        trained = Trained.model_validate(outcome.result)
        if trained.stopped:
            return None
        trained = trained.model_copy(update={"spent": trained.spent.model_copy(update={"attempts": int(job.attempt.name)})})
        write_atomic(kept, trained.model_dump_json().encode())
    draft |= {"spent": trained.spent, "throughput": trained.throughput, "curve": trained.curve}
    draft |= {"digests": {"checkpoint": trained.checkpoint}}
    if trained.diverged:
        draft["digests"] = {}
        return finish("diverged", trained.diverged)
    if budget.kind == "seconds" and trained.spent.overshoot > spec.track.grace:
        return finish("timeout", f"trained {trained.spent.overshoot:.1f} s beyond its budget; the grace is {spec.track.grace:.0f} s")

    outcome = stage("sample")
    if outcome.result is None:
        return failed(outcome)
    sampled = Sampled.model_validate(outcome.result)
    draft["digests"] |= {"samples": sampled.samples}
    draft["prior"] = sampled.prior
    measured = {"sample": sampled.sample_rates, "sample_waited": sampled.sample_waited, "sample_peak_bytes": sampled.peak_bytes}
    draft["throughput"] = trained.throughput.model_copy(update=measured)

    outcome = stage("score")
    if outcome.result is None:
        return failed(outcome)
    scored = Scored.model_validate(outcome.result)
    flags = (*sampled.flags, *scored.flags)
    fids = (*scored.curve, *[None] * (len(trained.curve) - len(scored.curve)))
    curve = tuple(point.model_copy(update={"fid": fid}) for point, fid in zip(trained.curve, fids, strict=True))
    draft |= {"scores": scored.scores, "curve": curve, "flags": flags, "extractor_accuracy": scored.extractor_accuracy}
    _write_curve(folder / "curve.csv", curve)
    return finish("done")


MEMORY = 0.9
"""Share of the free memory that a run on a CPU may take."""
CRASHES = 3
"""Crashes in a row, without a new state saved between them, after which a run is given up."""


def _job(planned: Planned, place: Place, folder: Path) -> Job:
    """What a child is told, with a new folder for this attempt."""
    attempts = [int(path.name) for path in (folder / "attempts").glob("*") if path.name.isdecimal()]
    attempt = folder / "attempts" / str(1 + max(attempts, default=0))
    attempt.mkdir(parents=True)
    return Job(
        spec=planned.spec, source=planned.source, folder=folder.resolve(), attempt=attempt.resolve(), data_root=data_root(),
        cache=cache_folder(), device=place.checked.device, threads=place.threads, weights=place.weights, memory=place.memory,
    )  # fmt: skip


def _saved_steps(folder: Path) -> int:
    """Steps of the furthest state that a training has saved."""
    return max((int(path.name.partition("-")[0]) for path in (folder / "state").glob("[0-9]*-[0-9]*")), default=0)


class _Heard:
    """What a training said before it failed: the curve so far."""

    def __init__(self) -> None:
        self._curve: list[CurvePoint] = []

    def take(self, event: Event) -> None:
        """Note a point of the curve; other events are ignored."""
        if event["kind"] == "tick" and event["phase"] == "curve":
            # after a crash a point may come a second time
            self._curve = [point for point in self._curve if point.progress < event["progress"]] + [_point(event)]

    def account(self, budget: str, attempt: Path) -> dict[str, Any]:
        """The record's fields for a run that did not come to its end; empty where its training never began."""
        spent = witness.noted(attempt)
        if spent is None:
            return {}
        return {"curve": tuple(self._curve), "spent": Spent(budget=budget, attempts=int(attempt.name), **spent._asdict())}


def _point(event: Event) -> CurvePoint:
    losses = {name: value if math.isfinite(value) else None for name, value in event["losses"].items()}
    return CurvePoint(losses=losses, **{key: event[key] for key in ("progress", "seconds", "steps", "images")})


def check_changes(models: Sequence[ModelDescription], changed: Mapping[str, Mapping[str, str]]) -> None:
    """Hparams as written on the command line against what the models have, before anything is started. Raises GenbenchError."""
    for model in models:
        check_hparams(model, changed.get(model.name, {}))


def retry(planned: Planned, store: Store) -> None:
    """Set a failed record aside, into its last attempt's folder and under another name, so that the run happens again."""
    folder = store.folder(planned.spec)
    attempts = folder / "attempts"
    (folder / "record.json").replace(attempts / str(max(1, sum(1 for _ in attempts.glob("*")))) / "failed.json")


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


@contextmanager
def supervised() -> Iterator[Supervisor]:
    """A supervisor whose fork server is already starting."""
    supervisor = Supervisor()
    supervisor.warm_up()
    yield supervisor


def _write_curve(path: Path, curve: Sequence[CurvePoint]) -> None:
    import csv
    import io

    losses = sorted({name for point in curve for name in point.losses})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["progress", "seconds", "steps", "images", "fid", *losses])
    for point in curve:
        table.writerow([point.progress, point.seconds, point.steps, point.images, point.fid, *[point.losses.get(name) for name in losses]])
    write_atomic(path, text.getvalue().encode())


def _environment(place: Place) -> Environment:
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
