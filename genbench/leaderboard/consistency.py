"""What must hold inside one record, whoever wrote it: no other file is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from genbench.budget import Budget
from genbench.devices import apart, class_of
from genbench.errors import GenbenchError
from genbench.leaderboard.table import device_class
from genbench.records import RunRecord, Score, Spent, column_key
from genbench.track import Track, shipped_tracks

_BETWEEN: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("precision", "recall", "coverage", "ks", "w1", "w1_pooled", "mean_gap", "quantile_gap", "class_tv"), (0, 1)),
    **dict.fromkeys(("statistical_fidelity", "duplicates", "exact_copies", "recognised", "label_agreement"), (0, 1)),
    **dict.fromkeys(("density", "variance_gap", "covariance", "correlation", "spectrum_db", "class_kl"), (0, math.inf)),
    **dict.fromkeys(("fid", "fid_train"), (-0.01, math.inf)),  # rounding may leave a tiny negative
    "is": (0.999, math.inf),  # rounding too
    "auth_pct": (0, 100),
    "ssim": (-1, 1),
}
"""Values that a score can take by its definition."""
_CLOSE = 1e-6
_REQUIRED = ("seeds", "rank_by", "grace")
_OPTIONAL = ("published", "target")
_LARGEST = 1e40
"""No number is beyond: float32, which models and extractors compute in, ends at 3.4e38, and squares of squares are still finite."""


def record_faults(record: RunRecord) -> list[str]:
    """A record -> what in it cannot be, a line each; empty where nothing contradicts."""
    if far := beyond(record):
        return [*_spec(record), far]  # nothing else can be computed with it
    return [*_spec(record), *_ledger(record), *_curve(record), *_scores(record)]


def beyond(record: RunRecord) -> str:
    """Where a record holds a number that is too large to compute with, as a line; empty where it holds none."""
    return next((f"{what}: a number beyond {_LARGEST:g}, which none comes to" for what, number in _numbers(record)
                 if number is not None and not abs(number) <= _LARGEST), "")  # fmt: skip


def _numbers(record: RunRecord) -> Iterator[tuple[str, float | None]]:
    """What tables compute with."""
    track, spent, speed = record.spec.track, record.spent, record.throughput
    for score in record.scores:
        for number in (score.value, score.floor, *(score.interval or ()), score.n_real, score.n_fake):
            yield score.name, number
    for point in record.curve:
        for number in (point.progress, point.seconds, point.steps, point.images, point.fid, *point.losses.values()):
            yield "curve", number
    if spent is not None:
        for number in (spent.seconds, spent.steps, spent.images, spent.flops, spent.overshoot, spent.lost, spent.attempts,
                       spent.cpu_seconds, spent.waited, *(spent.gemm_gflops or ())):  # fmt: skip
            yield "ledger", number
    if speed is not None:
        rates = (rate for three in speed.sample.values() for rate in three)
        for number in (speed.train, speed.sample_waited, speed.parameters, speed.flops_per_image, speed.train_peak_bytes,
                       speed.sample_peak_bytes, speed.energy_joules, *rates):  # fmt: skip
            yield "throughput", number
    for number in (record.spec.seed, record.extractor_accuracy, track.num_samples, track.seeds, track.grace, track.target):
        yield "record", number


def _spec(record: RunRecord) -> Iterator[str]:
    spec, model = record.spec, record.spec.model
    if spec.track.hash != spec.track_hash:
        yield f"track hash {spec.track_hash} is not that of its track's keys, {spec.track.hash}"
    shipped = next((track for track in shipped_tracks() if track.name == spec.track.name), None)
    if shipped is not None:
        if shipped.hash != spec.track.hash:
            yield f"its track has other keys than the {shipped.name} that ships: {', '.join(_differing(spec.track, shipped))}"
        for key, mine, theirs in unhashed(spec.track, shipped, may_add=False):
            yield f"its track says {key} = {mine!r}; {shipped.name} ships with {theirs!r}"
    for name, value in model.changed.items():
        if name not in model.hparams or model.hparams[name] != value:
            yield f"changed hparam {name}={value} is not among the hparams in force"
    try:
        datetime.fromisoformat(record.started)
    except ValueError:
        yield f"started {record.started[:40]!r} is no moment in ISO 8601"
    yield from _device(record)


def _device(record: RunRecord) -> Iterator[str]:
    """The class that a record names is the one that its table stands under, so that no record gets into another's place by its name."""
    named, environment = record.spec.device, record.environment
    number, one = apart(named)
    if one in ("cpu", "cuda") or class_of(one, number) != named or device_class(record) != named:
        yield f"device class {named!r} is none: runs have a CPU's threads there (cpu-2), or an accelerator's name"
    elif environment is None:
        return
    elif not one.startswith("cpu-"):
        if one != environment.device:
            yield f"device class {named} ran on {environment.device}"
    elif environment.threads % number or one != f"cpu-{environment.threads // number}":
        yield f"device class {named} ran with {environment.threads} threads"


def _ledger(record: RunRecord) -> Iterator[str]:
    if record.status == "done" and record.environment is None:
        yield "it is done and does not say where it ran: no environment"
    if record.spent is not None:
        yield from _amounts(record, record.spent)
    elif record.status == "done":
        yield "it is done and has no ledger of its budget"


def _amounts(record: RunRecord, spent: Spent) -> Iterator[str]:
    track = record.spec.track
    budget = Budget.parse(track.budget)
    used = {"seconds": spent.seconds, "steps": spent.steps, "images": spent.images, "flops": spent.flops}[budget.kind]
    if spent.budget != track.budget:
        yield f"charged a budget of {spent.budget}; the track's is {track.budget}"
    if min(spent.seconds, spent.steps, spent.images, spent.overshoot, spent.lost, spent.attempts - 1) < 0:
        yield "a negative amount in the ledger"
    batch = _batch(record)
    if batch and spent.images < spent.steps * batch:
        yield f"{spent.steps} steps of {batch} images are more than the {spent.images} images drawn"
    if batch and spent.images % batch and spent.seconds > 0:
        yield f"{spent.images} images drawn are no multiple of the batch of {batch}"
    if record.status != "done":
        return
    if used is None:
        yield f"its budget is {track.budget}, and its ledger counts no {budget.kind}"
        return
    over = max(0.0, used - budget.amount)
    if abs(over - spent.overshoot) > _CLOSE * max(1.0, budget.amount):
        yield f"overshoot {spent.overshoot:g} recorded, {over:g} {budget.kind} by its own ledger"
    if spent.finished_early is (used >= budget.amount):
        yield f"finished_early is {spent.finished_early} after {used:g} of {budget.amount:g} {budget.kind}"
    if budget.kind == "seconds" and used > budget.amount + track.grace:
        yield f"trained {used:.1f} s; budget and grace are {budget.amount + track.grace:g} s"
    if budget.kind == "steps" and used > budget.amount:
        yield f"trained {used:g} steps of {budget.amount:g}"
    if budget.kind == "images" and over > 0 and (spent.steps - 1) * (batch or 1) >= budget.amount:
        yield f"drew {used:g} images of {budget.amount:g}: more than one step beyond the budget"
    if budget.kind == "flops" and over > max(0.05 * budget.amount, 10 * used / max(1, spent.steps)):
        yield f"spent {used:g} FLOPs of {budget.amount:g}: more than a step beyond the budget"


def _batch(record: RunRecord) -> int | None:
    """Images a draw, where the record tells: no more than the training set has."""
    size = record.spec.model.hparams.get("batch_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        return None
    train = next((score.n_real for score in record.scores if score.name == "fid_train" and score.n_real), None)
    return min(size, train) if train else size if size <= 256 else None


def _curve(record: RunRecord) -> Iterator[str]:
    points = record.curve
    for before, after in pairwise(points):
        if after.progress < before.progress or after.steps < before.steps or after.images < before.images:
            yield f"its curve goes back at {after.progress:.0%} of the budget"
            return
    spent = record.spent
    if points and spent and (points[-1].steps > spent.steps or points[-1].images > spent.images):
        yield f"its curve ends at {points[-1].steps} steps, its ledger at {spent.steps}"
    if record.status == "done" and points and spent and points[-1].steps != spent.steps:
        yield f"its curve ends at step {points[-1].steps}, not at the last, {spent.steps}"


def _scores(record: RunRecord) -> Iterator[str]:
    track = record.spec.track
    if record.status != "done":
        if record.scores:
            yield f"it ended as {record.status} and has scores"
        return
    if record.score(track.rank_by) is None and track.rank_by in {score.name for score in record.scores} | {"fid"}:
        yield f"it is done and has no {track.rank_by}, which its track ranks by"
    if not record.digests.get("samples") or not record.digests.get("checkpoint"):
        yield "it is done and has no digest of its samples or its checkpoint"
    seen = set()
    for score in record.scores:
        key = column_key(score, track)
        if key in seen:
            yield f"{key} stands there twice"
        seen.add(key)
        yield from (f"{key}: {fault}" for fault in _score(score, track))


def _score(score: Score, track: Track) -> Iterator[str]:
    low, high = _BETWEEN.get(score.name, (-math.inf, math.inf))
    if score.value is not None and not low <= score.value <= high:
        yield f"{score.value:g} is no value of this score"
    if score.interval is not None and score.interval[0] > score.interval[1]:
        yield "its interval is upside down"
    if score.extractor not in (None, track.extractor, *track.beside):
        yield f"seen by {score.extractor}, which the track does not name"
    if (score.n_fake or 0) > track.num_samples:
        yield f"of {score.n_fake} images; the track draws {track.num_samples}"


def _differing(one: Track, other: Track) -> Iterable[str]:
    """Keys that the hash covers and two tracks differ in."""
    mine = {key: getattr(one, key) for key in Track.model_fields}
    return [f"{key} = {value!r}" for key, value in mine.items() if other.model_copy(update={key: value}).hash != other.hash]


def unhashed(one: Track, other: Track, *, may_add: bool) -> Iterator[tuple[str, Any, Any]]:
    """Keys that no hash covers, but that rank rows, bound their budgets or judge them, where two tracks differ in them.

    An older record lacks what a track was told later. `may_add`: and the other way round, where nobody ships the track.
    """
    for key in Track.model_fields:
        mine, theirs = getattr(one, key), getattr(other, key)
        told = bool(mine and (theirs or not may_add))
        if mine != theirs and (key in _REQUIRED or (key in _OPTIONAL and told)):
            yield key, mine, theirs


def is_consistent(record: RunRecord) -> None:
    """Raises GenbenchError that names the first thing in a record that cannot be."""
    faults = record_faults(record)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise GenbenchError(f"{record.spec.folder}: {faults[0]}{more}")
